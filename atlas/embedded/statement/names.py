"""Properties that a statement asks of nodes and relationships, checked against the schema before anything runs."""

from __future__ import annotations

from atlas.cypher import syntax as s
from atlas.embedded.statement import types as t
from atlas.embedded.statement.types import Type


def check_properties(query: s.Query) -> None:
    """Raise QueryError for a label, type or property that the schema does not have, with the near one."""
    for part in query.parts:
        known: dict[str, Type] = {}
        for clause in part:
            if isinstance(clause, s.Match):
                known |= _bound(clause.paths)
                _check(clause, known)
            else:
                _check(clause, known)
            if isinstance(clause, s.Projection):
                items = [(item.name, item.expression) for item in clause.items]
                known = {name: known[e.name] for name, e in items if isinstance(e, s.Variable) and e.name in known}


def _bound(paths: tuple[s.PathPattern, ...]) -> dict[str, Type]:
    """What the variables of patterns are, as far as the patterns say."""
    found: dict[str, Type] = {}
    for path in paths:
        for place, edge in enumerate(path.relationships):
            t.check_names(edge.types, "type")
            types = edge.types or tuple(t.TYPES)
            if not edge.variable_length:
                found[edge.variable] = t.relationship(types)
            for node in path.nodes[place : place + 2]:
                found.setdefault(node.variable, t.node(t.ends(types)))
        for node in path.nodes:
            t.check_names(node.labels, "label")
            found.setdefault(node.variable, t.node(t.LABELS))
            if node.labels:
                found[node.variable] = t.node(node.labels)
    return found


def _check(node: object, known: dict[str, Type]) -> None:
    """Look at every `variable.property`; within lists a variable may be another one."""
    hidden = {
        name
        for part in s.within(node)
        if isinstance(part, s.Comprehension | s.Quantifier | s.Reduce)
        for name in (part.variable, getattr(part, "total", part.variable))
    }
    inner = [part for part in s.within(node) if isinstance(part, s.Subquery)]
    for subquery in inner:
        known = _bound(subquery.paths) | known
    for part in s.within(node):
        if isinstance(part, s.Property) and isinstance(part.subject, s.Variable):
            name = part.subject.name
            if name in known and name not in hidden:
                t.property_type(known[name], part.name)

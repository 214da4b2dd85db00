"""Which variables a statement's parts may name: `*` written out, and mistakes found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from atlas.cypher import syntax as s
from atlas.errors import QueryError


def scoped(query: s.Query) -> s.Query:
    """The query with `*` written out; raises QueryError for names that are not defined, and the like."""
    parts = tuple(tuple(_clauses(part, query.unnamed)) for part in query.parts)
    columns = [[item.name for item in _last(part).items] for part in parts]
    if any(names != columns[0] for names in columns):
        raise QueryError(f"UNION joins statements with the same columns in the same order: {columns[0]}, {columns[-1]}")
    return replace(query, parts=parts)


def _last(part: tuple[s.Clause, ...]) -> s.Projection:
    last = part[-1]
    assert isinstance(last, s.Projection)
    return last


def _clauses(part: tuple[s.Clause, ...], unnamed: frozenset[str]) -> Iterator[s.Clause]:
    known: set[str] = set()
    for clause in part:
        if isinstance(clause, s.Match):
            _check_match(clause, known)
            known |= pattern_variables(clause.paths)
            _check(clause.condition, known)
        elif isinstance(clause, s.Unwind):
            _check(clause.items, known)
            if clause.variable in known:
                raise QueryError(f"{clause.variable} is defined already; UNWIND needs another name")
            known.add(clause.variable)
        else:
            clause = _projection(clause, known, unnamed)
            known = {item.name for item in clause.items}
        yield clause


def _check_match(clause: s.Match, known: set[str]) -> None:
    own = pattern_variables(clause.paths)
    for path in clause.paths:
        if path.variable in known:
            raise QueryError(f"{path.variable} is defined already; a path needs another name")
        for element in path.elements:
            _check(element.properties, known | own)


def _projection(clause: s.Projection, known: set[str], unnamed: frozenset[str]) -> s.Projection:
    items = clause.items
    if clause.everything:
        star = [s.Item(s.Variable(name), name, True) for name in sorted(known - unnamed)]
        if not star and not items:
            raise QueryError("* stands for nothing here: no variable is defined")
        items = (*star, *items)
    names = [item.name for item in items]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise QueryError(f"two columns are named {twice}; give one another name with AS")
    for item in items:
        _check(item.expression, known, aggregating=True)
    for expression in (clause.skip, clause.limit):
        if free(expression):
            raise QueryError("SKIP and LIMIT take a number that does not depend on a row")
        _check(expression, set())
    clause = replace(clause, items=items, everything=False)
    closed = clause.distinct or any(s.aggregates(item.expression) for item in items)
    order = tuple(
        replace(key, expression=_by_name(key.expression, items) if closed else key.expression) for key in clause.order
    )
    for key in order:
        try:
            _check(key.expression, set(names) | (set() if closed else known), aggregating=False)
        except QueryError as error:
            raise QueryError(f"ORDER BY: {error}") from None
    _check(clause.condition, set(names))
    return replace(clause, order=order)


def _by_name(expression: Any, items: tuple[s.Item, ...]) -> Any:
    """The expression with what is projected under a name replaced by that name."""
    for item in items:
        if item.expression == expression:
            return s.Variable(item.name)
    return rebuilt(expression, lambda part: _by_name(part, items))


def rebuilt(node: Any, change: Any) -> Any:
    """The node with each of its expressions changed."""
    if isinstance(node, tuple):
        return tuple(change(item) if isinstance(item, s.Expression) else item for item in node)
    values = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, s.Expression):
            values[field.name] = change(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], s.Expression):
            values[field.name] = tuple(map(change, value))
    return replace(node, **values) if values else node


def pattern_variables(paths: tuple[s.PathPattern, ...]) -> set[str]:
    """The variables that patterns bind or use."""
    found = {path.variable for path in paths if path.variable}
    return found | {element.variable for path in paths for element in path.elements}


def free(node: Any) -> set[str]:
    """The variables that an expression takes from the row."""
    if isinstance(node, s.Variable):
        return {node.name}
    if isinstance(node, s.Comprehension):
        return free(node.items) | ((free(node.condition) | free(node.result)) - {node.variable})
    if isinstance(node, s.Quantifier):
        return free(node.items) | (free(node.condition) - {node.variable})
    if isinstance(node, s.Reduce):
        return free(node.start) | free(node.items) | (free(node.step) - {node.total, node.variable})
    if isinstance(node, tuple):
        return set().union(*map(free, node))
    if isinstance(node, s.Subquery):
        inner = [element.properties for path in node.paths for element in path.elements]
        return pattern_variables(node.paths) | free(node.condition) | free(tuple(filter(None, inner)))
    if hasattr(node, "__dataclass_fields__"):
        return set().union(*(free(getattr(node, field.name)) for field in fields(node)))
    return set()


def _check(node: s.Expression | None, known: set[str], *, aggregating: bool = False) -> None:
    """Raise QueryError for an unknown variable, or an aggregate where none may stand."""
    if node is None:
        return
    for subquery in (each for each in s.within(node) if isinstance(each, s.Subquery)):
        names = pattern_variables(subquery.paths)
        known = known | (names if subquery.own is None else names & subquery.own)
    if unknown := sorted(free(node) - known):
        raise QueryError(f"the variable {unknown[0]} is not defined here{_defined(known)}")
    if not aggregating and s.aggregates(node):
        raise QueryError("count(), collect() and other aggregates stand in WITH and RETURN only")
    for call in (each for each in s.within(node) if isinstance(each, s.Call) and each.name in s.AGGREGATES):
        if s.aggregates(call.arguments):
            raise QueryError(f"{call.name}() is an aggregate of an aggregate; take the inner one in a WITH before")
        if any(isinstance(part, s.Call) and part.name == "rand" for part in s.within(call.arguments)):
            raise QueryError(f"{call.name}() takes nothing random; draw it in a WITH before")


def _defined(known: set[str]) -> str:
    names = sorted(name for name in known if not name.startswith("_"))
    return f"; there are {', '.join(names[:6])}" if names else ""

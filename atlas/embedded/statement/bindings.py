"""The variables of a MATCH: their names in the engine, and their types as labels and relationships give them."""

from __future__ import annotations

from dataclasses import dataclass

from atlas.cypher import syntax as s
from atlas.embedded.statement import types as t
from atlas.embedded.statement.forms import Bound, NotAlike, Scope
from atlas.embedded.statement.types import Type
from atlas.embedded.statement.writer import Writer
from atlas.errors import QueryError, QueryRefused


@dataclass(frozen=True)
class Step:
    """A relationship of a pattern between two of its nodes."""

    pattern: s.RelationshipPattern
    left: str
    right: str
    path: s.PathPattern

    @property
    def whole_path(self) -> bool:
        """Whether it is all of a path that has a name, so that it is written with it."""
        return len(self.path.relationships) == 1 and bool(self.path.variable or self.path.shortest)

    @property
    def simple(self) -> bool:
        """Whether it may stand beside others in one pattern."""
        return not self.pattern.variable_length and not self.whole_path and self.left != self.right


class Bindings:
    """Names and types of what patterns bind, behind what is known before them."""

    def __init__(self, paths: tuple[s.PathPattern, ...], writer: Writer) -> None:
        self.paths, self.writer = paths, writer
        self.steps = [
            Step(pattern, path.nodes[place].variable, path.nodes[place + 1].variable, path)
            for path in paths
            for place, pattern in enumerate(path.relationships)
        ]
        self.bound = set(writer.scope)
        self._check()
        self.scope: Scope = dict(writer.scope)
        self.raw: dict[str, str] = {}  # the engine's names of new variables
        self.labels: dict[str, tuple[str, ...]] = {}  # labels that are written
        self._bind()

    def _check(self) -> None:
        names = [step.pattern.variable for step in self.steps]
        if twice := next((name for name in names if names.count(name) > 1 or name in self.bound), None):
            raise QueryRefused(
                f"the relationship {twice} stands in two patterns; give each its own name and compare ids"
            )
        for step in self.steps:
            t.check_names(step.pattern.types, "type")
            low, high = step.pattern.low or 0, step.pattern.high
            if high is not None and low > high:
                raise QueryError(f"a pattern of {low} to {high} hops matches nothing")
        for path in self.paths:
            for node in path.nodes:
                t.check_names(node.labels, "label")

    def _bind(self) -> None:
        """Name the new variables and find their types."""
        for step in self.steps:
            types = step.pattern.types or tuple(t.TYPES)
            labels = t.ends(types)
            for end in (step.left, step.right):
                known = self._known_labels(end)
                types = tuple(name for name in types if t.TYPES[name].label in known)
                if not types:
                    raise QueryError(
                        f"no relationship {' or '.join(step.pattern.types)} leads to or from {' or '.join(known)}; "
                        f"they join {' and '.join(labels)} nodes"
                    )
            ends = (self._known_labels(end) for end in (step.left, step.right))
            if step.pattern.low == 0 and not any(set(known) <= set(t.ends(types)) for known in ends):
                raise QueryRefused(
                    "a path of 0 hops begins and ends at any node; give one of its ends a label, e.g. (n:Feature)"
                )
            name = self.raw[step.pattern.variable] = self.writer.constants.variable()
            found = t.relationship(types)
            bound = Bound(f"rels({name})", t.list_of(found)) if step.pattern.variable_length else Bound(name, found)
            self.scope[step.pattern.variable] = bound
        for path in self.paths:
            for node in path.nodes:
                self._bind_node(node.variable)
            if path.variable:
                self._bind_path(path)

    def _known_labels(self, variable: str) -> tuple[str, ...]:
        """The labels that a node can have by what is written of it."""
        labels = tuple(t.LABELS)
        if variable in self.bound:
            type_ = self.scope[variable].type
            if type_.kind != t.NODE:
                raise QueryError(f"{variable} is not a node, so that a pattern cannot hold it")
            labels = type_.names
        for path in self.paths:
            for node in path.nodes:
                if node.variable == variable and node.labels:
                    labels = tuple(label for label in labels if label in node.labels)
        if not labels:
            raise QueryError(f"{variable} has two labels; every node has one")
        return labels

    def _bind_node(self, variable: str) -> None:
        written = self._known_labels(variable)
        if variable in self.bound:
            if set(written) < set(self.scope[variable].type.names):
                raise NotAlike("a label for a node that is known already")
            return
        labels = written
        for step in self.steps:
            if variable in (step.left, step.right):
                types = self.types(step)
                labels = tuple(label for label in labels if label in t.ends(types))
        name = self.raw.setdefault(variable, self.writer.constants.variable())
        self.labels[variable] = written if len(written) < len(t.LABELS) else ()
        self.scope[variable] = Bound(name, t.node(labels))

    def types(self, step: Step) -> tuple[str, ...]:
        type_ = self.scope[step.pattern.variable].type
        return type_.item.names if type_.item else type_.names

    def _bind_path(self, path: s.PathPattern) -> None:
        assert path.variable
        types = tuple(name for step in self.steps if step.path is path for name in self.types(step))
        name = self.raw[path.variable] = self.writer.constants.variable() if len(path.relationships) == 1 else ""
        self.scope[path.variable] = Bound(name, Type(t.PATH, tuple(dict.fromkeys(types))))

"""A statement cut in two: what LadybugDB answers as Neo4j does, and what Python computes from its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.interpret.pipeline import steps
from atlas.cypher.parser import parse
from atlas.cypher.scope import free, scoped
from atlas.embedded.statement import types as t
from atlas.embedded.statement.constants import Constants
from atlas.embedded.statement.forms import Bound, NotAlike, Scope
from atlas.embedded.statement.names import check_properties
from atlas.embedded.statement.nulls import may_be_null
from atlas.embedded.statement.patterns import Pattern, written_subquery
from atlas.embedded.statement.types import Type
from atlas.embedded.statement.writer import Writer
from atlas.errors import QueryRefused
from atlas.schema import BOOLEAN, INTEGER, STRING


@dataclass(frozen=True)
class Branch:
    """One statement of a UNION, or all where there is none."""

    text: str | None  # what the engine is given; None: it needs no graph
    variables: tuple[str, ...]  # what the engine's columns are called in the tail
    paths: tuple[tuple[str, s.PathPattern], ...]  # paths that are put together from the variables
    tail: tuple[s.Clause, ...]  # what is done with the rows in Python
    row_by_row: bool  # whether the tail gives one row a row, in their order
    open_end: bool  # whether a LIMIT may be appended to the text


@dataclass(frozen=True)
class Plan:
    """A statement that may run."""

    branches: tuple[Branch, ...]
    every_row: bool  # UNION ALL
    columns: tuple[str, ...]
    passed: tuple[tuple[str, str, bool], ...]  # the engine's parameters: its name, the statement's, without nulls
    computed: tuple[tuple[str, Any], ...]  # the same for values of the statement's own
    counts: tuple[str, ...]  # parameters of SKIP and LIMIT
    depends_on_values: bool  # whether other values of the same types need another plan


def compiled(cypher: str, parameters: Mapping[str, Any], trusted: bool) -> Plan:
    """The statement's plan for parameters of these types; raises QueryRefused or QueryError."""
    query = scoped(parse(cypher))
    check_properties(query)
    constants = Constants(parameters)
    found = [_Compiler(constants, parameters, trusted).branch(part) for part in query.parts]
    last = query.parts[0][-1]
    assert isinstance(last, s.Projection)
    return Plan(
        tuple(branch for branch, _ in found),
        query.every_row,
        tuple(item.name for item in last.items),
        tuple((engine, name, strip) for engine, (name, strip) in constants.passed.items()),
        tuple(constants.computed.items()),
        tuple(name for _, names in found for name in names),
        constants.used_values,
    )


class _Compiler:
    """Writes clauses for the engine as far as it can."""

    def __init__(self, constants: Constants, parameters: Mapping[str, Any], trusted: bool) -> None:
        self.constants, self.parameters = constants, parameters
        self.writer = Writer(constants, {}, trusted, subquery=written_subquery)
        self.texts: list[str] = []
        self.paths: dict[str, tuple[s.PathPattern, tuple[str, ...]]] = {}
        self.counts: list[str] = []

    def branch(self, part: tuple[s.Clause, ...]) -> tuple[Branch, list[str]]:
        """The plan of one statement."""
        reason = ""
        needs_graph = any(isinstance(clause, s.Match) or _subqueries(clause) for clause in part)
        for place, clause in enumerate(part if needs_graph else ()):
            before = (self.writer, list(self.texts), dict(self.paths), list(self.counts))
            try:
                left_over = self._clause(clause)
            except NotAlike as why:
                self.writer, self.texts, self.paths, self.counts = before
                return self._split(part, place, part[place:], str(why)), self.counts
            if left_over:
                rest = (s.Match((), s.conjunction(left_over), False), *part[place + 1 :])
                return self._split(part, place + 1, rest, "a condition that the engine does not know"), self.counts
        if not needs_graph:
            return self._split(part, 0, part, reason), self.counts
        last = part[-1]
        assert isinstance(last, s.Projection)
        return Branch(" ".join(self.texts), (), (), (), True, last.limit is None), self.counts

    def _split(self, part: tuple[s.Clause, ...], place: int, tail: tuple[s.Clause, ...], why: str) -> Branch:
        """Python from here on."""
        if any((isinstance(clause, s.Match) and clause.paths) or _subqueries(clause) for clause in tail):
            raise QueryRefused(
                f"the embedded graph's engine cannot be trusted with this: {why}; compute it after the last MATCH, in "
                "WITH or RETURN, or use a Neo4j atlas"
            )
        steps(tail, self.parameters)  # raises what can be told beforehand
        if not self.texts:
            return Branch(None, (), (), tail, False, False)
        before = part[place - 1]
        if isinstance(before, s.Projection) and before.order and tail and tail[0] is part[place]:
            # The engine keeps no order beyond the clause; its rows are sorted again.
            tail = (replace(before, skip=None, limit=None, condition=None, distinct=False, items=_same(before)), *tail)
        wanted = free_of(tail) & set(self.writer.scope)
        columns: dict[str, str] = {}
        paths = []
        for name in sorted(wanted):
            if name in self.paths:
                path, raw = self.paths[name]
                columns |= {element.variable: text for element, text in zip(path.elements, raw, strict=True)}
                paths.append((name, path))
            else:
                columns.setdefault(name, self.writer.scope[name].text)
        text = ", ".join(f"{text} AS c{number}" for number, text in enumerate(columns.values())) or "1 AS c0"
        names = tuple(columns) or (" ",)
        whole = all(isinstance(clause, s.Projection) and _row_by_row(clause) for clause in tail)
        return Branch(f"{' '.join(self.texts)} RETURN {text}", names, tuple(paths), tail, whole, whole)

    def _clause(self, clause: s.Clause) -> list[s.Expression]:
        """Write a clause; returns the conditions that are left over."""
        if isinstance(clause, s.Match):
            return self._match(clause)
        if isinstance(clause, s.Unwind):
            self._unwind(clause)
        else:
            self._project(clause)
        return []

    def _match(self, clause: s.Match) -> list[s.Expression]:
        pattern = Pattern(clause.paths, self.writer, optional=clause.optional)
        matched = pattern.written_out(clause.condition)
        for text in matched.texts:
            barrier = "WITH * " if self.texts and not text.startswith(("WITH", "UNWIND")) else ""
            self.texts.append(barrier + text)
        self.paths |= matched.parts
        self.writer = replace(self.writer, scope=pattern.after, ordered=False)
        return matched.left_over

    def _unwind(self, clause: s.Unwind) -> None:
        text, type_ = self.writer.write(clause.items)
        if type_.kind != t.LIST or type_.item is None or type_.item.kind in (t.ANY, t.LIST) or type_.nulls:
            raise NotAlike("UNWIND of something else than a list of one type")
        name = self.constants.variable()
        if type_.item.kind == t.NULL:
            text = "CAST([] AS INT64[])"
        if self.texts and self.texts[-1].startswith(("MATCH", "OPTIONAL", "WITH * ")):
            self.texts.append("WITH *")
        self.texts.append(f"UNWIND {text} AS {name}")
        scope = self.writer.scope | {clause.variable: Bound(name, type_.item, nullable=type_.item.kind == t.NULL)}
        self.writer = replace(self.writer, scope=scope, ordered=False)

    def _project(self, clause: s.Projection) -> None:
        if self.writer.ordered and not clause.order and (clause.final or clause.skip or clause.limit):
            raise NotAlike("an order that a later clause keeps")
        aggregating = any(s.aggregates(item.expression) for item in clause.items)
        steps((clause,), self.parameters) if aggregating else None  # raises where a column is not grouped by
        scope: Scope = {}
        columns = []
        for number, item in enumerate(clause.items):
            text, type_ = self._item(item, clause)
            same = type_.kind in (t.NODE, t.RELATIONSHIP, t.PATH) and not clause.final
            if same and any(bound.text == text for bound in scope.values()):
                raise NotAlike("a node under two names")
            name = text if same else f"c{number}" if clause.final else self.constants.variable()
            columns.append(text if same else f"{text} AS {name}")
            scope[item.name] = Bound(name, type_, may_be_null(item.expression, self.writer.scope))
        after = replace(self.writer, scope=scope)
        both = after if clause.distinct or aggregating else replace(self.writer, scope=self.writer.scope | scope)
        parts = ["RETURN" if clause.final else "WITH", "DISTINCT " * clause.distinct + ", ".join(columns)]
        if clause.order:
            if not clause.final and not free(tuple(key.expression for key in clause.order)) <= set(scope):
                raise NotAlike("WITH in the order of what it leaves out")
            keys = ", ".join(self._key(both, key) for key in clause.order)
            # An order without a LIMIT is the next clause's, which sorts again where it needs it.
            parts += ["ORDER BY", keys] if clause.final or clause.skip or clause.limit else []
        for word, bound in (("SKIP", clause.skip), ("LIMIT", clause.limit)):
            if bound is not None:
                parts += [word, self._count(bound)]
        if clause.condition is not None:
            parts += ["WHERE", after.condition(clause.condition)]
        self.texts.append(" ".join(parts))
        self.paths = {}  # none goes through: it would have been refused as a computed value
        ordered = bool(clause.order) or (self.writer.ordered and not clause.distinct and not aggregating)
        self.writer = replace(self.writer, scope=scope, ordered=ordered)

    def _item(self, item: s.Item, clause: s.Projection) -> tuple[str, Type]:
        text, type_ = self.writer.write(item.expression)
        constant = not free(item.expression) and not s.aggregates(item.expression)
        if type_.kind == t.ANY or (type_.kind == t.NULL and not clause.final) or (constant and type_.kind == t.LIST):
            raise NotAlike(f"{item.name[:40]} of unknown type")
        if (
            (clause.distinct or any(s.aggregates(each.expression) for each in clause.items))
            and not s.aggregates(item.expression)
            and type_.kind not in (*t.PLAIN, t.NODE)
        ):
            # A relationship that was met from both its ends is two for the engine.
            raise NotAlike("DISTINCT or grouping by a relationship, list, map or path")
        return text, type_

    def _key(self, writer: Writer, key: s.Order) -> str:
        text, type_ = writer.write(key.expression)
        if type_.kind not in (INTEGER, "DOUBLE", STRING, BOOLEAN):
            raise NotAlike("ORDER BY of something else than numbers, text and booleans")
        return f"{text} DESC" if key.descending else text

    def _count(self, bound: s.Expression) -> str:
        if isinstance(bound, s.Parameter) and self.constants.type(bound.name).kind == INTEGER:
            self.counts.append(bound.name)
            return f"${self.constants.given(bound.name)}"
        _, value = self.constants.folded(bound)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise NotAlike("SKIP or LIMIT of such a value")
        return str(value)


def _same(clause: s.Projection) -> tuple[s.Item, ...]:
    return tuple(s.Item(s.Variable(item.name), item.name, True) for item in clause.items)


def _row_by_row(clause: s.Projection) -> bool:
    plain = not (clause.distinct or clause.order or clause.skip or clause.limit or clause.condition)
    return plain and not any(s.aggregates(item.expression) for item in clause.items)


def _subqueries(clause: s.Clause) -> bool:
    return any(isinstance(part, s.Subquery) for part in s.within(clause))


def free_of(clauses: tuple[s.Clause, ...]) -> set[str]:
    """Every variable that the clauses name."""
    return {part.name for part in s.within(clauses) if isinstance(part, s.Variable)}

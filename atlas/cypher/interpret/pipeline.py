"""Clauses that need no graph, run on rows in Python: UNWIND, WITH, RETURN, and the conditions behind MATCH."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.interpret.aggregate import Aggregate
from atlas.cypher.interpret.evaluate import Compute, Row, computing
from atlas.cypher.interpret.operators import truth
from atlas.cypher.interpret.values import key, rank, type_of
from atlas.cypher.scope import free, rebuilt
from atlas.errors import QueryError

Rows = Iterable[Row]
Step = Callable[[Rows], Rows]


def steps(clauses: Sequence[s.Clause], parameters: Mapping[str, Any]) -> list[Step]:
    """What each clause does to the rows; raises QueryError for what can be told beforehand."""
    made: list[Step] = []
    for clause in clauses:
        if isinstance(clause, s.Unwind):
            made.append(_unwind(clause, parameters))
        elif isinstance(clause, s.Projection):
            made.append(_project(clause, parameters))
        else:
            assert not clause.paths and not clause.optional
            made.append(_filter(clause.condition, parameters))
    return made


def run(made: Iterable[Step], rows: Rows) -> Rows:
    """The rows that the steps leave."""
    for step in made:
        rows = step(rows)
    return rows


def _filter(condition: s.Expression | None, parameters: Mapping[str, Any]) -> Step:
    if condition is None:
        return lambda rows: rows
    test = computing(condition, parameters)
    return lambda rows: (row for row in rows if truth(test(row)))


def _unwind(clause: s.Unwind, parameters: Mapping[str, Any]) -> Step:
    items, name = computing(clause.items, parameters), clause.variable

    def unwind(rows: Rows) -> Iterator[Row]:
        for row in rows:
            found = items(row)
            for item in found if isinstance(found, list) else [] if found is None else [found]:
                yield {**row, name: item}

    return unwind


def _project(clause: s.Projection, parameters: Mapping[str, Any]) -> Step:
    """Values first, then DISTINCT, ORDER BY, SKIP, LIMIT and WHERE."""
    if any(s.aggregates(item.expression) for item in clause.items):
        values, keep = _grouped(clause.items, parameters), False
    else:
        computes = [(item.name, computing(item.expression, parameters)) for item in clause.items]
        values, keep = (lambda rows: ((row, {name: each(row) for name, each in computes}) for row in rows)), True
    order = [(computing(by.expression, parameters), by.descending) for by in clause.order]
    bounds = [computing(bound, parameters) if bound else None for bound in (clause.skip, clause.limit)]
    condition = _filter(clause.condition, parameters)

    def project(rows: Rows) -> Rows:
        pairs: Iterable[tuple[Row, Row]] = values(rows)
        if clause.distinct:
            pairs = _distinct(pairs)
        if order:
            pairs = list(pairs)
            for by, descending in reversed(order):
                # A projected name hides the variable that it was computed from.
                pairs.sort(key=lambda pair: rank(by({**pair[0], **pair[1]} if keep else pair[1])), reverse=descending)
        low, most = (_count(bound) for bound in bounds)
        found = islice((row for _, row in pairs), low or 0, None if most is None else (low or 0) + most)
        return condition(found)

    return project


def _distinct(pairs: Iterable[tuple[Row, Row]]) -> Iterator[tuple[Row, Row]]:
    seen: set[Any] = set()
    for pair in pairs:
        found = tuple(map(key, pair[1].values()))
        if found not in seen:
            seen.add(found)
            yield pair


def _count(bound: Compute | None) -> int | None:
    if bound is None:
        return None
    value = bound({})
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise QueryError(f"SKIP and LIMIT take an INTEGER that is not negative, not {type_of(value)} {value!r}"[:200])
    return value


def _grouped(items: tuple[s.Item, ...], parameters: Mapping[str, Any]) -> Callable[[Rows], Iterator[tuple[Row, Row]]]:
    """Groups by the items without an aggregate, and computes the others once a group."""
    keys = [item for item in items if not s.aggregates(item.expression)]
    calls: list[s.Call] = []
    finals = [(item.name, computing(_without(item, keys, calls), parameters)) for item in items]
    by = [(item.name, computing(item.expression, parameters)) for item in keys]
    arguments = [[computing(argument, parameters) for argument in call.arguments] for call in calls]
    for call in calls:
        Aggregate(call)  # raises where it cannot be

    def group(rows: Rows) -> Iterator[tuple[Row, Row]]:
        groups: dict[Any, tuple[Row, list[Aggregate]]] = {}
        if not keys:
            groups[()] = ({}, [Aggregate(call) for call in calls])
        for row in rows:
            own = {name: each(row) for name, each in by}
            found = tuple(map(key, own.values()))
            if found not in groups:
                groups[found] = (own, [Aggregate(call) for call in calls])
            for aggregate, computes in zip(groups[found][1], arguments, strict=True):
                aggregate.add([compute(row) for compute in computes])
        for own, aggregates in groups.values():
            done = {_name(place): aggregate.result() for place, aggregate in enumerate(aggregates)}
            yield {}, {name: each(own | done) for name, each in finals}

    return group


def _name(place: int) -> str:
    return f" aggregate {place}"


def _without(item: s.Item, keys: list[s.Item], calls: list[s.Call]) -> s.Expression:
    """The item's expression with aggregates and grouping keys replaced by variables."""

    def change(part: s.Expression) -> s.Expression:
        for other in keys:
            if other.expression == part:
                return s.Variable(other.name)
        if isinstance(part, s.Call) and part.name in s.AGGREGATES:
            calls.append(part)
            return s.Variable(_name(len(calls) - 1))
        changed: s.Expression = rebuilt(part, change)
        return changed

    found = change(item.expression)
    allowed = {other.name for other in keys} | {_name(place) for place in range(len(calls))}
    if wrong := sorted(free(found) - allowed):
        raise QueryError(
            f"{wrong[0]} stands beside an aggregate in {item.name[:60]} and is not grouped by; compute it in a WITH "
            "before"
        )
    return found


__all__ = ["Compute", "Step", "run", "steps"]

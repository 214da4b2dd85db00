"""Runs a plan: the engine's rows as Cypher's values, what Python does with them, and plain rows out of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from atlas.cypher import syntax as s
from atlas.cypher.interpret.pipeline import run, steps
from atlas.cypher.interpret.values import Node, Path, Relationship, finite, key
from atlas.embedded.statement.compile import Branch, Plan
from atlas.embedded.statement.constants import engine_value
from atlas.embedded.statement.patterns import DEEPEST
from atlas.errors import QueryError
from atlas.schema import BOOLEAN, INTEGER, properties

if TYPE_CHECKING:
    import ladybug

Execute = Callable[[str, dict[str, Any]], "ladybug.QueryResult"]


def prepared(connection: ladybug.Connection) -> ladybug.Connection:
    """The connection, its bound on the length of a path lifted to DEEPEST hops."""
    connection.execute(f"CALL var_length_extend_max_depth={DEEPEST}")
    return connection


def executed(connection: ladybug.Connection, text: str, parameters: dict[str, Any]) -> ladybug.QueryResult:
    """The engine's answer to one statement."""
    result = connection.execute(text, parameters)
    if isinstance(result, list):
        raise QueryError("the engine took this for several statements")
    return result


def rows_of(plan: Plan, parameters: Mapping[str, Any], execute: Execute, limit: int = 0) -> Iterator[list[Any]]:
    """Rows of plain values; `limit`: how many are wanted at most (0: all), one more is given to show that there are.

    Raises QueryError where Cypher's rules do.
    """
    given = {engine: engine_value(parameters[name], strip) for engine, name, strip in plan.passed}
    given |= dict(plan.computed)
    for name in plan.counts:
        if parameters[name] < 0:
            raise QueryError(f"SKIP and LIMIT take a number that is not negative; ${name} is {parameters[name]}")
    found: Iterable[list[Any]] = (
        row for branch in plan.branches for row in _branch(branch, plan, parameters, given, execute, limit)
    )
    if len(plan.branches) > 1 and not plan.every_row:
        found = _distinct(found)
    return ([plain(value, name) for value, name in zip(row, plan.columns, strict=True)] for row in found)


def _branch(
    branch: Branch, plan: Plan, parameters: Mapping[str, Any], given: dict[str, Any], execute: Execute, limit: int
) -> Iterator[list[Any]]:
    if branch.text is None:
        yield from (list(row.values()) for row in run(steps(branch.tail, parameters), [{}]))
        return
    text = branch.text
    if limit and branch.open_end and len(plan.branches) == 1:
        text = f"{text}\nLIMIT {limit + 1}"
    # The engine refuses values that its text does not name.
    own = {name: value for name, value in given.items() if re.search(rf"\${name}\b", text)}
    result = execute(text, own)
    read = (list(map(value_of, row)) for row in _each(result))
    if not branch.tail:
        yield from read
        return
    named = (_with_paths(dict(zip(branch.variables, row, strict=True)), branch.paths) for row in read)
    yield from (list(row.values()) for row in run(steps(branch.tail, parameters), named))


def _each(result: ladybug.QueryResult) -> Iterator[list[Any]]:
    while result.has_next():
        yield result.get_next()


def _distinct(rows: Iterable[list[Any]]) -> Iterator[list[Any]]:
    seen: set[Any] = set()
    for row in rows:
        found = key(row)
        if found not in seen:
            seen.add(found)
            yield row


def value_of(value: Any) -> Any:
    """A value of the engine's as one of Cypher's."""
    if isinstance(value, list):
        return [value_of(item) for item in value]
    if isinstance(value, dict):
        if "_NODES" in value and "_RELS" in value:
            return Path(tuple(map(value_of, value["_NODES"])), tuple(map(value_of, value["_RELS"])))
        if "_ID" in value:
            return _element(value)
        return {str(name): value_of(item) for name, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # The engine sums integers in 128 bits, which arrive as Decimal.
    return int(value) if hasattr(value, "as_integer_ratio") and value == int(value) else str(value)


def _element(value: dict[str, Any]) -> Node | Relationship:
    """A node or a relationship; a pattern over several labels brings the properties of all of them."""
    name, found = value["_LABEL"], value["_ID"]
    types = properties(name)
    own = {key: _typed(value[key], type_) for key, type_ in types.items() if key in value}
    kind = Relationship if "_SRC" in value else Node
    return kind((found["table"], found["offset"]), name, own)


def _typed(value: Any, type_: str) -> Any:
    """A property; text where labels of one pattern declare it with different types, so made what it was."""
    if isinstance(value, str) and type_ == BOOLEAN:
        return value == "True"
    return int(value) if isinstance(value, str) and type_ == INTEGER else value


def _with_paths(row: dict[str, Any], paths: tuple[tuple[str, s.PathPattern], ...]) -> dict[str, Any]:
    """The row with the paths that consist of several steps."""
    for name, pattern in paths:
        if any(row[element.variable] is None for element in pattern.elements):
            row[name] = None  # of an OPTIONAL MATCH that found nothing
            continue
        nodes, edges = [row[pattern.nodes[0].variable]], list[Any]()
        for place, edge in enumerate(pattern.relationships):
            between = row[edge.variable]
            if isinstance(between, Path):
                edges += between.relationships
                nodes += between.nodes
                nodes += [row[pattern.nodes[place + 1].variable]] if between.relationships else []
            else:
                edges.append(between)
                nodes.append(row[pattern.nodes[place + 1].variable])
        row[name] = Path(tuple(nodes), tuple(edges))
        for edge in pattern.relationships:
            if isinstance(row[edge.variable], Path):
                row[edge.variable] = list(row[edge.variable].relationships)
    return row


def plain(value: Any, column: str) -> Any:
    """A value for the user: a node is the dict of its properties, a relationship that with its `type`, a path both.

    Raises QueryError for what no JSON holds: NaN and the infinities.
    """
    if isinstance(value, float):
        return finite(value, column)
    if isinstance(value, list):
        return [plain(item, column) for item in value]
    if isinstance(value, dict):
        return {name: plain(item, column) for name, item in value.items()}
    if isinstance(value, Node):
        return plain(value.properties, column)
    if isinstance(value, Relationship):
        return {"type": value.type, **plain(value.properties, column)}
    if isinstance(value, Path):
        nodes, edges = (plain(list(items), column) for items in (value.nodes, value.relationships))
        return {"nodes": nodes, "relationships": edges}
    return value

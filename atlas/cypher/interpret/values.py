"""Values of Cypher as plain Python, and how Neo4j compares them.

null is None; numbers are int and float, text str, lists list, maps dict; nodes, relationships and paths are below. A
comparison is True, False or None, where it cannot be known (openCypher 9, "Comparability, equality, orderability").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from atlas.errors import QueryError

LARGEST = (1 << 63) - 1  # of an INTEGER


@dataclass(frozen=True)
class Node:
    """A node: `id` tells it from others."""

    id: Any
    label: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class Relationship:
    """A relationship: `id` tells it from others."""

    id: Any
    type: str
    properties: dict[str, Any]


@dataclass(frozen=True)
class Path:
    """Nodes and the relationships between them."""

    nodes: tuple[Node, ...]
    relationships: tuple[Relationship, ...]


def type_of(value: Any) -> str:
    """A value's type, for people."""
    names = {bool: "BOOLEAN", int: "INTEGER", float: "FLOAT", str: "STRING", list: "LIST", dict: "MAP"}
    names |= {Node: "NODE", Relationship: "RELATIONSHIP", Path: "PATH", type(None): "NULL"}
    return names.get(type(value), type(value).__name__)


def is_number(value: Any) -> bool:
    """Whether it is an INTEGER or a FLOAT; a boolean is neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def integer(value: int) -> int:
    """The value; raises QueryError beyond 64 bits, as Neo4j does."""
    if not -LARGEST - 1 <= value <= LARGEST:
        raise QueryError("an INTEGER of the statement has more than 64 bits; compute with floating point (1.0 * …)")
    return value


def finite(value: float, column: str) -> float:
    """The value; raises QueryError for NaN and the infinities, which no JSON holds, with the column they stand in."""
    if math.isfinite(value):
        return value
    raise QueryError(
        f"the column {column[:60]} holds {'NaN' if value != value else 'Infinity'}, which is no number; divide by "
        "nothing that can be 0.0, e.g. CASE WHEN x = 0 THEN null ELSE y / x END"
    )


def equal(left: Any, right: Any) -> bool | None:
    """`left = right`."""
    if left is None or right is None:
        return None
    if is_number(left) and is_number(right):
        return bool(left == right)
    if isinstance(left, list) and isinstance(right, list):
        return False if len(left) != len(right) else _all_equal(zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return False if left.keys() != right.keys() else _all_equal((left[key], right[key]) for key in left)
    if type(left) is not type(right):
        return False
    if isinstance(left, Node | Relationship):
        return bool(left.id == right.id)
    if isinstance(left, Path):
        return bool(key(left) == key(right))
    return bool(left == right)


def _all_equal(pairs: Any) -> bool | None:
    known: bool | None = True
    for left, right in pairs:
        same = equal(left, right)
        if same is False:
            return False
        known = known if same else None
    return known


def compare(left: Any, right: Any) -> int | None:
    """−1, 0 or 1 as left is smaller, equal or larger; None where the two cannot be compared."""
    if is_number(left) and is_number(right):
        return None if left != left or right != right else (left > right) - (left < right)
    for kind in (str, bool):
        if isinstance(left, kind) and isinstance(right, kind):
            return (left > right) - (left < right)  # type: ignore[operator]
    if isinstance(left, list) and isinstance(right, list):
        for a, b in zip(left, right, strict=False):
            same = equal(a, b)
            if not same:
                return None if same is None else compare(a, b)
        return (len(left) > len(right)) - (len(left) < len(right))
    return None


def ordered(operator: str, left: Any, right: Any) -> bool | None:
    """`left < right` and the like."""
    if is_number(left) and is_number(right) and (left != left or right != right):
        return False
    found = compare(left, right)
    if found is None:
        return None
    return {"<": found < 0, "<=": found <= 0, ">": found > 0, ">=": found >= 0}[operator]


def contained(item: Any, items: Any) -> bool | None:
    """`item IN items`."""
    if items is None:
        return None
    if not isinstance(items, list):
        raise QueryError(f"IN needs a list behind it, not {type_of(items)}")
    known: bool | None = False
    for other in items:
        same = equal(item, other)
        if same:
            return True
        known = None if same is None else known
    return known


def negation(value: bool | None) -> bool | None:
    """NOT of a truth value."""
    return None if value is None else not value


def key(value: Any) -> Any:
    """Equal for values that DISTINCT and grouping take for one; hashable. Null is the same as null, NaN as NaN."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, float) and value != value:
        return ("nan",)
    if isinstance(value, list):
        return ("list", *map(key, value))
    if isinstance(value, dict):
        return ("map", frozenset((name, key(item)) for name, item in value.items()))
    if isinstance(value, Node):
        return ("node", key(value.id))
    if isinstance(value, Relationship):
        return ("relationship", key(value.id))
    if isinstance(value, Path):
        return ("path", tuple(map(key, value.nodes)), tuple(map(key, value.relationships)))
    return value


def rank(value: Any) -> Any:
    """Sorts values of every type as ORDER BY does: maps, nodes, relationships, lists, paths, text, booleans, numbers,
    NaN, null."""
    if value is None:
        return (9,)
    if isinstance(value, bool):
        return (6, value)
    if isinstance(value, int | float):
        return (8,) if math.isnan(value) else (7, value)
    if isinstance(value, str):
        return (5, value)
    if isinstance(value, list):
        return (3, [rank(item) for item in value])
    if isinstance(value, dict):
        return (0, sorted(value), [rank(value[name]) for name in sorted(value)])
    if isinstance(value, Node):
        return (1, rank(value.id))
    if isinstance(value, Relationship):
        return (2, rank(value.id))
    return (4, [rank(node) for node in value.nodes], [rank(edge) for edge in value.relationships])

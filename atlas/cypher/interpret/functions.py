"""Cypher's functions that compute, in Python, as Neo4j defines them. Null in, null out, unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from atlas.cypher.interpret.text import TEXT_FUNCTIONS, whole, wrong
from atlas.cypher.interpret.values import Node, Path, Relationship, equal, integer, is_number, type_of
from atlas.errors import QueryError


def _numeric(name: str, compute: Callable[[float], Any]) -> Callable[..., Any]:
    """A function of one number that gives a FLOAT; outside its domain NaN, as in Java."""

    def function(value: Any) -> Any:
        if not is_number(value):
            raise wrong(name, value)
        try:
            return float(compute(value))
        except (ValueError, ZeroDivisionError):
            return math.nan
        except OverflowError:
            return math.inf

    return function


def _logarithm(base: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: -math.inf if value == 0 else base(value)


def _abs(value: Any) -> Any:
    if not is_number(value):
        raise wrong("abs", value)
    return integer(abs(value)) if isinstance(value, int) else abs(value)


def _sign(value: Any) -> int:
    if not is_number(value):
        raise wrong("sign", value)
    return int(value > 0) - int(value < 0)


def _round(value: Any, places: Any = 0, mode: Any = "HALF_UP") -> Any:
    if not is_number(value) or mode != "HALF_UP":
        raise QueryError("round() takes a number and a number of places")
    if not math.isfinite(value):
        return value
    from decimal import ROUND_HALF_UP, Decimal

    if places == 0:
        # Halves go up, also below zero; exactly, where adding 0.5 would round.
        return float(math.floor(Decimal(value) + Decimal("0.5")))
    return float(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-whole("round", places)), ROUND_HALF_UP))


def _size(value: Any) -> int:
    if not isinstance(value, str | list):
        raise wrong("size", value)
    return len(value)


def _length(value: Any) -> int:
    if not isinstance(value, Path):
        raise QueryError(f"length() takes a path, not {type_of(value)}; use size() for lists and text")
    return len(value.relationships)


def _is_empty(value: Any) -> bool:
    if not isinstance(value, str | list | dict):
        raise wrong("isEmpty", value)
    return not value


def _reverse(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise wrong("reverse", value)
    return value[::-1]


def _item(name: str, place: int) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        if not isinstance(value, list):
            raise wrong(name, value)
        return value[place] if value else None

    return function


def _tail(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong("tail", value)
    return value[1:]


def _range(low: Any, high: Any, step: Any = 1) -> list[int]:
    if any(not isinstance(value, int) or isinstance(value, bool) for value in (low, high, step)) or step == 0:
        raise QueryError("range() takes two INTEGERs and a step that is not 0")
    return list(range(low, high + (1 if step > 0 else -1), step))


def _keys(value: Any) -> list[str]:
    if isinstance(value, Node | Relationship):
        return [name for name, item in value.properties.items() if item is not None]
    if isinstance(value, dict):
        return list(value)
    raise wrong("keys", value)


def _properties(value: Any) -> dict[str, Any]:
    if isinstance(value, Node | Relationship):
        return {name: item for name, item in value.properties.items() if item is not None}
    if isinstance(value, dict):
        return value
    raise wrong("properties", value)


def _of(name: str, kind: type, attribute: Callable[[Any], Any]) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        if not isinstance(value, kind):
            raise wrong(name, value)
        return attribute(value)

    return function


def _atan2(y: Any, x: Any) -> float:
    if not (is_number(y) and is_number(x)):
        raise QueryError("atan2() takes two numbers")
    return math.atan2(y, x)


def _random() -> float:
    import random

    return random.random()


def _nan(value: Any) -> bool:
    if not is_number(value):
        raise wrong("isNaN", value)
    return bool(value != value)


# By name: fewest and most arguments, and what computes.
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, _abs),
    "sign": (1, 1, _sign),
    "round": (1, 3, _round),
    **TEXT_FUNCTIONS,
    **{
        name: (1, 1, _numeric(name, compute))
        for name, compute in {
            "acos": math.acos,
            "asin": math.asin,
            "atan": math.atan,
            "ceil": math.ceil,
            "cos": math.cos,
            "cot": lambda x: 1 / math.tan(x),
            "degrees": math.degrees,
            "exp": math.exp,
            "floor": math.floor,
            "log": _logarithm(math.log),
            "log10": _logarithm(math.log10),
            "radians": math.radians,
            "sin": math.sin,
            "sqrt": math.sqrt,
            "tan": math.tan,
        }.items()
    },
    "atan2": (2, 2, _atan2),
    "pi": (0, 0, lambda: math.pi),
    "e": (0, 0, lambda: math.e),
    "rand": (0, 0, _random),
    "isnan": (1, 1, _nan),
    "size": (1, 1, _size),
    "length": (1, 1, _length),
    "isempty": (1, 1, _is_empty),
    "reverse": (1, 1, _reverse),
    "head": (1, 1, _item("head", 0)),
    "last": (1, 1, _item("last", -1)),
    "tail": (1, 1, _tail),
    "range": (2, 3, _range),
    "keys": (1, 1, _keys),
    "properties": (1, 1, _properties),
    "labels": (1, 1, _of("labels", Node, lambda node: [node.label])),
    "type": (1, 1, _of("type", Relationship, lambda edge: edge.type)),
    "nodes": (1, 1, _of("nodes", Path, lambda path: list(path.nodes))),
    "relationships": (1, 1, _of("relationships", Path, lambda path: list(path.relationships))),
    "nullif": (2, 2, lambda left, right: None if equal(left, right) else left),
}

"""Cypher's functions that compute, in Python, as Neo4j defines them. Null in, null out, unless said otherwise."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from atlas.cypher.values import Node, Path, Relationship, equal, integer, is_number, type_of
from atlas.errors import QueryError

# What Java's Character.isWhitespace holds; Python strips more, non-breaking spaces among them.
_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
_SPACE += "\u2028\u2029\u205f\u3000"


def text_of(value: Any) -> str:
    """A number, boolean or text as text, as Java writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _java(value) if isinstance(value, float) else str(value)


def _java(value: float) -> str:
    """A FLOAT as Double.toString writes it: 1.0, 1.0E10, 1.0E-5."""
    if not math.isfinite(value):
        return "NaN" if value != value else f"{'-' if value < 0 else ''}Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return format(Decimal(repr(value)), "f") if "e" in repr(value) else repr(value)
    digits = Decimal(repr(value)).normalize().as_tuple()
    first, *rest = (str(digit) for digit in digits.digits)
    exponent = int(digits.exponent) + len(rest)
    return f"{'-' if digits.sign else ''}{first}.{''.join(rest) or '0'}E{exponent}"


def _wrong(name: str, value: Any) -> QueryError:
    return QueryError(f"{name}() takes no {type_of(value)}")


def _numeric(name: str, compute: Callable[[float], Any]) -> Callable[..., Any]:
    """A function of one number that gives a FLOAT; outside its domain NaN, as in Java."""

    def function(value: Any) -> Any:
        if not is_number(value):
            raise _wrong(name, value)
        try:
            return float(compute(value))
        except (ValueError, ZeroDivisionError):
            return math.nan
        except OverflowError:
            return math.inf

    return function


def _logarithm(base: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: -math.inf if value == 0 else base(value)


def _text(name: str, compute: Callable[[str], Any]) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        if not isinstance(value, str):
            raise _wrong(name, value)
        return compute(value)

    return function


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise QueryError(f"{name}() takes a number of characters that is an INTEGER and not negative")
    return value


def _abs(value: Any) -> Any:
    if not is_number(value):
        raise _wrong("abs", value)
    return integer(abs(value)) if isinstance(value, int) else abs(value)


def _sign(value: Any) -> int:
    if not is_number(value):
        raise _wrong("sign", value)
    return int(value > 0) - int(value < 0)


def _round(value: Any, places: Any = 0, mode: Any = "HALF_UP") -> Any:
    if not is_number(value) or mode != "HALF_UP":
        raise QueryError("round() takes a number and a number of places")
    if not math.isfinite(value):
        return value
    if places == 0:
        # Halves go up, also below zero; exactly, where adding 0.5 would round.
        return float(math.floor(Decimal(value) + Decimal("0.5")))
    return float(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-_whole("round", places)), ROUND_HALF_UP))


def _size(value: Any) -> int:
    if not isinstance(value, str | list):
        raise _wrong("size", value)
    return len(value)


def _length(value: Any) -> int:
    if not isinstance(value, Path):
        raise QueryError(f"length() takes a path, not {type_of(value)}; use size() for lists and text")
    return len(value.relationships)


def _is_empty(value: Any) -> bool:
    if not isinstance(value, str | list | dict):
        raise _wrong("isEmpty", value)
    return not value


def _reverse(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise _wrong("reverse", value)
    return value[::-1]


def _item(name: str, place: int) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        if not isinstance(value, list):
            raise _wrong(name, value)
        return value[place] if value else None

    return function


def _tail(value: Any) -> Any:
    if not isinstance(value, list):
        raise _wrong("tail", value)
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
    raise _wrong("keys", value)


def _properties(value: Any) -> dict[str, Any]:
    if isinstance(value, Node | Relationship):
        return {name: item for name, item in value.properties.items() if item is not None}
    if isinstance(value, dict):
        return value
    raise _wrong("properties", value)


def _of(name: str, kind: type, attribute: Callable[[Any], Any]) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _wrong(name, value)
        return attribute(value)

    return function


def _substring(text: Any, start: Any, length: Any = None) -> str:
    if not isinstance(text, str):
        raise _wrong("substring", text)
    begin = _whole("substring", start)
    return text[begin:] if length is None else text[begin : begin + _whole("substring", length)]


def _split(text: Any, separator: Any) -> list[str]:
    separators = separator if isinstance(separator, list) else [separator]
    if not isinstance(text, str) or not all(isinstance(each, str) for each in separators):
        raise QueryError("split() takes text and a separator, which is text too")
    if "" in separators:
        return list(text)
    return re.split("|".join(map(re.escape, separators)), text) if separators else [text]


def _replace(text: Any, old: Any, new: Any) -> str:
    if not all(isinstance(value, str) for value in (text, old, new)):
        raise QueryError("replace() takes three texts")
    return str(text).replace(old, new)


def _side(name: str) -> Callable[..., Any]:
    def function(text: Any, length: Any) -> Any:
        if not isinstance(text, str):
            raise _wrong(name, text)
        count = _whole(name, length)
        return text[:count] if name == "left" else text[max(0, len(text) - count) :]

    return function


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def _to_integer(value: Any) -> Any:
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        # As Java's conversion: NaN is 0, and what is too large the largest.
        return (
            0
            if value != value
            else int(max(min(value, float(1 << 63)), -float(1 << 63)))
            if math.isfinite(value)
            else (1 << 63) - 1
            if value > 0
            else -(1 << 63)
        )
    if isinstance(value, str):
        found = value.strip(_SPACE)
        if not _DECIMAL.fullmatch(found):
            return None
        whole = int(found) if re.fullmatch(r"[+-]?\d+", found) else int(float(found))
        return integer(whole)
    raise _wrong("toInteger", value)


def _to_float(value: Any) -> Any:
    if is_number(value):
        return float(value)
    if isinstance(value, str):
        found = value.strip(_SPACE)
        return float(found) if _DECIMAL.fullmatch(found) else None
    raise _wrong("toFloat", value)


def _to_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value != 0
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip(_SPACE).lower())
    raise _wrong("toBoolean", value)


def _to_string(value: Any) -> str:
    if isinstance(value, str | bool | int | float):
        return text_of(value)
    raise _wrong("toString", value)


def _or_null(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def safe(value: Any) -> Any:
        try:
            return function(value)
        except QueryError:
            return None

    return safe


def _nan(value: Any) -> bool:
    if not is_number(value):
        raise _wrong("isNaN", value)
    return bool(value != value)


# By name: fewest and most arguments, and what computes.
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "abs": (1, 1, _abs),
    "sign": (1, 1, _sign),
    "round": (1, 3, _round),
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
    "atan2": (
        2,
        2,
        lambda y, x: _numeric("atan2", lambda both: math.atan2(y, x))(y) if is_number(x) else _to_float([]),
    ),
    "pi": (0, 0, lambda: math.pi),
    "e": (0, 0, lambda: math.e),
    "rand": (0, 0, random.random),
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
    "substring": (2, 3, _substring),
    "split": (2, 2, _split),
    "replace": (3, 3, _replace),
    "left": (2, 2, _side("left")),
    "right": (2, 2, _side("right")),
    "trim": (1, 1, _text("trim", lambda text: text.strip(_SPACE))),
    "ltrim": (1, 1, _text("lTrim", lambda text: text.lstrip(_SPACE))),
    "rtrim": (1, 1, _text("rTrim", lambda text: text.rstrip(_SPACE))),
    "tolower": (1, 1, _text("toLower", str.lower)),
    "toupper": (1, 1, _text("toUpper", str.upper)),
    "tointeger": (1, 1, _to_integer),
    "tofloat": (1, 1, _to_float),
    "toboolean": (1, 1, _to_boolean),
    "tostring": (1, 1, _to_string),
    "tointegerornull": (1, 1, _or_null(_to_integer)),
    "tofloatornull": (1, 1, _or_null(_to_float)),
    "tobooleanornull": (1, 1, _or_null(_to_boolean)),
    "tostringornull": (1, 1, _or_null(_to_string)),
}

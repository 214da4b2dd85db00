"""Functions of text, and what turns values into text, numbers and booleans, as Neo4j defines them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from atlas.cypher.interpret.values import integer, is_number, type_of
from atlas.errors import QueryError

# What Java's Character.isWhitespace holds; Python strips more, non-breaking spaces among them.
_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a"
_SPACE += "\u2028\u2029\u205f\u3000"


def wrong(name: str, value: Any) -> QueryError:
    """What is said of an argument that a function does not take."""
    return QueryError(f"{name}() takes no {type_of(value)}")


def text_of(value: Any) -> str:
    """A number, boolean or text as text, as Java writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _java(value) if isinstance(value, float) else str(value)


def _java(value: float) -> str:
    """A FLOAT as Double.toString writes it: 1.0, 1.0E10, 1.0E-5."""
    if not math.isfinite(value):
        return "NaN" if value != value else f"{'-' if value < 0 else ''}Infinity"
    from decimal import Decimal

    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return format(Decimal(repr(value)), "f") if "e" in repr(value) else repr(value)
    digits = Decimal(repr(value)).normalize().as_tuple()
    first, *rest = (str(digit) for digit in digits.digits)
    exponent = int(digits.exponent) + len(rest)
    return f"{'-' if digits.sign else ''}{first}.{''.join(rest) or '0'}E{exponent}"


def _text(name: str, compute: Callable[[str], Any]) -> Callable[..., Any]:
    def function(value: Any) -> Any:
        if not isinstance(value, str):
            raise wrong(name, value)
        return compute(value)

    return function


def whole(name: str, value: Any) -> int:
    """A number of characters or places; raises QueryError where it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise QueryError(f"{name}() takes a number of characters that is an INTEGER and not negative")
    return value


def _substring(text: Any, start: Any, length: Any = None) -> str:
    if not isinstance(text, str):
        raise wrong("substring", text)
    begin = whole("substring", start)
    return text[begin:] if length is None else text[begin : begin + whole("substring", length)]


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
            raise wrong(name, text)
        count = whole(name, length)
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
    raise wrong("toInteger", value)


def _to_float(value: Any) -> Any:
    if is_number(value):
        return float(value)
    if isinstance(value, str):
        found = value.strip(_SPACE)
        return float(found) if _DECIMAL.fullmatch(found) else None
    raise wrong("toFloat", value)


def _to_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value != 0
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip(_SPACE).lower())
    raise wrong("toBoolean", value)


def _to_string(value: Any) -> str:
    if isinstance(value, str | bool | int | float):
        return text_of(value)
    raise wrong("toString", value)


def _or_null(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def safe(value: Any) -> Any:
        try:
            return function(value)
        except QueryError:
            return None

    return safe


# By name: fewest and most arguments, and what computes.
TEXT_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
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

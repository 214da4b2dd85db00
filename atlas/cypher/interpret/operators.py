"""Operators, places in lists and conditions, as Neo4j has them: three-valued logic, 64 bits, places from 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from atlas.cypher.interpret.regex import checked_regex
from atlas.cypher.interpret.text import text_of
from atlas.cypher.interpret.values import (
    Node,
    Relationship,
    contained,
    equal,
    integer,
    is_number,
    negation,
    ordered,
    type_of,
)
from atlas.errors import QueryError


def truth(value: Any) -> bool | None:
    """A condition's value; raises QueryError where it is neither a boolean nor null."""
    if value is None or isinstance(value, bool):
        return value
    raise QueryError(f"a condition is true, false or null, not {type_of(value)}")


def as_list(value: Any) -> list[Any] | None:
    if value is not None and not isinstance(value, list):
        raise QueryError(f"a list is needed, not {type_of(value)}")
    return value


def property_of(subject: Any, name: str) -> Any:
    if subject is None:
        return None
    if isinstance(subject, Node | Relationship):
        return subject.properties.get(name)
    if isinstance(subject, dict):
        return subject.get(name)
    raise QueryError(f".{name} is asked of {type_of(subject)}, which has no properties")


def item_of(subject: Any, index: Any) -> Any:
    if subject is None or index is None:
        return None
    if isinstance(subject, list) and isinstance(index, int) and not isinstance(index, bool):
        return subject[index] if -len(subject) <= index < len(subject) else None
    if isinstance(subject, dict | Node | Relationship) and isinstance(index, str):
        return property_of(subject, index)
    raise QueryError(f"{type_of(subject)}[{type_of(index)}] is not possible; a list takes an INTEGER, a map STRING")


def part_of(subject: Any, low: Any, high: Any) -> Any:
    if subject is None or low is None or high is None:
        return None
    if not isinstance(subject, list):
        raise QueryError(f"[low..high] takes part of a list, not of {type_of(subject)}; of text use substring()")
    for bound in (low, high):
        if bound is not ... and (not isinstance(bound, int) or isinstance(bound, bool)):
            raise QueryError(f"[low..high] takes INTEGERs, not {type_of(bound)}")
    return subject[None if low is ... else low : None if high is ... else high]


def has_name(subject: Any, names: tuple[str, ...]) -> bool | None:
    if subject is None:
        return None
    if isinstance(subject, Node):
        return subject.label in names
    if isinstance(subject, Relationship):
        return subject.type in names
    raise QueryError(f"{type_of(subject)} has no label")


def signed(sign: str, value: Any) -> Any:
    if value is None:
        return None
    if not is_number(value):
        raise QueryError(f"{sign} needs a number, not {type_of(value)}")
    return value if sign == "+" else integer(-value) if isinstance(value, int) else -value


def _add(left: Any, right: Any) -> Any:
    if left is None or right is None:
        return None
    if isinstance(left, list):
        return left + (right if isinstance(right, list) else [right])
    if isinstance(right, list):
        return [left, *right]
    plain = (str, bool, int, float)
    if (isinstance(left, str) and isinstance(right, plain)) or (isinstance(right, str) and isinstance(left, plain)):
        return text_of(left) + text_of(right)
    return _arithmetic("+", left, right)


def _arithmetic(sign: str, left: Any, right: Any) -> Any:
    if left is None or right is None:
        return None
    if not (is_number(left) and is_number(right)):
        raise QueryError(f"{type_of(left)} {sign} {type_of(right)} is not possible")
    whole = isinstance(left, int) and isinstance(right, int)
    if sign == "^":
        return _power(float(left), float(right))
    if sign in "/%" and right == 0:
        if whole:
            raise QueryError("division by zero")
        return (
            math.nan
            if sign == "%" or left == 0 or left != left
            else math.copysign(math.inf, left) * math.copysign(1, right)
        )
    if whole:
        quotient = abs(left) // abs(right) if sign in "/%" else 0
        quotient = quotient if (left < 0) == (right < 0) else -quotient
        found = {"+": left + right, "-": left - right, "*": left * right, "/": quotient, "%": left - quotient * right}
        return integer(found[sign])
    a, b = float(left), float(right)
    if sign == "%":
        return math.nan if math.isinf(a) else math.fmod(a, b)
    return a + b if sign == "+" else a - b if sign == "-" else a * b if sign == "*" else a / b


def _power(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


def matches(text: Any, pattern: Any) -> bool | None:
    """`text =~ pattern`; raises QueryError where the pattern is not one that every store reads alike."""
    if pattern is None or not isinstance(pattern, str):
        return None
    expression = checked_regex(pattern)
    return expression.fullmatch(text) is not None if isinstance(text, str) else None


def _both_text(test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool | None]:
    return lambda left, right: test(left, right) if isinstance(left, str) and isinstance(right, str) else None


def _and(left: Any, right: Any) -> bool | None:
    a, b = truth(left), truth(right)
    return False if a is False or b is False else None if a is None or b is None else True


def _or(left: Any, right: Any) -> bool | None:
    return negation(_and(negation(truth(left)), negation(truth(right))))


def _xor(left: Any, right: Any) -> bool | None:
    a, b = truth(left), truth(right)
    return None if a is None or b is None else a is not b


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "AND": _and,
    "OR": _or,
    "XOR": _xor,
    "=": equal,
    "<>": lambda left, right: negation(equal(left, right)),
    **{sign: partial(ordered, sign) for sign in ("<", "<=", ">", ">=")},
    "IN": contained,
    "+": _add,
    **{sign: partial(_arithmetic, sign) for sign in ("-", "*", "/", "%", "^")},
    "STARTS WITH": _both_text(str.startswith),
    "ENDS WITH": _both_text(str.endswith),
    "CONTAINS": _both_text(lambda left, right: right in left),
    "=~": matches,
}


def _any(found: list[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False


def _single(found: list[bool | None]) -> bool | None:
    return False if found.count(True) > 1 else None if None in found else found.count(True) == 1


QUANTIFIERS: dict[str, Callable[[list[bool | None]], bool | None]] = {
    "any": _any,
    "none": lambda found: negation(_any(found)),
    "all": lambda found: negation(_any([negation(each) for each in found])),
    "single": _single,
}

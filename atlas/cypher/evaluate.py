"""Expressions as Python functions of a row, with Neo4j's answers: three-valued logic, 64 bits, places from 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.functions import FUNCTIONS, text_of
from atlas.cypher.regex import checked_regex
from atlas.cypher.values import (
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
from atlas.errors import QueryError, QueryRefused

Row = dict[str, Any]
Compute = Callable[[Row], Any]


def computing(expression: s.Expression, parameters: Mapping[str, Any]) -> Compute:
    """What computes the expression from a row's variables; raises QueryError for what can be told beforehand."""
    return _Maker(parameters).make(expression)


class _Maker:
    """Makes functions of a row; parameters have their values."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters

    def make(self, expression: s.Expression) -> Compute:
        """The function that computes the expression."""
        method = getattr(self, f"_{type(expression).__name__.lower()}", None)
        if method is None:
            raise QueryRefused("a pattern may stand in MATCH and WHERE only, before WITH computes anything by itself")
        made: Compute = method(expression)
        return made

    def _literal(self, node: s.Literal) -> Compute:
        return lambda row: node.value

    def _parameter(self, node: s.Parameter) -> Compute:
        value = self.parameters[node.name]
        return lambda row: value

    def _variable(self, node: s.Variable) -> Compute:
        name = node.name
        return lambda row: row[name]

    def _property(self, node: s.Property) -> Compute:
        subject, name = self.make(node.subject), node.name
        return lambda row: _property(subject(row), name)

    def _index(self, node: s.Index) -> Compute:
        subject, index = self.make(node.subject), self.make(node.index)
        return lambda row: _item(subject(row), index(row))

    def _slice(self, node: s.Slice) -> Compute:
        subject = self.make(node.subject)
        low, high = (self.make(bound) if bound else None for bound in (node.low, node.high))
        return lambda row: _part(subject(row), *(bound(row) if bound else ... for bound in (low, high)))

    def _listof(self, node: s.ListOf) -> Compute:
        items = [self.make(item) for item in node.items]
        return lambda row: [item(row) for item in items]

    def _mapof(self, node: s.MapOf) -> Compute:
        items = [(key, self.make(value)) for key, value in zip(node.keys, node.values, strict=True)]
        return lambda row: {key: value(row) for key, value in items}

    def _unary(self, node: s.Unary) -> Compute:
        operand = self.make(node.operand)
        if node.operator == "NOT":
            return lambda row: negation(truth(operand(row)))
        return lambda row: _signed(node.operator, operand(row))

    def _binary(self, node: s.Binary) -> Compute:
        left, right = self.make(node.left), self.make(node.right)
        if node.operator == "=~" and isinstance(node.right, s.Literal):
            matches(None, node.right.value)
        operate = _OPERATORS[node.operator]
        return lambda row: operate(left(row), right(row))

    def _isnull(self, node: s.IsNull) -> Compute:
        operand, negated = self.make(node.operand), node.negated
        return lambda row: (operand(row) is None) is not negated

    def _haslabel(self, node: s.HasLabel) -> Compute:
        subject, names = self.make(node.subject), node.names
        return lambda row: _named(subject(row), names)

    def _call(self, node: s.Call) -> Compute:
        arguments = [self.make(argument) for argument in node.arguments]
        if node.distinct:
            raise QueryError(f"DISTINCT belongs to aggregates, not to {node.name}()")
        if node.name == "coalesce":
            return lambda row: next((value for each in arguments if (value := each(row)) is not None), None)
        if node.name == "exists":
            raise QueryRefused("write exists(x.y) as x.y IS NOT NULL, and a pattern as EXISTS { … }")
        if node.name not in FUNCTIONS:
            raise QueryError(f"{node.name}() may stand in WITH and RETURN only, and not within itself")
        fewest, most, function = FUNCTIONS[node.name]
        if not fewest <= len(arguments) <= most:
            raise QueryError(f"{node.name}() takes {fewest if fewest == most else f'{fewest} to {most}'} arguments")

        def call(row: Row) -> Any:
            values = [argument(row) for argument in arguments]
            return None if any(value is None for value in values) else function(*values)

        return call

    def _case(self, node: s.Case) -> Compute:
        subject = self.make(node.subject) if node.subject else None
        branches = [(self.make(a), self.make(b)) for a, b in zip(node.conditions, node.results, strict=True)]
        default = self.make(node.default) if node.default else lambda row: None

        def choose(row: Row) -> Any:
            value = subject(row) if subject else None
            for condition, result in branches:
                found = condition(row)
                if equal(value, found) if subject else truth(found):
                    return result(row)
            return default(row)

        return choose

    def _comprehension(self, node: s.Comprehension) -> Compute:
        items, name = self.make(node.items), node.variable
        condition = self.make(node.condition) if node.condition else lambda row: True
        result = self.make(node.result) if node.result else lambda row: row[name]

        def comprehend(row: Row) -> Any:
            found = _list(items(row))
            inner = ({**row, name: item} for item in found or ())
            return None if found is None else [result(each) for each in inner if truth(condition(each))]

        return comprehend

    def _quantifier(self, node: s.Quantifier) -> Compute:
        items, name, condition = self.make(node.items), node.variable, self.make(node.condition)
        decide = _QUANTIFIERS[node.kind]

        def quantify(row: Row) -> Any:
            found = _list(items(row))
            return None if found is None else decide([truth(condition({**row, name: item})) for item in found])

        return quantify

    def _reduce(self, node: s.Reduce) -> Compute:
        start, items, step = self.make(node.start), self.make(node.items), self.make(node.step)

        def reduce(row: Row) -> Any:
            found = _list(items(row))
            total = start(row)
            for item in found or ():
                total = step({**row, node.total: total, node.variable: item})
            return None if found is None else total

        return reduce

    def _mapprojection(self, node: s.MapProjection) -> Compute:
        subject = self.make(node.subject)
        items = [(key, self.make(value)) for key, value in zip(node.keys, node.values, strict=True)]

        def project(row: Row) -> Any:
            value = subject(row)
            if value is None:
                return None
            own = FUNCTIONS["properties"][2](value) if node.everything else {}
            return own | {key: item(row) for key, item in items}

        return project


def truth(value: Any) -> bool | None:
    """A condition's value; raises QueryError where it is neither a boolean nor null."""
    if value is None or isinstance(value, bool):
        return value
    raise QueryError(f"a condition is true, false or null, not {type_of(value)}")


def _list(value: Any) -> list[Any] | None:
    if value is not None and not isinstance(value, list):
        raise QueryError(f"a list is needed, not {type_of(value)}")
    return value


def _property(subject: Any, name: str) -> Any:
    if subject is None:
        return None
    if isinstance(subject, Node | Relationship):
        return subject.properties.get(name)
    if isinstance(subject, dict):
        return subject.get(name)
    raise QueryError(f".{name} is asked of {type_of(subject)}, which has no properties")


def _item(subject: Any, index: Any) -> Any:
    if subject is None or index is None:
        return None
    if isinstance(subject, list) and isinstance(index, int) and not isinstance(index, bool):
        return subject[index] if -len(subject) <= index < len(subject) else None
    if isinstance(subject, dict | Node | Relationship) and isinstance(index, str):
        return _property(subject, index)
    raise QueryError(f"{type_of(subject)}[{type_of(index)}] is not possible; a list takes an INTEGER, a map STRING")


def _part(subject: Any, low: Any, high: Any) -> Any:
    if subject is None or low is None or high is None:
        return None
    if not isinstance(subject, list):
        raise QueryError(f"[low..high] takes part of a list, not of {type_of(subject)}; of text use substring()")
    for bound in (low, high):
        if bound is not ... and (not isinstance(bound, int) or isinstance(bound, bool)):
            raise QueryError(f"[low..high] takes INTEGERs, not {type_of(bound)}")
    return subject[None if low is ... else low : None if high is ... else high]


def _named(subject: Any, names: tuple[str, ...]) -> bool | None:
    if subject is None:
        return None
    if isinstance(subject, Node):
        return subject.label in names
    if isinstance(subject, Relationship):
        return subject.type in names
    raise QueryError(f"{type_of(subject)} has no label")


def _signed(sign: str, value: Any) -> Any:
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


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
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


_QUANTIFIERS: dict[str, Callable[[list[bool | None]], bool | None]] = {
    "any": _any,
    "none": lambda found: negation(_any(found)),
    "all": lambda found: negation(_any([negation(each) for each in found])),
    "single": _single,
}

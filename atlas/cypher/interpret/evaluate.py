"""Expressions as Python functions of a row, with Neo4j's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.interpret.functions import FUNCTIONS
from atlas.cypher.interpret.operators import (
    OPERATORS,
    QUANTIFIERS,
    as_list,
    has_name,
    item_of,
    matches,
    part_of,
    property_of,
    signed,
    truth,
)
from atlas.cypher.interpret.values import equal, negation
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
        return lambda row: property_of(subject(row), name)

    def _index(self, node: s.Index) -> Compute:
        subject, index = self.make(node.subject), self.make(node.index)
        return lambda row: item_of(subject(row), index(row))

    def _slice(self, node: s.Slice) -> Compute:
        subject = self.make(node.subject)
        low, high = (self.make(bound) if bound else None for bound in (node.low, node.high))
        return lambda row: part_of(subject(row), *(bound(row) if bound else ... for bound in (low, high)))

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
        return lambda row: signed(node.operator, operand(row))

    def _binary(self, node: s.Binary) -> Compute:
        left, right = self.make(node.left), self.make(node.right)
        if node.operator == "=~" and isinstance(node.right, s.Literal):
            matches(None, node.right.value)
        operate = OPERATORS[node.operator]
        return lambda row: operate(left(row), right(row))

    def _isnull(self, node: s.IsNull) -> Compute:
        operand, negated = self.make(node.operand), node.negated
        return lambda row: (operand(row) is None) is not negated

    def _haslabel(self, node: s.HasLabel) -> Compute:
        subject, names = self.make(node.subject), node.names
        return lambda row: has_name(subject(row), names)

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
            found = as_list(items(row))
            inner = ({**row, name: item} for item in found or ())
            return None if found is None else [result(each) for each in inner if truth(condition(each))]

        return comprehend

    def _quantifier(self, node: s.Quantifier) -> Compute:
        items, name, condition = self.make(node.items), node.variable, self.make(node.condition)
        decide = QUANTIFIERS[node.kind]

        def quantify(row: Row) -> Any:
            found = as_list(items(row))
            return None if found is None else decide([truth(condition({**row, name: item})) for item in found])

        return quantify

    def _reduce(self, node: s.Reduce) -> Compute:
        start, items, step = self.make(node.start), self.make(node.items), self.make(node.step)

        def reduce(row: Row) -> Any:
            found = as_list(items(row))
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

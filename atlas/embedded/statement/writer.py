"""Expressions as LadybugDB's text, where it is known to answer as Neo4j does; `NotAlike` where it is not.

Seen in version 0.22: list places count from 1 and slices are ignored; types are made equal by a cast (`layer = '9'`);
null and division by zero are lost in lists and quantifiers; names are the same in upper and lower case; `size` counts
what is drawn as one character; `sum` of nothing is null; `label` of a null is not null. So every operator and function
below is written only for the types for which it agrees, and the rest is left to Python (atlas.cypher).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.interpret.regex import checked_regex
from atlas.cypher.scope import free
from atlas.embedded.statement import types as t
from atlas.embedded.statement.calls import written_aggregate, written_call
from atlas.embedded.statement.constants import Constants, is_cheap
from atlas.embedded.statement.forms import Bound, NotAlike, Scope, Written, literal, single
from atlas.embedded.statement.types import Type
from atlas.errors import QueryError
from atlas.schema import BOOLEAN, FLOAT, INTEGER, STRING, properties


@dataclass
class Writer:
    """Writes expressions with the variables of one place in a statement."""

    constants: Constants
    scope: Scope
    trusted: bool = False  # the project's own statement
    in_list: bool = False  # within all(), any() and the like, where the engine takes no parameter
    ordered: bool = False  # whether the rows come in an order that collect() keeps
    subquery: Callable[[s.Subquery, Writer], str] | None = field(default=None, repr=False)

    def write(self, expression: s.Expression) -> Written:
        """The text and its type; raises NotAlike, or QueryError where it has no meaning on any store."""
        if not isinstance(expression, s.Literal | s.Parameter | s.Property | s.Variable) and self._constant(expression):
            return self._value(*self.constants.folded(expression))
        method: Callable[[Any], Written] | None = getattr(self, f"_{type(expression).__name__.lower()}", None)
        if method is None:
            raise NotAlike(
                f"{_NAMES.get(type(expression).__name__, 'this expression')} is not known to the graph's engine"
            )
        return method(expression)

    def condition(self, expression: s.Expression) -> str:
        """The text of a condition."""
        text, type_ = self.write(expression)
        if type_.kind not in (BOOLEAN, t.NULL):
            if type_.kind == t.ANY:
                raise NotAlike("a condition of unknown type")
            raise QueryError(f"a condition is true, false or null, not {t.SHOWN.get(type_.kind, type_.kind)}")
        return text

    def _constant(self, expression: s.Expression) -> bool:
        return not free(expression) and is_cheap(expression)

    def _value(self, name: str, value: Any) -> Written:
        """A constant: plain values as text, others as a parameter of the engine's."""
        type_ = t.type_of(value)
        if type_.kind in (*t.PLAIN, t.NULL):
            return literal(value), type_
        if type_.kind == t.LIST and type_.item and type_.item.kind in t.PLAIN and not type_.nulls and not self.in_list:
            return f"${self.constants.parameter(name, value)}", type_
        if type_.kind == t.LIST and type_.item and type_.item.kind in t.PLAIN and not type_.nulls:
            return f"[{', '.join(literal(item) for item in value)}]", type_
        raise NotAlike("a list or map of this kind")

    def _literal(self, node: s.Literal) -> Written:
        return literal(node.value), t.type_of(node.value)

    def _parameter(self, node: s.Parameter) -> Written:
        type_ = self.constants.type(node.name)
        if type_.kind == t.NULL or self.in_list or type_.kind == t.MAP:
            return self._value(node.name, self.constants.value(node.name))
        if type_.kind in t.PLAIN:
            return f"${self.constants.given(node.name)}", type_
        if type_.kind == t.LIST and type_.item and type_.item.kind in t.PLAIN and not type_.nulls:
            return f"${self.constants.given(node.name)}", type_
        raise NotAlike(f"the parameter ${node.name}, {_listing(type_)}")

    def _variable(self, node: s.Variable) -> Written:
        bound = self.scope.get(node.name)
        if bound is None or not bound.text:
            raise NotAlike(f"{node.name} is put together after the graph was read")
        return bound.text, bound.type

    def _property(self, node: s.Property) -> Written:
        text, type_ = self.write(node.subject)
        if type_.kind in (t.NODE, t.RELATIONSHIP):
            found = t.property_type(type_, node.name)
            if found.kind == t.ANY or not isinstance(node.subject, s.Variable):
                raise NotAlike(f"the property {node.name} of several types")
            return f"{text}.`{node.name}`", found
        if type_.kind == t.MAP and isinstance(node.subject, s.Variable):
            for name, item in type_.fields:
                if name == node.name:
                    return f"{text}.`{name}`", item
        if type_.kind in t.PLAIN:
            raise QueryError(f".{node.name} is asked of {t.SHOWN[type_.kind]}, which has no properties")
        raise NotAlike(f".{node.name}")

    def _haslabel(self, node: s.HasLabel) -> Written:
        text, type_ = self.write(node.subject)
        if type_.kind not in (t.NODE, t.RELATIONSHIP):
            raise NotAlike("a label of a computed value")
        t.check_names(node.names, "label" if type_.kind == t.NODE else "type")
        names = ", ".join(literal(name) for name in node.names)
        return f"(CASE WHEN id({text}) IS NULL THEN null ELSE label({text}) IN [{names}] END)", Type(BOOLEAN)

    def _unary(self, node: s.Unary) -> Written:
        if node.operator == "NOT":
            return f"(NOT {self.condition(node.operand)})", Type(BOOLEAN)
        text, type_ = self.write(node.operand)
        if type_.kind not in t.NUMBERS:
            raise NotAlike(f"{node.operator} of something else than a number")
        return f"({node.operator}{text})" if node.operator == "-" else text, type_

    def _isnull(self, node: s.IsNull) -> Written:
        text, type_ = self.write(node.operand)
        text = f"id({text})" if type_.kind in (t.NODE, t.RELATIONSHIP) else text
        return f"({text} IS {'NOT ' if node.negated else ''}NULL)", Type(BOOLEAN)

    def _binary(self, node: s.Binary) -> Written:
        sign = node.operator
        if sign in ("AND", "OR", "XOR"):
            return f"({self.condition(node.left)} {sign} {self.condition(node.right)})", Type(BOOLEAN)
        if sign == "IN":
            return self._in(node)
        if sign == "=~":
            return self._regex(node)
        (left, a), (right, b) = self.write(node.left), self.write(node.right)
        if t.ANY in (a.kind, b.kind):
            raise NotAlike(f"{sign} of values of unknown type")
        if sign in ("=", "<>", "<", "<=", ">", ">="):
            return self._compared(node, left, a, right, b)
        if t.NULL in (a.kind, b.kind):
            return "null", Type(t.NULL)
        if sign in ("STARTS WITH", "ENDS WITH", "CONTAINS"):
            if not a.kind == b.kind == STRING:
                raise NotAlike(f"{sign} of something else than text")
            if sign == "CONTAINS" and not self.trusted and not (isinstance(node.right, s.Literal) and node.right.value):
                # Nothing contains an empty text in the engine, though everything starts with it.
                return f"({left} STARTS WITH {right} OR {left} CONTAINS {right})", Type(BOOLEAN)
            return f"({left} {sign} {right})", Type(BOOLEAN)
        # Of the project's own texts, none of which is null: the engine takes null for an empty text at times.
        if sign == "+" and a.kind == b.kind == STRING and self.trusted:
            return f"({left} + {right})", Type(STRING)
        whole = a.kind == b.kind == INTEGER
        if sign in "/%" and not (whole or self.trusted or _not_zero(node.right)):
            # Of 0.0 / 0.0 comes NaN, which the engine takes for smaller than any number.
            raise NotAlike(f"{sign} by a FLOAT that may be 0")
        if a.kind in t.NUMBERS and b.kind in t.NUMBERS and sign != "^":
            return f"({left} {sign} {right})", Type(INTEGER if whole else FLOAT)
        raise NotAlike(f"{a.kind} {sign} {b.kind}")

    def _compared(self, node: s.Binary, left: str, a: Type, right: str, b: Type) -> Written:
        sign, kinds = node.operator, {a.kind, b.kind}
        if t.NULL in kinds:
            return "null", Type(t.NULL)
        if not t.alike(a, b):
            if t.LIST in kinds or t.MAP in kinds:
                raise NotAlike("a comparison of lists or maps")
            raise QueryError(_mismatch(node, a, b))
        if a.kind in (t.NODE, t.RELATIONSHIP) and sign in ("=", "<>"):
            return f"(id({left}) {sign} id({right}))", Type(BOOLEAN)
        if a.kind in (*t.NUMBERS, STRING) or (a.kind == BOOLEAN and sign in ("=", "<>")):
            return f"({left} {sign} {right})", Type(BOOLEAN)
        raise NotAlike(f"{a.kind} {sign} {b.kind}")

    def _in(self, node: s.Binary) -> Written:
        item, kind = self.write(node.left)
        constant = self._constant(node.right)
        right, type_ = self._constant_list(node.right) if constant else self.write(node.right)
        inner = type_.item
        if t.NULL in (kind.kind, type_.kind) and not (inner and inner.kind == t.NULL):
            return "null", Type(t.NULL)
        if type_.kind != t.LIST or inner is None or (type_.nulls and not constant):
            raise NotAlike("IN a computed list")
        if inner.kind == t.NULL:
            return ("null" if type_.nulls else "false"), Type(BOOLEAN)
        if inner.kind not in t.PLAIN or kind.kind in (t.ANY, t.LIST, t.MAP):
            raise NotAlike("IN a list of values of several types")
        if not t.alike(kind, inner):
            raise QueryError(_mismatch(node, kind, inner))
        if type_.nulls:
            return f"(CASE WHEN {item} IN {right} THEN true ELSE null END)", Type(BOOLEAN)
        if not constant:
            return f"(CASE WHEN size({right}) = 0 THEN false ELSE {item} IN {right} END)", Type(BOOLEAN)
        return f"({item} IN {right})", Type(BOOLEAN)

    def _constant_list(self, expression: s.Expression) -> Written:
        """A list that is known beforehand; its text has no nulls, its type says whether there were."""
        name = expression.name if isinstance(expression, s.Parameter) else ""
        if name and not self.in_list:
            return f"${self.constants.given(name, without_nulls=True)}", self.constants.type(name)
        value = self.constants.value(name) if name else self.constants.folded(expression)[1]
        type_ = t.type_of(value)
        if not isinstance(value, list):
            if value is not None:
                raise QueryError(f"IN needs a list behind it, not {t.SHOWN.get(type_.kind, type_.kind)}")
            return "null", type_
        if not (type_.item and type_.item.kind in t.PLAIN):
            return "", type_
        some = [item for item in value if item is not None]
        if self.in_list:
            return f"[{', '.join(map(literal, some))}]", type_
        return f"${self.constants.parameter(name, some)}", type_

    def _regex(self, node: s.Binary) -> Written:
        text, type_ = self.write(node.left)
        if type_.kind == t.NULL:
            return "null", Type(t.NULL)
        if type_.kind != STRING or not self._constant(node.right):
            raise NotAlike("=~ of something else than text and a constant")
        name, pattern = self.constants.folded(node.right)
        if not isinstance(pattern, str):
            return "null", Type(t.NULL)
        checked_regex(pattern)
        return f"({text} =~ {self._value(name, pattern)[0]})", Type(BOOLEAN)

    def _case(self, node: s.Case) -> Written:
        # With a subject: conditions of their own, since a null subject equals nothing.
        conditions = [s.Binary("=", node.subject, c) if node.subject else c for c in node.conditions]
        results = [self.write(result) for result in (*node.results, node.default or s.Literal(None))]
        type_ = single([found for _, found in results], "CASE")
        texts = [text for text, _ in results]
        whens = [f"WHEN {self.condition(c)} THEN {text}" for c, text in zip(conditions, texts, strict=False)]
        return f"(CASE {' '.join(whens)} ELSE {texts[-1]} END)", type_

    def _quantifier(self, node: s.Quantifier) -> Written:
        # Wrong in the engine where other variables of the row stand for several values at once, and with null.
        if not self.trusted or node.kind != "all":
            raise NotAlike(f"{node.kind}()")
        items, type_ = self.write(node.items)
        if type_.kind != t.LIST or type_.item is None or type_.nulls or type_.item.kind not in t.PLAIN:
            raise NotAlike("all() of other values than numbers and text")
        name = self.constants.variable()
        inner = replace(self, scope=self.scope | {node.variable: Bound(name, type_.item)}, in_list=True)
        return f"all({name} IN {items} WHERE {inner.condition(node.condition)})", Type(BOOLEAN)

    def _comprehension(self, node: s.Comprehension) -> Written:
        """`[x IN list | x.name]` of nodes and relationships alone."""
        items, type_ = self.write(node.items)
        item, result = type_.item, node.result
        own = isinstance(result, s.Property) and result.subject == s.Variable(node.variable)
        if not own or node.condition is not None or item is None or item.kind not in (t.NODE, t.RELATIONSHIP):
            raise NotAlike("a list that is filtered or computed")
        assert isinstance(result, s.Property)
        found = t.property_type(item, result.name)
        if found.kind == t.ANY or (len(item.names) > 1 and not all(result.name in properties(n) for n in item.names)):
            raise NotAlike(f"the property {result.name} of several types")
        return f"properties({items}, '{result.name}')", t.list_of(found, nulls=True)

    def _mapof(self, node: s.MapOf) -> Written:
        fields = [(key, *self.write(value)) for key, value in zip(node.keys, node.values, strict=True)]
        if any(type_.kind not in t.PLAIN for _, _, type_ in fields) or len({key.lower() for key in node.keys}) < len(
            fields
        ):
            raise NotAlike("a map of values of other kinds than numbers, text and booleans")
        if not fields:
            raise NotAlike("an empty map")
        text = ", ".join(f"`{key}`: {value}" for key, value, _ in fields)
        return f"{{{text}}}", Type(t.MAP, fields=tuple((key, type_) for key, _, type_ in fields))

    def _subquery(self, node: s.Subquery) -> Written:
        if self.subquery is None or self.in_list:
            raise NotAlike("a pattern within a list")
        return self.subquery(node, self), Type(BOOLEAN if node.kind == "exists" else INTEGER)

    def _call(self, node: s.Call) -> Written:
        arguments = [self.write(argument) for argument in node.arguments]
        if node.name not in s.AGGREGATES:
            return written_call(node.name, arguments, self.trusted)
        if self.in_list:
            raise QueryError(f"{node.name}() stands in WITH and RETURN only")
        return written_aggregate(node, arguments, self.ordered)


def _not_zero(node: s.Expression) -> bool:
    return isinstance(node, s.Literal) and node.value not in (0, None)


def _listing(type_: Type) -> str:
    return (
        "a list of several types"
        if type_.kind == t.LIST
        else "a map"
        if type_.kind == t.MAP
        else "a value of this kind"
    )


def _mismatch(node: s.Binary, a: Type, b: Type) -> str:
    shown = [
        f"{shown_as(side)} is {t.SHOWN.get(type_.kind, type_.kind)}"
        for side, type_ in ((node.left, a), (node.right, b))
    ]
    return f"{shown[0]} and {shown[1]}, so that {node.operator} never holds; write both in one type"


def shown_as(node: s.Expression) -> str:
    """An expression in short, for a message."""
    if isinstance(node, s.Property) and isinstance(node.subject, s.Variable):
        return f"{node.subject.name}.{node.name}"
    if isinstance(node, s.Literal):
        return repr(node.value) if isinstance(node.value, str) else str(node.value).lower()
    if isinstance(node, s.Parameter):
        return f"${node.name}"
    return node.name if isinstance(node, s.Variable) else "the list" if isinstance(node, s.ListOf) else "the other side"


_NAMES = {
    "Index": "[index]",
    "Slice": "[low..high]",
    "Reduce": "reduce()",
    "ListOf": "[a, b]",
    "MapProjection": "x {.*}",
}

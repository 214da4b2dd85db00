"""Expressions, read by recursive descent; the order of operators is Neo4j's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atlas.cypher import syntax as s
from atlas.cypher.cursor import READING, Cursor
from atlas.cypher.words import ENGINE_IDS, FORBIDDEN, FUNCTIONS, INSTEAD, STARTS
from atlas.errors import QueryRefused

if TYPE_CHECKING:
    from atlas.cypher.tokens import Token

_COMPARISONS = ("=", "<>", "<=", ">=", "<", ">")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_QUANTIFIERS = ("all", "any", "none", "single")


class Expressions(Cursor):
    """Reads expressions; patterns within them are read by the subclass."""

    def subquery(self, kind: str) -> s.Expression:
        """Read what stands in the braces of EXISTS or COUNT."""
        raise NotImplementedError

    def pattern_condition(self) -> s.Expression | None:
        """Read a pattern that stands for a condition; None where none comes next."""
        raise NotImplementedError

    def expression(self) -> s.Expression:
        """Read an expression."""
        left = self._xor()
        while self.take("or"):
            left = s.Binary("OR", left, self._xor())
        return left

    def _xor(self) -> s.Expression:
        left = self._and()
        while self.take("xor"):
            left = s.Binary("XOR", left, self._and())
        return left

    def _and(self) -> s.Expression:
        left = self._not()
        while self.take("and"):
            left = s.Binary("AND", left, self._not())
        return left

    def _not(self) -> s.Expression:
        return s.Unary("NOT", self._not()) if self.take("not") else self._comparison()

    def _comparison(self) -> s.Expression:
        """`a < b < c` is `a < b AND b < c`."""
        left = self._predicate()
        compared: list[s.Expression] = []
        while operator := self._operator():
            right = self._predicate()
            compared.append(s.Binary(operator, left, right))
            left = right
        return s.conjunction(compared) or left

    def _operator(self) -> str:
        # Two signs, where the tokens are single ones: `<` `=`.
        for operator in _COMPARISONS:
            if self.take(*operator) and not (operator == "=" and self.at("~")):
                return operator
            if operator == "=" and self.at("~"):
                self.place -= 1
        return ""

    def _predicate(self) -> s.Expression:
        left = self._sum()
        while True:
            if self.take("=", "~"):
                left = s.Binary("=~", left, self._sum())
            elif self.take("in"):
                left = s.Binary("IN", left, self._sum())
            elif self.take("contains"):
                left = s.Binary("CONTAINS", left, self._sum())
            elif self.take("starts", "with"):
                left = s.Binary("STARTS WITH", left, self._sum())
            elif self.take("ends", "with"):
                left = s.Binary("ENDS WITH", left, self._sum())
            elif self.take("is", "null"):
                left = s.IsNull(left, False)
            elif self.take("is", "not", "null"):
                left = s.IsNull(left, True)
            else:
                return left

    def _sum(self) -> s.Expression:
        left = self._product()
        while sign := self._one("+", "-"):
            left = s.Binary(sign, left, self._product())
        return left

    def _product(self) -> s.Expression:
        left = self._power()
        while sign := self._one("*", "/", "%"):
            left = s.Binary(sign, left, self._power())
        return left

    def _power(self) -> s.Expression:
        left = self._unary()
        while self.take("^"):
            left = s.Binary("^", left, self._unary())
        return left

    def _unary(self) -> s.Expression:
        if sign := self._one("+", "-"):
            token = self.peek()
            # The smallest number has no positive counterpart.
            if sign == "-" and token.kind == "number":
                self.place += 1
                return self._after(s.Literal(_number(f"-{token.text}")))
            return s.Unary(sign, self._unary())
        return self._after(self._atom())

    def _one(self, *signs: str) -> str:
        return next((sign for sign in signs if self.take(sign)), "")

    def _after(self, subject: s.Expression) -> s.Expression:
        """What may follow an expression: `.name`, `[index]`, `[low..high]`, `:Label`, `{.name}`."""
        while True:
            if self.take("."):
                subject = s.Property(subject, self.name())
                if self.at("("):
                    raise QueryRefused(f"the function .{subject.name}() is not allowed; {_ALLOWED}")
            elif self.take("["):
                subject = self._index(subject)
            elif self.at(":") and isinstance(subject, s.Variable | s.Property):
                self.need(":")
                names = [self.name()]
                while self.take("|"):
                    names.append(self.name())
                subject = s.HasLabel(subject, tuple(names))
            elif self.at("{") and isinstance(subject, s.Variable):
                subject = self._map_projection(subject)
            else:
                return subject

    def _index(self, subject: s.Expression) -> s.Expression:
        low = None if self.at("..") else self.expression()
        if not self.take(".."):
            if self.at(":"):
                raise QueryRefused("a part of a list is written [low..high], from 0 and without the last")
            self.need("]")
            return s.Index(subject, low or s.Literal(None))
        high = None if self.at("]") else self.expression()
        self.need("]")
        return s.Slice(subject, low, high)

    def _map_projection(self, subject: s.Variable) -> s.Expression:
        self.need("{")
        everything = False
        keys: list[str] = []
        values: list[s.Expression] = []
        while not self.take("}"):
            if self.take(".", "*"):
                everything = True
            elif self.take("."):
                keys.append(self.name())
                values.append(s.Property(subject, keys[-1]))
            else:
                keys.append(self.name())
                values.append(self.expression() if self.take(":") else s.Variable(keys[-1]))
            if not self.at("}"):
                self.need(",")
        return s.MapProjection(subject, everything, tuple(keys), tuple(values))

    def _atom(self) -> s.Expression:
        token = self.peek()
        if token.kind == "number":
            return s.Literal(_number(self.next().text))
        if token.kind == "string":
            return s.Literal(_string(self.next().text))
        if token.kind == "parameter":
            return s.Parameter(self.next().text[1:].strip("`"))
        if self.take("["):
            return self._list()
        if self.at("{"):
            return self.map()
        if pattern := self.pattern_condition():
            return pattern
        if self.take("("):
            inner = self.expression()
            self.need(")")
            return inner
        if token.kind == "quoted":
            return self._named()
        if token.kind != "word":
            self.refuse()
        return self._word(token.text.lower())

    def _word(self, word: str) -> s.Expression:
        constants = {"null": None, "true": True, "false": False}
        if word in constants:
            self.next()
            return s.Literal(constants[word])
        if word == "case":
            return self._case()
        if word in ("exists", "count") and self.peek(1).text == "{":
            self.next()
            return self.subquery(word)
        if word == "collect" and self.peek(1).text == "{":
            raise QueryRefused("COLLECT { } is not allowed; use MATCH … WITH … collect(…)")
        return self._named()

    def _named(self) -> s.Expression:
        """A variable or the call of a function."""
        if self.peek(1).text == "(":
            return self._call()
        if self.peek().kind == "word" and not self.at_variable() and self.peek().text.lower() in _NEVER_BARE:
            self.refuse()
        return s.Variable(self.variable())

    def _call(self) -> s.Expression:
        token = self.next()
        name = token.text.strip("`").lower()
        self.need("(")
        if name in _QUANTIFIERS:
            return self._quantifier(name)
        if name == "reduce":
            return self._reduce()
        _check_function(token, name)
        if name == "count" and self.take("*", ")"):
            return s.Call("count", ())
        distinct = self.take("distinct")
        arguments: list[s.Expression] = []
        while not self.take(")"):
            arguments.append(self.expression())
            if not self.at(")"):
                self.need(",")
        return s.Call(FUNCTIONS[name], tuple(arguments), distinct)

    def _quantifier(self, kind: str) -> s.Expression:
        variable = self.variable()
        self.need("in")
        items = self.expression()
        self.need("where")
        condition = self.expression()
        self.need(")")
        return s.Quantifier(kind, variable, items, condition)

    def _reduce(self) -> s.Expression:
        total = self.variable()
        self.need("=")
        start = self.expression()
        self.need(",")
        variable = self.variable()
        self.need("in")
        items = self.expression()
        self.need("|")
        step = self.expression()
        self.need(")")
        return s.Reduce(total, start, variable, items, step)

    def _list(self) -> s.Expression:
        if self.at_variable() and self.peek(1).text.lower() == "in" and self.peek(1).kind == "word":
            return self._comprehension()
        items: list[s.Expression] = []
        while not self.take("]"):
            items.append(self.expression())
            if self.at("|"):
                raise QueryRefused("[pattern | …] is not allowed; use MATCH … WITH … collect(…)")
            if not self.at("]"):
                self.need(",")
        return s.ListOf(tuple(items))

    def _comprehension(self) -> s.Expression:
        start = self.place
        variable = self.variable()
        self.need("in")
        items = self.expression()
        if self.at(","):
            # `[x IN list, 1]` is a list whose first item is a condition.
            self.place = start
            first = self.expression()
            rest: list[s.Expression] = [first]
            while self.take(","):
                rest.append(self.expression())
            self.need("]")
            return s.ListOf(tuple(rest))
        condition = self.expression() if self.take("where") else None
        result = self.expression() if self.take("|") else None
        self.need("]")
        return s.Comprehension(variable, items, condition, result)

    def map(self) -> s.MapOf:
        """Read `{key: value}`."""
        self.need("{")
        keys: list[str] = []
        values: list[s.Expression] = []
        while not self.take("}"):
            keys.append(self.name())
            self.need(":")
            values.append(self.expression())
            if not self.at("}"):
                self.need(",")
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise QueryRefused(f"a map has the key {twice} twice")
        return s.MapOf(tuple(keys), tuple(values))

    def _case(self) -> s.Expression:
        self.need("case")
        subject = None if self.at("when") else self.expression()
        conditions: list[s.Expression] = []
        results: list[s.Expression] = []
        while self.take("when"):
            conditions.append(self.expression())
            self.need("then")
            results.append(self.expression())
        default = self.expression() if self.take("else") else None
        self.need("end")
        if not conditions:
            raise QueryRefused("CASE needs at least one WHEN … THEN …")
        return s.Case(subject, tuple(conditions), tuple(results), default)


# Words that no expression begins with, so that what is amiss is named where it is.
_NEVER_BARE = STARTS | frozenset(
    ("where", "order", "by", "skip", "limit", "union", "and", "or", "xor", "in", "is", "when", "then", "else", "end")
)
_ALLOWED = (
    "there are count, collect, min, max, avg, sum, coalesce, size, nodes, relationships, length, type, labels, "
    "toLower, substring, split, abs, round, range and others that only compute (docs/graph.md)"
)


def _check_function(token: Token, name: str) -> None:
    if name in FORBIDDEN:
        raise QueryRefused(f"{token.text.upper()} is not allowed: {READING}")
    if name in ENGINE_IDS:
        raise QueryRefused(f"{name}() is not allowed: it belongs to the engine; use a property, e.g. f.id")
    if name in INSTEAD:
        raise QueryRefused(f"{token.text}() is LadybugDB's own; {INSTEAD[name]} means the same on every store")
    if name not in FUNCTIONS:
        raise QueryRefused(f"the function {token.text}() is not allowed; {_ALLOWED}")


def _number(text: str) -> int | float:
    value = float(text) if re.search("[.eE]", text) else int(text)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise QueryRefused(f"the number {text} is too large; floating point ends at 1.8e308")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise QueryRefused(f"the number {text} has more than 64 bits; write it with .0 for floating point")
    return value


def _string(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.DOTALL)

"""A reading statement as syntax: clauses and patterns. What is not of this grammar is refused."""

from __future__ import annotations

from functools import lru_cache

from atlas.cypher import syntax as s
from atlas.cypher.cursor import READING
from atlas.cypher.patterns import Patterns
from atlas.cypher.tokens import check_brackets, tokens_of
from atlas.cypher.words import STARTS
from atlas.errors import QueryRefused


@lru_cache(maxsize=512)
def parse(cypher: str) -> s.Query:
    """The statement's syntax; raises QueryRefused with what is not expected, and what to use instead."""
    tokens = tokens_of(cypher)
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    if not tokens:
        raise QueryRefused("the statement is empty; one looks like: MATCH (f:Feature) RETURN f.id LIMIT 10")
    check_brackets(tokens)
    if any(token.text == ";" for token in tokens):
        raise QueryRefused("only one statement at a time; send each on its own, without ;")
    if tokens[0].kind != "word" or tokens[0].text.lower() not in STARTS:
        raise QueryRefused(f"a statement may not begin with {tokens[0].text[:40]}: {READING}")
    return _Parser(tokens).query()


class _Parser(Patterns):
    """Reads clauses."""

    def query(self) -> s.Query:
        """Read all of the statement."""
        parts = [self._part()]
        kinds: set[bool] = set()
        while self.take("union"):
            kinds.add(self.take("all"))
            if not kinds & {True}:
                self.take("distinct")
            parts.append(self._part())
        if self.place < len(self.tokens):
            self.refuse()
        if len(kinds) > 1:
            raise QueryRefused("UNION and UNION ALL cannot be mixed in one statement")
        return s.Query(tuple(parts), kinds == {True}, frozenset(self.made))

    def _part(self) -> tuple[s.Clause, ...]:
        clauses: list[s.Clause] = []
        while self.place < len(self.tokens) and not self.at("union"):
            clauses.append(self._clause())
            if isinstance(clauses[-1], s.Projection) and clauses[-1].final:
                return tuple(clauses)
        raise QueryRefused("a statement ends with RETURN, which says what to show")

    def _clause(self) -> s.Clause:
        if self.take("match"):
            return self._match(False)
        if self.take("optional", "match"):
            return self._match(True)
        if self.take("unwind"):
            items = self.expression()
            self.need("as")
            return s.Unwind(items, self.name())
        if self.take("with"):
            return self.projection(False)
        if self.take("return"):
            return self.projection(True)
        self.refuse()

    def _match(self, optional: bool) -> s.Match:
        paths, condition = self.paths()
        return s.Match(paths, condition, optional)

    def projection(self, final: bool) -> s.Projection:
        """Read what stands behind WITH or RETURN."""
        distinct = self.take("distinct")
        everything = self.take("*")
        items: list[s.Item] = []
        if not everything or self.take(","):
            items.append(self._item(final))
            while self.take(","):
                items.append(self._item(final))
        order: list[s.Order] = []
        if self.take("order", "by"):
            order.append(self._order())
            while self.take(","):
                order.append(self._order())
        skip = self.expression() if self.take("skip") else None
        limit = self.expression() if self.take("limit") else None
        condition = self.expression() if not final and self.take("where") else None
        return s.Projection(final, tuple(items), everything, distinct, tuple(order), skip, limit, condition)

    def _item(self, final: bool) -> s.Item:
        start = self.place
        expression = self.expression()
        text = self.text(start)
        if self.take("as"):
            return s.Item(expression, self.name(), True)
        if isinstance(expression, s.Variable):
            return s.Item(expression, expression.name, True)
        if not final:
            raise QueryRefused(f"{text[:60]} needs a name in WITH: {text[:60]} AS name")
        return s.Item(expression, text, False)

    def _order(self) -> s.Order:
        expression = self.expression()
        descending = self.take("desc") or self.take("descending")
        if not descending and not self.take("asc"):
            self.take("ascending")
        return s.Order(expression, descending)

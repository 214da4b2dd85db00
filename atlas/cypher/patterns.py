"""Patterns: paths of nodes and relationships, in MATCH, EXISTS, COUNT and as conditions."""

from __future__ import annotations

from atlas.cypher import syntax as s
from atlas.cypher.expressions import Expressions
from atlas.errors import QueryRefused


class Patterns(Expressions):
    """Reads patterns, and expressions that hold them."""

    def projection(self, final: bool) -> s.Projection:
        """Read what stands behind WITH or RETURN; by the subclass."""
        raise NotImplementedError

    def paths(self) -> tuple[tuple[s.PathPattern, ...], s.Expression | None]:
        """Patterns separated by commas, and the condition behind them."""
        self._conditions: list[s.Expression] = []
        paths = [self._path()]
        while self.take(","):
            paths.append(self._path())
        conditions = self._conditions
        if self.take("where"):
            conditions = [*conditions, self.expression()]
        return tuple(paths), s.conjunction(conditions)

    def subquery(self, kind: str) -> s.Expression:
        """Read `{MATCH … WHERE …}`; the words MATCH and RETURN may be left out."""
        self.need("{")
        self.take("match")
        outer = getattr(self, "_conditions", [])
        paths, condition = self.paths()
        self._conditions = outer
        if self.at("return") and kind == "exists":
            self.next()
            self.projection(True)
        if not self.take("}"):
            self.refuse(f"; {kind.upper()} {{ }} may hold one MATCH and its WHERE")
        return s.Subquery(kind, paths, condition)

    def pattern_condition(self) -> s.Expression | None:
        """A pattern as a condition, as in `WHERE (f)-->()`."""
        if not self.at("("):
            return None
        start, made = self.place, self._made
        outer, self._conditions = getattr(self, "_conditions", []), []
        try:
            path = self._path()
        except QueryRefused:
            path = None
        inner, self._conditions = self._conditions, outer
        if path is None or not path.relationships:
            # An expression in brackets, after all.
            self.place, self._made = start, made
            return None
        return s.Subquery("exists", (path,), s.conjunction(inner), frozenset(self.made))

    def _path(self) -> s.PathPattern:
        variable = None
        if self.peek(1).text == "=" and self.at_variable():
            variable = self.variable()
            self.need("=")
        for name, shortest in (("shortestpath", "one"), ("allshortestpaths", "all")):
            if self.take(name, "("):
                nodes, relationships = self._chain()
                self.need(")")
                return s.PathPattern(variable, nodes, relationships, shortest)
        if self.at("all") or self.at("any") or self.at("shortest"):
            raise QueryRefused("write the shortest path as shortestPath((a)-[:T*..5]->(b))")
        nodes, relationships = self._chain()
        return s.PathPattern(variable, nodes, relationships)

    def _chain(self) -> tuple[tuple[s.NodePattern, ...], tuple[s.RelationshipPattern, ...]]:
        nodes, relationships = [self._node()], []
        while self.at("-") or self.at("<", "-"):
            relationships.append(self._relationship())
            nodes.append(self._node())
        return tuple(nodes), tuple(relationships)

    def _node(self) -> s.NodePattern:
        self.need("(")
        variable = self.variable() if self.at_variable() else self.unnamed()
        labels = self._names("label") if self.take(":") else ()
        properties = self._properties()
        self._inline_condition()
        self.need(")")
        return s.NodePattern(variable, labels, properties)

    def _relationship(self) -> s.RelationshipPattern:
        left = self.take("<")
        self.need("-")
        variable = ""
        types: tuple[str, ...] = ()
        properties: s.Expression | None = None
        length: tuple[int | None, int | None] | None = None
        if self.take("["):
            variable = self.variable() if self.at_variable() else ""
            types = self._names("type") if self.take(":") else ()
            length = self._length() if self.take("*") else None
            properties = self._properties()
            self._inline_condition()
            self.need("]")
        self.need("-")
        right = self.take(">")
        direction = "-" if left == right else "<" if left else ">"
        low, high = length or (None, None)
        made = variable or self.unnamed()
        return s.RelationshipPattern(made, types, direction, properties, length is not None, low, high)

    def _inline_condition(self) -> None:
        if self.take("where"):
            self._conditions.append(self.expression())

    def _properties(self) -> s.Expression | None:
        if self.at("{"):
            return self.map()
        if self.peek().kind == "parameter":
            raise QueryRefused(
                f"write the properties out, {{id: {self.peek().text}.id}}, instead of a map as parameter"
            )
        return None

    def _names(self, what: str) -> tuple[str, ...]:
        """Labels or types joined by `|`."""
        names = [self.name()]
        while self.take("|"):
            self.take(":")
            names.append(self.name())
        if self.at("&") or self.at(":"):
            raise QueryRefused(f"every node has one label and every relationship one type: join {what}s by |")
        return tuple(names)

    def _length(self) -> tuple[int | None, int | None]:
        """Hops, behind the `*`: `2`, `1..3`, `1..`, `..3`, or nothing."""
        if self.at("shortest") or self.at("trail") or self.at("acyclic") or self.at("wshortest"):
            form = "every match is a trail" if self.at("trail") else "use shortestPath((a)-[:T*..5]->(b))"
            raise QueryRefused(f"{self.peek().text.upper()} is LadybugDB's own; {form}")
        if self.at("("):
            raise QueryRefused("(r, n | …) is LadybugDB's own; use all(r IN relationships(p) WHERE …)")
        low = self._count()
        if not self.take(".."):
            return (low, low) if low is not None else (1, None)
        high = self._count()
        return 1 if low is None else low, high

    def _count(self) -> int | None:
        if self.peek().kind != "number":
            return None
        text = self.next().text
        if not text.isdigit() or int(text) > 10_000:
            raise QueryRefused(f"a number of hops is a whole number, not {text}")
        return int(text)

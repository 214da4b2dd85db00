"""MATCH as LadybugDB's text: as trails, and one step after the other.

Seen in version 0.22: a pattern of several relationships gives wrong rows, without an error, as soon as the planner
starts in its middle: it extends one node to both sides and then joins, and the filters of one side are lost (from three
hops on; docs/graph.md has a statement that shows it). And it matches walks, where Cypher's MATCH takes no relationship
twice. So:

1. The steps of a MATCH are put in an order in which each continues what is there, from the most selective node.
2. What belongs to no earlier clause is one pattern whose join order is given (HINT); every other relationship is a
   MATCH of its own behind a WITH *, which keeps the planner from joining them.
3. Two relationships of one MATCH that could be the same are told apart by their ids. They cannot be the same where
   their types differ, or on a path that always leads in one direction, since every edge leads to a smaller depth.
4. Conditions stand at the first step at which all that they name is known. Of what stands outside an OPTIONAL MATCH
   or a subquery, null is lost there (atlas.embedded.statement.nulls): what concerns nothing else is computed before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations

from atlas.cypher import syntax as s
from atlas.cypher.scope import free
from atlas.embedded.statement import types as t
from atlas.embedded.statement.bindings import Bindings, Step
from atlas.embedded.statement.forms import NotAlike, Scope
from atlas.embedded.statement.nulls import fails_with_null
from atlas.embedded.statement.order import Group, grouped, one_way
from atlas.embedded.statement.writer import Writer
from atlas.errors import QueryError, QueryRefused

LONGEST = 10_000  # values behind IN that the engine searches for every row
DEEPEST = 1000  # hops of a pattern without an upper bound; every hop leads to a smaller depth


@dataclass
class Matched:
    """A MATCH that was written."""

    texts: list[str] = field(default_factory=list)
    left_over: list[s.Expression] = field(default_factory=list)  # conditions that the engine does not know
    parts: dict[str, tuple[s.PathPattern, tuple[str, ...]]] = field(default_factory=dict)  # paths of several steps


class Pattern(Bindings):
    """Writes one MATCH, or what stands in EXISTS and COUNT."""

    def __init__(self, paths: tuple[s.PathPattern, ...], writer: Writer, *, optional: bool = False) -> None:
        super().__init__(paths, writer)
        self.optional = optional
        self.written: set[str] = set()
        self.before: list[str] = []  # conditions on earlier clauses alone, computed ahead of an OPTIONAL MATCH

    def written_out(self, condition: s.Expression | None, *, subquery: bool = False) -> Matched:
        """The MATCH as one or several clauses."""
        matched = Matched()
        wanted = [*s.conjuncts(condition), *self._property_conditions()]
        self.pending: list[tuple[set[str], str, s.Expression | None]] = []
        inner = replace(self.writer, scope=self.scope)
        joins = self._joins(wanted)
        for join, name in joins:
            wanted.remove(join)
            matched.texts.append(name[0])
            self.pending.append((free(join), f"{inner.write(join.left)[0]} = {name[1]}", None))
        for path in (path for path in self.paths if path.shortest):
            own = {path.variable, *(edge.variable for edge in path.relationships)}
            if any(free(expression) & own for expression in wanted):
                raise QueryRefused(
                    "a condition on shortestPath() is looked at while it is searched for, which this engine cannot; "
                    "put it into the pattern, [:T*..5 {rank: 0}], or into a WITH … WHERE behind it"
                )
        for expression in wanted:
            try:
                names = free(expression) & set(self.scope)
                if self.optional and names <= self.bound and not fails_with_null(expression, names, self.scope):
                    self.before.append(inner.condition(expression))
                else:
                    self.pending.append((names, inner.condition(expression), expression))
            except NotAlike:
                if self.optional:
                    raise
                matched.left_over.append(expression)
        self.pending += self._trails()
        groups = grouped(self, self._selective, not self.optional)
        matched.texts += ([] if subquery else self._computed_before(groups)) + self._clauses(groups)
        if not groups and not self.optional:
            # Nodes that are known already: they are there, unless an OPTIONAL MATCH found none.
            known = sorted({self.scope[node.variable].text for path in self.paths for node in path.nodes})
            wheres = [*(f"id({name}) IS NOT NULL" for name in known), *(text for _, text, _ in self.pending)]
            matched.texts.append(f"WITH * WHERE {' AND '.join(wheres)}")
        for path in self.paths:
            if path.variable and not self.raw[path.variable]:
                elements = [element.variable for element in path.elements]
                matched.parts[path.variable] = (path, tuple(self.raw.get(n) or self.scope[n].text for n in elements))
        return matched

    def _clauses(self, groups: list[Group]) -> list[str]:
        """The groups as clauses, each behind what keeps it from being planned together with those before."""
        if self.optional and len(groups) > 1 and any(isinstance(step, str) for group in groups for step in group):
            raise NotAlike("OPTIONAL MATCH of nodes that nothing joins")
        written: list[str] = []
        for number, group in enumerate(groups):
            alone = number and self.optional and self._stands_alone(group)
            text = self._group(group)
            # A step from what was known before would be taken also where the step before it found nothing.
            written.append(_with_condition(text, self._found(groups[number - 1]) if alone else ""))
        self.within = _nested(written)
        if self.optional:
            # All or nothing: a step is taken where the steps behind it can be.
            written = [_with_condition(text, _exists(written[place + 1 :])) for place, text in enumerate(written)]
        word = "OPTIONAL MATCH" if self.optional else "MATCH"
        return [f"{'WITH * ' if number or self.bound else ''}{word} {text}" for number, text in enumerate(written)]

    def nested(self, kind: str, condition: s.Expression | None) -> str:
        """EXISTS or COUNT of the MATCH: each step within the one before, so that none are joined."""
        self.written_out(condition, subquery=True)
        text = f"{kind} {{ MATCH {self.within} }}"
        if self.before and kind == "COUNT":
            raise NotAlike("COUNT { } with a condition that may hold where what it reads of an earlier clause is null")
        return " AND ".join([*(f"coalesce({each}, false)" for each in self.before), text])

    @property
    def after(self) -> Scope:
        """What is known behind the MATCH."""
        if not self.optional:
            return self.scope
        return self.scope | {name: replace(self.scope[name], nullable=True) for name in set(self.scope) - self.bound}

    def _computed_before(self, groups: list[Group]) -> list[str]:
        """The clause that computes what concerns nothing of an OPTIONAL MATCH, which its first step then asks for."""
        if not self.before or not groups:
            return []
        name = self.writer.constants.variable()
        condition, self.before = " AND ".join(self.before), []
        self.pending.append((set(), name, None))
        return [f"WITH *, ({condition}) AS {name}"]

    def _stands_alone(self, group: Group) -> bool:
        """Whether none of the nodes that it starts from was found by this MATCH."""
        ends = {end for step in group if isinstance(step, Step) for end in (step.left, step.right)}
        return not ends & (self.written - self.bound)

    def _found(self, group: Group) -> str:
        names = [self.raw[step.pattern.variable] for step in group if isinstance(step, Step) and step.simple]
        if not names:
            raise NotAlike("OPTIONAL MATCH of several relationships, one of any length between nodes known before")
        return f"id({names[0]}) IS NOT NULL"

    def _property_conditions(self) -> list[s.Expression]:
        """What stands in braces in a pattern, except where it must stay there: along a path of any length."""
        found: list[s.Expression] = []
        elements: list[s.NodePattern | s.RelationshipPattern] = [node for path in self.paths for node in path.nodes]
        elements += [step.pattern for step in self.steps if not step.pattern.variable_length]
        for element in elements:
            if isinstance(element.properties, s.MapOf):
                for key, value in zip(element.properties.keys, element.properties.values, strict=True):
                    found.append(s.Binary("=", s.Property(s.Variable(element.variable), key), value))
        return found

    def _joins(self, wanted: list[s.Expression]) -> list[tuple[s.Binary, tuple[str, str]]]:
        """`x.y IN list` for a long list, which the engine would search for every row."""
        for each in wanted:
            if not isinstance(each, s.Binary) or each.operator != "IN" or free(each.right):
                continue
            if isinstance(each.left, s.Property) and (values := self.writer.constants.long_list(each.right)):
                replace(self.writer, scope=self.scope).condition(each)  # raises where the types differ
                if self.optional or self.bound:
                    if len(values) > LONGEST:
                        raise QueryRefused(
                            f"a list of {len(values)} values is quick in the first MATCH of a statement alone; put it "
                            "there, or begin with UNWIND $list AS value MATCH (f {id: value})"
                        )
                    continue
                name = self.writer.constants.variable()
                unique = list(dict.fromkeys(value for value in values if value is not None))
                return [(each, (f"UNWIND ${self.writer.constants.parameter('', unique)} AS {name}", name))]
        return []

    def _trails(self) -> list[tuple[set[str], str, None]]:
        """Conditions that no relationship is taken twice."""
        found = []
        for one, other in combinations(self.steps, 2):
            if set(self.types(one)) & set(self.types(other)) and not one_way(one, other, self.steps):
                names = {one.pattern.variable, other.pattern.variable}
                found.append((names, self._apart(one, other), None))
        return found

    def _apart(self, one: Step, other: Step) -> str:
        a, b = (self.scope[step.pattern.variable].text for step in (one, other))
        # properties() and not list_transform(), which is wrong where other variables stand for several values at once.
        many = [f"properties({text}, '_id')" for step, text in ((one, a), (other, b)) if step.pattern.variable_length]
        if len(many) == 2:
            return f"NOT list_has_any({many[0]}, {many[1]})"
        if not many:
            return f"id({a}) <> id({b})"
        return f"NOT list_contains({many[0]}, id({b if one.pattern.variable_length else a}))"

    def _selective(self, variable: str) -> int:
        """How few nodes it probably stands for."""
        conditions = [text for names, text, _ in self.pending if names <= self.bound | {variable} and variable in names]
        name = self.scope[variable].text
        keyed = any(text.startswith(f"({name}.`id` = ") or text.startswith(f"{name}.`id` = ") for text in conditions)
        return 100 * keyed + 10 * any(" = " in text for text in conditions) + len(conditions)

    def _group(self, group: Group) -> str:
        texts, order, outside = [], "", self.written | self.bound
        for step in group:
            if isinstance(step, str):
                texts.append(self._node(step))
                continue
            if not order:
                start = step.left if step.left in self.written or step.left in self.bound else step.right
                if step.left not in self.written | self.bound and step.right not in self.written | self.bound:
                    start = max((step.left, step.right), key=self._selective)
                order = self.scope[start].text
                known = {start}
            new = step.right if step.left in known else step.left
            known |= {new}
            order = f"(({order} JOIN {self.raw[step.pattern.variable]}) JOIN {self.scope[new].text})"
            texts.append(self._step(step))
        here = [each for each in self.pending if each[0] <= self.written | self.bound]
        self.pending = [each for each in self.pending if each not in here]
        conditions = [text for _, text, _ in here]
        for names, _, condition in here if self.optional else ():
            if condition is not None and not fails_with_null(condition, names & outside, self.scope):
                raise NotAlike("a condition that may hold where what it reads of an earlier clause is null")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        hint = f" HINT {order[1:-1]}" if len(group) > 1 else ""
        return ", ".join(texts) + where + hint

    def _node(self, variable: str) -> str:
        labels = "" if variable in self.written | self.bound else "|".join(self.labels[variable])
        self.written.add(variable)
        return f"({self.scope[variable].text}{':' + labels if labels else ''})"

    def _step(self, step: Step) -> str:
        pattern = step.pattern
        left = self._node(step.left)
        types = f":{'|'.join(self.types(step))}" if pattern.types else ""
        inner = self.raw[pattern.variable] + types
        if pattern.variable_length or step.path.shortest:
            inner += self._length(step)
        arrows = {">": ("-", "->"), "<": ("<-", "-"), "-": ("-", "-")}[pattern.direction]
        right = self._node(step.right)
        self.written.add(pattern.variable)
        name = ""
        if step.whole_path and step.path.variable:
            name = f"{self.raw[step.path.variable]} = "
            self.written.add(step.path.variable)
        return f"{name}{left}{arrows[0]}[{inner}]{arrows[1]}{right}"

    def _length(self, step: Step) -> str:
        """Hops, the kind of path, and the properties that every relationship on it has."""
        pattern, shortest = step.pattern, step.path.shortest
        low = 1 if pattern.low is None else pattern.low
        high = pattern.high if pattern.high is not None else DEEPEST if pattern.variable_length else 1
        if shortest and low > 1:
            raise QueryRefused("shortestPath() begins at 0 or 1 hops")
        kinds = {"one": " SHORTEST", "all": " ALL SHORTEST", "": " TRAIL" if pattern.direction == "-" else ""}
        inner: list[str] = []
        if isinstance(pattern.properties, s.MapOf):
            pairs = zip(pattern.properties.keys, pattern.properties.values, strict=True)
            inner = [self._inline(step, key, value) for key, value in pairs]
        return f"*{kinds[shortest]} {low}..{high}" + (f" {{{', '.join(inner)}}}" if inner else "")

    def _inline(self, step: Step, key: str, value: s.Expression) -> str:
        type_ = t.property_type(t.relationship(self.types(step)), key)
        text, found = self.writer.write(value)
        if found.kind == t.NULL:
            raise QueryError(f"{{{key}: null}} matches nothing; leave it out")
        if found != type_:
            raise QueryError(f"{key} is {t.SHOWN[type_.kind]}; {{{key}: …}} along a path takes no other type")
        return f"`{key}`: {text}"


def _nested(written: list[str]) -> str:
    """The first of several MATCHes, with the others as its condition."""
    return _with_condition(written[0], _exists(written[1:])) if written else ""


def _exists(written: list[str]) -> str:
    return f"EXISTS {{ MATCH {_nested(written)} }}" if written else ""


def _with_condition(text: str, condition: str) -> str:
    if not condition:
        return text
    return f"{text} {'AND' if ' WHERE ' in text else 'WHERE'} {condition}"


def written_subquery(node: s.Subquery, writer: Writer) -> str:
    """EXISTS { } or COUNT { } as text."""
    count = sum(len(path.relationships) for path in node.paths)
    if not count or any(path.shortest for path in node.paths) or (count > 1 and node.kind == "count"):
        raise NotAlike(f"{node.kind.upper()} {{ }} of other than one relationship")
    paths = tuple(replace(path, variable=None) for path in node.paths)
    return f"({Pattern(paths, writer, optional=True).nested(node.kind.upper(), node.condition)})"


__all__ = ["Matched", "Pattern", "written_subquery"]

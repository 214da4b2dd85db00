"""What a reading statement is made of, as values: expressions, patterns, clauses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform

Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True)
def node(kind: type[Kind]) -> type[Kind]:
    """A dataclass whose comparison is that of its base: six methods made for each would take every command 20 ms."""
    return dataclass(eq=False, repr=False)(kind)


class Node:
    """Base of all: equal where kind and fields are; a type checker holds that no field is set anew."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, vars(self).values()))})"


class Expression(Node):
    """Base of every expression."""


@node
class Literal(Expression):
    """null, a boolean, number or text."""

    value: bool | int | float | str | None


@node
class Parameter(Expression):
    """`$name`."""

    name: str


@node
class Variable(Expression):
    """`name`."""

    name: str


@node
class Property(Expression):
    """`subject.name`."""

    subject: Expression
    name: str


@node
class Index(Expression):
    """`subject[index]`, from 0."""

    subject: Expression
    index: Expression


@node
class Slice(Expression):
    """`subject[low..high]`."""

    subject: Expression
    low: Expression | None
    high: Expression | None


@node
class ListOf(Expression):
    """`[a, b]`."""

    items: tuple[Expression, ...]


@node
class MapOf(Expression):
    """`{a: 1}`."""

    keys: tuple[str, ...]
    values: tuple[Expression, ...]


@node
class Unary(Expression):
    """`-x`, `+x`, `NOT x`."""

    operator: str
    operand: Expression


@node
class Binary(Expression):
    """Two operands; the operator in upper case, as AND, STARTS WITH, IN, =~."""

    operator: str
    left: Expression
    right: Expression


@node
class IsNull(Expression):
    """`x IS NULL`; negated: `x IS NOT NULL`."""

    operand: Expression
    negated: bool


@node
class HasLabel(Expression):
    """`x:A|B`: whether a node has one of the labels, or a relationship one of the types."""

    subject: Expression
    names: tuple[str, ...]


@node
class Call(Expression):
    """A function; its name in lower case. `count(*)` has no arguments."""

    name: str
    arguments: tuple[Expression, ...]
    distinct: bool = False


@node
class Case(Expression):
    """CASE; `subject` is None where each WHEN is a condition of its own."""

    subject: Expression | None
    conditions: tuple[Expression, ...]
    results: tuple[Expression, ...]
    default: Expression | None


@node
class Comprehension(Expression):
    """`[variable IN items WHERE condition | result]`."""

    variable: str
    items: Expression
    condition: Expression | None
    result: Expression | None


@node
class Quantifier(Expression):
    """`all(variable IN items WHERE condition)`; kind is all, any, none or single."""

    kind: str
    variable: str
    items: Expression
    condition: Expression


@node
class Reduce(Expression):
    """`reduce(total = start, variable IN items | step)`."""

    total: str
    start: Expression
    variable: str
    items: Expression
    step: Expression


@node
class MapProjection(Expression):
    """`variable {.*, .name, key: value}`."""

    subject: Expression
    everything: bool
    keys: tuple[str, ...]
    values: tuple[Expression, ...]


class Element:
    """Base of the parts of a path pattern."""

    variable: str
    properties: Expression | None


@node
class NodePattern(Element):
    """`(variable:A|B {…})`."""

    variable: str
    labels: tuple[str, ...]
    properties: Expression | None


@node
class RelationshipPattern(Element):
    """`-[variable:A|B*low..high {…}]->`; direction is `>`, `<` or `-`."""

    variable: str
    types: tuple[str, ...]
    direction: str
    properties: Expression | None
    variable_length: bool = False
    low: int | None = None
    high: int | None = None


@node
class PathPattern(Node):
    """Nodes and relationships by turns; `shortest` is "", one or all."""

    variable: str | None
    nodes: tuple[NodePattern, ...]
    relationships: tuple[RelationshipPattern, ...]
    shortest: str = ""

    @property
    def elements(self) -> list[Element]:
        """Nodes and relationships in the order in which they are written."""
        pairs = zip(self.nodes, (*self.relationships, None), strict=True)
        return [element for pair in pairs for element in pair if element is not None]


@node
class Subquery(Expression):
    """`EXISTS {…}`, `COUNT {…}`, or a pattern as a condition, which is an EXISTS."""

    kind: str  # exists or count
    paths: tuple[PathPattern, ...]
    condition: Expression | None
    own: frozenset[str] | None = None  # of a bare pattern: variables that it may bind, which are those without a name


@node
class Match(Node):
    """MATCH or OPTIONAL MATCH."""

    paths: tuple[PathPattern, ...]
    condition: Expression | None
    optional: bool


@node
class Unwind(Node):
    """UNWIND items AS variable."""

    items: Expression
    variable: str


@node
class Item(Node):
    """A projected expression and its column's name."""

    expression: Expression
    name: str
    named: bool  # whether by AS


@node
class Order(Node):
    """A key of ORDER BY."""

    expression: Expression
    descending: bool


@node
class Projection(Node):
    """WITH or RETURN and what belongs to it."""

    final: bool  # RETURN
    items: tuple[Item, ...]
    everything: bool  # `*`
    distinct: bool
    order: tuple[Order, ...]
    skip: Expression | None
    limit: Expression | None
    condition: Expression | None


Clause = Match | Unwind | Projection


@node
class Query(Node):
    """Statements joined by UNION; one where there is none."""

    parts: tuple[tuple[Clause, ...], ...]
    every_row: bool  # UNION ALL
    unnamed: frozenset[str] = frozenset()  # variables of patterns that have none of their own


def within(node: Any) -> Iterator[Any]:
    """The node and everything in it."""
    if isinstance(node, tuple):
        for item in node:
            yield from within(item)
    elif hasattr(node, "__dataclass_fields__"):
        yield node
        for field in fields(node):
            yield from within(getattr(node, field.name))


AGGREGATES = frozenset(
    ("count", "sum", "avg", "min", "max", "collect", "percentilecont", "percentiledisc", "stdev", "stdevp")
)


def aggregates(node: Any) -> bool:
    """Whether an aggregate is called in it, outside subqueries."""
    if isinstance(node, Subquery):
        return False
    if isinstance(node, Call) and node.name in AGGREGATES:
        return True
    if isinstance(node, tuple):
        return any(map(aggregates, node))
    return hasattr(node, "__dataclass_fields__") and any(aggregates(getattr(node, f.name)) for f in fields(node))


def conjuncts(condition: Expression | None) -> list[Expression]:
    """The conditions that are joined by AND."""
    if condition is None:
        return []
    if isinstance(condition, Binary) and condition.operator == "AND":
        return conjuncts(condition.left) + conjuncts(condition.right)
    return [condition]


def conjunction(conditions: list[Expression]) -> Expression | None:
    """The conditions joined by AND; None where there are none."""
    joined: Expression | None = None
    for condition in conditions:
        joined = condition if joined is None else Binary("AND", joined, condition)
    return joined

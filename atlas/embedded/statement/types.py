"""Types of expressions as the schema and the parameters give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from atlas.errors import QueryError
from atlas.schema import BOOLEAN, EDGES, FLOAT, INTEGER, NODES, STRING, properties

NULL, NODE, RELATIONSHIP, PATH, LIST, MAP, ANY = "NULL", "NODE", "RELATIONSHIP", "PATH", "LIST", "MAP", "ANY"
NUMBERS = (INTEGER, FLOAT)
PLAIN = (INTEGER, FLOAT, STRING, BOOLEAN)
SHOWN = {INTEGER: "an INTEGER", FLOAT: "a FLOAT", STRING: "text", BOOLEAN: "true or false"}

LABELS = {table.label: table for table in NODES}
TYPES = {table.type: table for table in EDGES}


@dataclass(frozen=True)
class Type:
    """What is known of an expression's values, null besides."""

    kind: str
    names: tuple[str, ...] = ()  # labels of a node, types of a relationship
    item: Type | None = None  # of a list
    nulls: bool = False  # whether a list may hold null
    fields: tuple[tuple[str, Type], ...] = ()  # of a map


def node(labels: Iterable[str]) -> Type:
    """A node of these labels."""
    return Type(NODE, tuple(labels))


def relationship(types: Iterable[str]) -> Type:
    """A relationship of these types."""
    return Type(RELATIONSHIP, tuple(types))


def ends(types: Iterable[str]) -> tuple[str, ...]:
    """The labels of the nodes that relationships of these types join."""
    return tuple(dict.fromkeys(TYPES[name].label for name in types))


def list_of(item: Type, nulls: bool = False) -> Type:
    """A list of such items."""
    return Type(LIST, item=item, nulls=nulls)


def alike(one: Type, other: Type) -> bool:
    """Whether values of the two can be equal: numbers, texts, booleans, nodes, relationships; null goes with all."""
    if NULL in (one.kind, other.kind):
        return True
    return one.kind == other.kind or (one.kind in NUMBERS and other.kind in NUMBERS)


def joined(types: Iterable[Type]) -> Type:
    """The one type that all have, null apart; ANY where they differ, in a number's kind too."""
    found = {type_ for type_ in types if type_.kind != NULL}
    if len({type_.kind for type_ in found}) == 1 and next(iter(found)).kind in (NODE, RELATIONSHIP):
        kind = next(iter(found)).kind
        return Type(kind, tuple(dict.fromkeys(name for type_ in found for name in type_.names)))
    return found.pop() if len(found) == 1 else Type(ANY if found else NULL)


def type_of(value: Any) -> Type:
    """The type of a parameter's value."""
    kinds: dict[type, str] = {bool: BOOLEAN, int: INTEGER, float: FLOAT, str: STRING, type(None): NULL}
    if isinstance(value, list):
        types = {type_of(value[0])} if _uniform(value) else set(map(type_of, value))
        nulls = Type(NULL) in types
        if {type_.kind for type_ in types} - {NULL} == set(NUMBERS):
            return list_of(Type(FLOAT), nulls)
        return list_of(joined(types), nulls)
    if isinstance(value, dict):
        return Type(MAP, fields=tuple((name, type_of(item)) for name, item in sorted(value.items())))
    return Type(kinds.get(type(value), ANY))


def _uniform(values: list[Any]) -> bool:
    """Whether all are of one Python type; quick for long lists."""
    return len(set(map(type, values))) == 1 and not isinstance(values[0], list | dict)


def property_type(subject: Type, name: str) -> Type:
    """The type of a property of a node or relationship; raises QueryError where the schema has no such property."""
    tables = LABELS if subject.kind == NODE else TYPES
    found = {type_ for label in subject.names if (type_ := properties(label).get(name))}
    if found:
        return Type(found.pop()) if len(found) == 1 else Type(ANY)
    known = sorted({key for label in subject.names for key in properties(label)})
    of = (
        " or ".join(subject.names)
        if len(subject.names) < len(tables)
        else "any node"
        if tables is LABELS
        else "any edge"
    )
    raise QueryError(f"there is no property {name} of {of}{_near(name, known)}")


def check_names(names: tuple[str, ...], what: str) -> None:
    """Raise QueryError for a label or a type that the schema does not have."""
    known = list(LABELS if what == "label" else TYPES)
    for name in names:
        if name not in known:
            raise QueryError(f"there is no {what} {name}{_near(name, known)}")


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), lower, 1, 0.6)
    shown = ", ".join(known) if len(known) < 30 else ", ".join(known[:30]) + " …"
    return f"; do you mean {lower[near[0]]}?" if near else f"; there are {shown}"

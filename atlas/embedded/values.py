"""LadybugDB's values as plain Python: nothing of the engine's own ids, no NaN."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from atlas.schema import BOOLEAN, EDGE_FIGURES, INTEGER, NODES

if TYPE_CHECKING:
    from atlas.embedded.guard import Statement

_PROPERTIES = {table.label: table.properties for table in NODES}
_AS_IS = frozenset(("BOOL", "STRING", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8"))

Converter = Callable[[Any], Any] | None


def converters(types: list[str]) -> list[Converter]:
    """What each column's values go through, by LadybugDB's names of the columns' types; None: nothing to do."""
    return [None if name in _AS_IS else plain for name in types]


def column_names(statement: Statement, found: list[str]) -> list[str]:
    """The columns' names as the statement writes them; those the engine found where it leaves them open (`*`)."""
    written = statement.columns
    return list(written) if written is not None and len(written) == len(found) else found


def first_line(text: object) -> str:
    """An engine's message without the picture of the statement that follows it."""
    return (str(text).strip() or type(text).__name__).splitlines()[0]


def explained(message: str) -> str:
    """An engine's message, with what to do where an atlas of an earlier version lacks a figure of its edges."""
    missing = re.search(r"Cannot find property (\w+)", message)
    if missing is None or missing[1] not in EDGE_FIGURES:
        return message
    return f"edges have no {missing[1]} yet, as the atlas is of an earlier version; run: feature-atlas ingest -a FOLDER"


def plain_row(row: list[Any], converters: list[Converter]) -> list[Any]:
    """The row's values as plain Python."""
    return [value if convert is None else convert(value) for value, convert in zip(row, converters, strict=True)]


def plain(value: Any) -> Any:
    """A value as plain Python: numbers, text, lists, dicts; what is not finite is None.

    A node is the dict of its label's properties; a relationship that of its properties and its `type`; a path
    `{"nodes": [...], "relationships": [...]}`.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return _plain_dict(value)
    if value is None or isinstance(value, (str, int)):
        return value
    # The engine sums integers in 128 bits, which arrive as Decimal; dates and the like are shown as text.
    return int(value) if hasattr(value, "as_integer_ratio") and value == int(value) else str(value)


def _plain_dict(value: dict[Any, Any]) -> dict[str, Any]:
    if "_NODES" in value and "_RELS" in value:
        return {"nodes": plain(value["_NODES"]), "relationships": plain(value["_RELS"])}
    label = value.get("_LABEL")
    if "_SRC" in value and "_ID" in value:
        properties = {name: plain(item) for name, item in value.items() if name[0] != "_"}
        return {"type": label, **properties}
    if "_ID" in value and label in _PROPERTIES:
        # A pattern over several labels brings the properties of all of them, null where another label has them.
        types = _PROPERTIES[label]
        return {name: _typed(item, types[name]) for name, item in value.items() if name in types}
    return {str(name): plain(item) for name, item in value.items()}


def _typed(value: Any, type_: str) -> Any:
    """A node's property; text where labels of one pattern declare it with different types, so made what it was."""
    if isinstance(value, str) and type_ == BOOLEAN:
        return value == "True"
    if isinstance(value, str) and type_ == INTEGER:
        return int(value)
    return plain(value)

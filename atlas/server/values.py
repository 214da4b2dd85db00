"""Neo4j's values as plain Python, in the shape that the embedded store gives them: no engine ids, no NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.cypher.interpret.values import finite
from atlas.schema import NODES, properties

if TYPE_CHECKING:
    from neo4j.graph import Entity


LABELS = {table.label for table in NODES}


def plain(value: Any, column: str = "") -> Any:
    """A value as plain Python: numbers, text, lists, dicts; dates and the like are text.

    A node is the dict of its label's properties; a relationship that of its properties and its `type`; a path
    `{"nodes": [...], "relationships": [...]}`. Raises QueryError for what is not finite, with the column's name.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return finite(value, column)
    if isinstance(value, list):
        return [plain(item, column) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item, column) for name, item in value.items()}
    from neo4j.graph import Node, Path, Relationship

    if isinstance(value, Node):
        # Of several labels that of the schema: a dressed copy has others beside it (atlas.server.extras).
        known = [label for label in value.labels if label in LABELS]
        return _declared(value, next(iter(known or value.labels), ""))
    if isinstance(value, Relationship):
        return {"type": value.type, **_declared(value, value.type)}
    if isinstance(value, Path):
        return {"nodes": [plain(n) for n in value.nodes], "relationships": [plain(r) for r in value.relationships]}
    return value.iso_format() if hasattr(value, "iso_format") else str(value)


def _declared(entity: Entity, name: str) -> dict[str, Any]:
    """Its properties: those of the schema, null where they are not stored; all of them where the schema has no such."""
    try:
        # Not all that is stored: digests and counts of writing are the store's own bookkeeping.
        names = list(properties(name))
    except KeyError:
        names = sorted(entity)
    return {key: plain(entity.get(key)) for key in names}

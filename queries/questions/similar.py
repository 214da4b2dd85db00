"""Which features have the nearest decoder rows, in every dictionary: by a server's index where it has their vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.schema import FEATURE
from queries.neighbours import ALL, neighbours

if TYPE_CHECKING:
    from atlas.atlas import Atlas

_KNOWN = f"""
UNWIND $ids AS name MATCH (f:{FEATURE} {{id: name}})
RETURN f.id AS feature, f.layer AS layer, f.label AS label
"""


def similar_to(atlas: Atlas, *, cypher: str, feature: str, limit: int) -> list[dict[str, Any]]:
    """Rows `{"feature", "similarity", "layer", "label"}`, nearest first.

    By `cypher` where the store has vectors of all rows (`copy --vectors`); exactly from the rows elsewhere. The index
    is asked for more than is wanted: it finds nearly all of the nearest, not certainly all.
    """
    if atlas.store.searchable():
        return list(atlas.read(cypher, feature=feature, limit=limit))
    found = neighbours(atlas, feature, dictionaries=[ALL], top=limit)
    known = {row["feature"]: row for row in atlas.read(_KNOWN, ids=[row["feature"] for row in found])}
    return [
        {name: row[name] for name in ("feature", "similarity")}
        | {name: known[row["feature"]][name] for name in ("layer", "label")}
        for row in found
    ]

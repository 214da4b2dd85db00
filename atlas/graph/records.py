"""An atlas known from its graph alone: the manifest and the records that its nodes stand for."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from atlas.errors import CorruptAtlas, NewerAtlas
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import FORMAT, Manifest
from atlas.graph.store import Store
from atlas.graph.stored import PAIRS
from atlas.schema import ATLAS, DICTIONARY, RUN, properties

if TYPE_CHECKING:
    from atlas.server.store import Neo4jStore


def _all(label: str) -> str:
    columns = ", ".join(f"n.`{name}` AS `{name}`" for name in properties(label))
    return f"MATCH (n:{label}) RETURN {columns}"


ATLASES = _all(ATLAS)
RUNS = f"{_all(RUN)} ORDER BY started, id"
DICTIONARIES = f"{_all(DICTIONARY)} ORDER BY n.model, n.depth, n.id"


def manifest_of(store: Neo4jStore) -> Manifest:
    """The manifest of the state that a server holds; raises CorruptAtlas, or NewerAtlas for one of a later format."""
    found = store.read(ATLASES)
    if len(found) != 1:
        raise CorruptAtlas(f"{store.about} holds {len(found)} atlases instead of one; ingest or copy it there again")
    atlas = found[0]
    # The format first: a later one may say the rest in another way. Another program's node may have any, or none.
    if isinstance(atlas["format"], int) and atlas["format"] > FORMAT:
        raise NewerAtlas(
            f"{store.about} holds format {atlas['format']}, newer than this version reads ({FORMAT}); upgrade "
            "feature-atlas"
        )
    try:
        thresholds = json.loads(atlas["thresholds"])
        min_res, min_module = thresholds["res"], thresholds["module"]
        measured = json.loads(atlas["measured"] or "[]")
    except (TypeError, ValueError, KeyError):
        raise CorruptAtlas(
            f"{store.about} holds a node {ATLAS} that is not of feature-atlas; name another --database"
        ) from None
    return Manifest(
        id=atlas["id"],
        dictionaries=tuple(row["id"] for row in store.read(DICTIONARIES)),
        pairs=tuple(row["key"] for row in store.read(PAIRS)),
        k=atlas["k"],
        min_res=min_res,
        min_module=min_module,
        runs=tuple(store.read(RUNS)),
        measured=tuple(measured),
        state=atlas["state"],
    )


def records_of(store: Store) -> dict[str, Dictionary]:
    """The dictionaries' records by id, in the order of their depth."""
    # What an older graph does not say has a default; null is a value where there is none.
    later = {field.name for field in fields(Dictionary) if field.default is not MISSING}
    return {
        row["id"]: Dictionary(**{name: value for name, value in row.items() if value is not None or name not in later})
        for row in store.read(DICTIONARIES)
    }

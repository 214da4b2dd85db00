"""An atlas known from its graph alone: the manifest and the records that its nodes stand for."""

from __future__ import annotations

import json
import re
from dataclasses import fields

from atlas.dictionary import Dictionary
from atlas.errors import CorruptAtlas, NewerAtlas
from atlas.manifest import FORMAT, Manifest
from atlas.schema import ATLAS, DICTIONARY, RUN, properties
from atlas.store import Row, Store
from atlas.store_graph import PAIRS

# Of what becomes a path: whoever may write to a graph must not write to its readers' disks.
_ID = re.compile(r"(?!\.)[^/\\\0]+(/(?!\.)[^/\\\0]+)*")
_SHA256 = re.compile("[0-9a-f]{64}")


def _all(label: str) -> str:
    columns = ", ".join(f"n.`{name}` AS `{name}`" for name in properties(label))
    return f"MATCH (n:{label}) RETURN {columns}"


ATLASES = _all(ATLAS)
RUNS = f"{_all(RUN)} ORDER BY started, id"
DICTIONARIES = f"{_all(DICTIONARY)} ORDER BY n.model, n.depth, n.id"


def manifest_of(store: Store) -> Manifest:
    """The manifest of the state that the store holds; raises CorruptAtlas, or NewerAtlas for one of a later format."""
    found = store.read(ATLASES)
    if len(found) != 1:
        raise CorruptAtlas(f"{store.about} holds {len(found)} atlases instead of one; ingest or copy it there again")
    atlas = found[0]
    if atlas["format"] > FORMAT:
        raise NewerAtlas(
            f"{store.about} holds format {atlas['format']}, newer than this version reads ({FORMAT}); upgrade "
            "feature-atlas"
        )
    thresholds = json.loads(atlas["thresholds"])
    return Manifest(
        id=atlas["id"],
        dictionaries=tuple(row["id"] for row in store.read(DICTIONARIES)),
        pairs=tuple(row["key"] for row in store.read(PAIRS)),
        k=atlas["k"],
        min_res=thresholds["res"],
        min_module=thresholds["module"],
        runs=tuple(store.read(RUNS)),
        state=atlas["state"],
    )


def records_of(store: Store) -> dict[str, Dictionary]:
    """The dictionaries' records by id, in the order of their depth."""
    return {row["id"]: _record(row) for row in store.read(DICTIONARIES)}


def _record(row: Row) -> Dictionary:
    if not (_ID.fullmatch(row["id"]) and _SHA256.fullmatch(row["rows_sha256"]) and _SHA256.fullmatch(row["sha256"])):
        raise CorruptAtlas(f"the graph names a dictionary {row['id']!r} or a digest that no ingest writes")
    return Dictionary(**{field.name: row[field.name] for field in fields(Dictionary)})

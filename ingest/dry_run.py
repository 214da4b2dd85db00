"""What an ingest would do, before it does it: dictionaries, pairs, bytes, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from atlas.atlas import atlas_path, load_dictionaries
from atlas.errors import NotAnAtlas
from atlas.folder.dictionary import Rows
from atlas.folder.manifest import Manifest
from atlas.folder.paths import dictionary_folder
from ingest.matching.pairs import plan_pairs
from ingest.sources.find import find_sources
from ingest.sources.selection import EVERYTHING, Selection

COLUMNS = ["step", "what", "with", "action", "bytes", "seconds"]
_EDGE_BYTES = 120  # of an edge on disk, staged and in the graph
_EDGES_A_SIDE = 0.75  # of a pair's k matches on both sides, the share that is not found from the other side too


def plan_rows(
    sources: Sequence[str], atlas: str | None, *, k: int | None = None, selection: Selection = EVERYTHING
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the plan: one a dictionary, one a pair, one in all. Nothing is written."""
    folder = atlas_path(atlas)
    try:
        manifest = Manifest.load(folder)
    except NotAnAtlas:
        manifest = Manifest()
    found = find_sources(sources, selection)
    kept = load_dictionaries(folder, manifest.dictionaries)
    # The atlas's own win: what is there already is planned by its record, not by what a source says of it.
    everything: dict[str, Any] = {source.id: source for source in found} | kept
    there = {id_ for id_, record in kept.items() if Rows.there(dictionary_folder(folder, id_), record)}
    rows = [_row("dictionary", s.id, s.address, s.id in there, s.bytes, 0.0) for s in found]
    known = set(kept)
    rate = _rate()
    matches = k or manifest.k
    for pair in plan_pairs(everything.values(), matches):
        later, earlier = everything[pair.later], everything[pair.earlier]
        width_ = later.d_model or earlier.d_model or 0
        seconds = 2.0 * later.d_sae * earlier.d_sae * width_ / rate
        # An estimate: how many matches both sides share is known only after they are found.
        size = int((later.d_sae + earlier.d_sae) * matches * _EDGES_A_SIDE * _EDGE_BYTES)
        staged = pair.later in known and pair.earlier in known and matches == manifest.k
        rows.append(_row("pair", pair.later, pair.earlier, staged, size, seconds))
    todo = [row for row in rows if row["action"] != "keep"]
    total = _row("total", f"{len(todo)} of {len(rows)} steps", None, False, 0, 0.0) | {
        "action": None,
        "bytes": sum(row["bytes"] for row in todo),
        "seconds": round(sum(row["seconds"] for row in todo), 1),
    }
    return COLUMNS, [*rows, total]


def _row(step: str, what: str, with_: str | None, kept: bool, size: int, seconds: float) -> dict[str, Any]:
    action = "keep" if kept else ("add" if step == "dictionary" else "match")
    return {
        "step": step,
        "what": what,
        "with": with_,
        "action": action,
        "bytes": 0 if kept else size,
        "seconds": 0.0 if kept else round(seconds, 2),
    }


def _rate() -> float:
    """Floating-point operations a second that matching will reach here, from a product of a tenth of a second."""
    block = np.full((1024, 1024), 0.5, dtype=np.float32)
    block @ block  # the first one starts threads
    started = time.perf_counter()
    block @ block
    # Selecting the best of each row and column costs about a quarter more than the product.
    return 2 * 1024**3 / (time.perf_counter() - started) / 1.25

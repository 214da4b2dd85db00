"""What an ingest would do, before it does it: dictionaries, pairs, bytes, time.

Only configurations are read. Sizes of files that are here are exact, and an atlas keeps rows as their source does;
those that would be downloaded are taken as float32, and times follow from the rates below and from how fast this
machine multiplies.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atlas.atlas import atlas_path, load_dictionaries
from atlas.errors import NotAnAtlas
from atlas.folder.dictionary import Rows
from atlas.folder.manifest import Manifest
from atlas.folder.paths import dictionary_folder
from ingest.matching.pairs import plan_pairs
from ingest.shards.plan import read_shard, shards
from ingest.sources.find import Source, find_sources
from ingest.sources.selection import EVERYTHING, Selection

COLUMNS = ["step", "what", "with", "action", "download", "read", "bytes", "seconds"]
_EDGE_BYTES = 120  # of an edge on disk, staged and in the graph
_EDGES_A_SIDE = 0.75  # of a pair's k matches on both sides, the share that is not found from the other side too
_DOWNLOAD = 20e6  # bytes a second from the hub
_LOADING = 150e6  # bytes a second of rows read, made unit and written
_GRAPH, _SERVER = 300e3, 50e3  # rows a second into the embedded graph, and into a server's


def plan_rows(
    sources: Sequence[str],
    atlas: str | None,
    *,
    k: int | None = None,
    selection: Selection = EVERYTHING,
    shard: str | None = None,
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the plan: one a dictionary, one a pair, one in all. Nothing is written.

    `download`, `read` and `bytes` are bytes to fetch, to read and to write; `seconds` are estimated. The
    last row's are more than the sum of the others': the graph is written anew whenever anything changes. shard: `I/N`,
    whose pairs and dictionaries alone.
    """
    number, count = read_shard(shard) if shard is not None else (1, 1)
    folder = atlas_path(atlas)
    manifest = _manifest(folder)
    found = find_sources(sources, selection)
    kept = load_dictionaries(folder, manifest.dictionaries)
    # The atlas's own win: what is there already is planned by its record, not by what a source says of it.
    everything: dict[str, Any] = {source.id: source for source in found} | kept
    there = {id_ for id_, record in kept.items() if Rows.there(dictionary_folder(folder, id_), record)}
    known = set(kept)
    rate = _rate()
    matches = k or manifest.k
    edges = 0
    pairs = plan_pairs(everything.values(), matches)
    if shard is not None:
        pairs = shards(pairs, {id_: each.d_sae for id_, each in everything.items()}, count)[number - 1]
        needed = {id_ for pair in pairs for id_ in (pair.later, pair.earlier)}
        found = [source for source in found if source.id in needed]
        everything = {id_: each for id_, each in everything.items() if id_ in needed}
    rows = [_dictionary_row(source, source.id in there) for source in found]
    for pair in pairs:
        later, earlier = everything[pair.later], everything[pair.earlier]
        width_ = later.d_model or earlier.d_model or 0
        seconds = 2.0 * later.d_sae * earlier.d_sae * width_ / rate
        # An estimate: how many matches both sides share is known only after they are found.
        count = int((later.d_sae + earlier.d_sae) * matches * _EDGES_A_SIDE)
        edges += count
        staged = pair.later in known and pair.earlier in known and matches == manifest.k
        rows.append(_row("pair", pair.later, pair.earlier, staged, count * _EDGE_BYTES, seconds))
    todo = [row for row in rows if row["action"] != "keep"]
    size = edges + sum(each.d_sae for each in everything.values())
    # A part has no graph.
    graph = 0.0 if shard is not None else size / (_GRAPH if manifest.store is None else _SERVER) if todo else 0.0
    total = _row("total", f"{len(todo)} of {len(rows)} steps", None, False, 0, 0.0) | {
        name: round(sum(row[name] for row in todo), 1) for name in ("download", "read", "bytes", "seconds")
    }
    return COLUMNS, [*rows, total | {"seconds": round(total["seconds"] + graph, 1)}]


def summary(rows: Sequence[dict[str, Any]], atlas: str | None) -> dict[str, str]:
    """The plan in a few lines, name to text, with units."""
    folder = atlas_path(atlas)
    total = rows[-1]
    dictionaries, pairs = (
        sum(row["seconds"] for row in rows if row["step"] == step) for step in ("dictionary", "pair")
    )
    download = total["download"] / _DOWNLOAD
    graph = total["seconds"] - dictionaries - pairs
    parts = {"download": download, "loading": dictionaries - download, "matching": pairs, "graph": graph}
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    told = ", ".join(f"{name} {_time(part)}" for name, part in parts.items() if part >= 0.05)
    return {
        "dictionaries": _counted(rows, "dictionary", "to add"),
        "pairs": _counted(rows, "pair", "to match"),
        "to download": _size(total["download"]) + (", as float32" if total["download"] else ""),
        "to read": _size(total["read"]),
        "to write": f"{_size(total['bytes'])} in {folder} ({_size(shutil.disk_usage(there).free)} free there)",
        "time": f"about {_time(total['seconds'])}" + (f": {told}" if told else ""),
    }


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.load(folder)
    except NotAnAtlas:
        return Manifest()


def _dictionary_row(source: Source, kept: bool) -> dict[str, Any]:
    size, here = source.origin.size()
    # Of a float32 file; what it really is, only the hub could say.
    size = source.bytes if size is None else size
    download = 0 if here else size
    # Rows that are mapped from head space are float32 whatever their source is.
    written = source.bytes if source.in_head_space else min(size, source.bytes)
    seconds = download / _DOWNLOAD + (size + source.bytes) / _LOADING
    return _row("dictionary", source.id, source.address, kept, written, seconds, download, size)


def _row(
    step: str,
    what: str,
    with_: str | None,
    kept: bool,
    size: int,
    seconds: float,
    download: int = 0,
    read: int = 0,
) -> dict[str, Any]:
    actions = {"dictionary": "add", "pair": "match"}
    numbers = {"download": download, "read": read, "bytes": size, "seconds": round(seconds, 2)}
    return {
        "step": step,
        "what": what,
        "with": with_,
        "action": "keep" if kept else actions.get(step),
        **({name: 0 for name in numbers} if kept else numbers),
    }


def _counted(rows: Sequence[dict[str, Any]], step: str, todo: str) -> str:
    actions = [row["action"] for row in rows if row["step"] == step]
    kept = actions.count("keep")
    return f"{len(actions) - kept} {todo}" + (f", {kept} there already" if kept else "")


def _size(count: float) -> str:
    if not count:
        return "nothing"
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _rate() -> float:
    """Floating-point operations a second that matching will reach here, from a product of a tenth of a second."""
    block = np.full((1024, 1024), 0.5, dtype=np.float32)
    block @ block  # the first one starts threads
    started = time.perf_counter()
    block @ block
    # Selecting the best of each row and column costs about a quarter more than the product.
    return 2 * 1024**3 / (time.perf_counter() - started) / 1.25

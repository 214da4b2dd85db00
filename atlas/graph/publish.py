"""A manifest's state made the current one: the graph built, named, and what nothing names any more dropped."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atlas.atlas import load_dictionaries, store_of
from atlas.cli.progress import Progress
from atlas.folder.labels import settle
from atlas.folder.manifest import Manifest
from atlas.folder.matches import EDGE_KINDS, unmeasured_name
from atlas.folder.paths import dictionary_folder, matches_folder, nearest_folder
from atlas.folder.word_index import retire_words, write_words
from atlas.graph.folder_graph import AtlasGraph, run_record
from atlas.graph.store import Store


@contextmanager
def store_for_writing(folder: Path, manifest: Manifest) -> Iterator[Store]:
    """The manifest's store with the right to write to it; raises LockedAtlas. The caller holds the folder's lock."""
    store = store_of(folder, manifest)
    try:
        with store.writing():
            store.check_replaceable(manifest)
            yield store
    finally:
        store.close()


def publish(folder: Path, store: Store, after: Manifest, progress: Progress, state: str | None = None) -> Manifest:
    """Build the graph of `after`, then make it the current one; readers see either, whole, or are told to wait.

    state: what to call it, where labels wait for it. Returns the manifest as saved.
    """
    after = replace(after, id=after.id or uuid.uuid4().hex, measured=_measured(after))
    if state is None:
        state = secrets.token_hex(8)
        # What waits for the present state counts for the new one too, which would not find it under that name.
        settle_labels(folder, after)
    records = load_dictionaries(folder, after.dictionaries)
    graph = AtlasGraph(folder, records, after, state)
    # Before the graph: between a server's new state and the manifest that names it readers have to wait.
    with progress.waiting("words"):
        write_words(folder, graph.state, records.values())
    if after.store is not None:
        begun = Manifest.load(folder)
        # Before the server's graph changes: if this process dies, the next one knows the state there as its own.
        replace(begun, pending=(*begun.pending, graph.state)).save(folder)
    with progress.steps("graph", graph.size, "rows") as advance:
        fingerprint = store.publish(graph, progress=advance)
    saved = replace(after, state=graph.state, fingerprint=fingerprint, pending=())
    # From here on readers see the new graph; everything after it only clears away.
    saved.save(folder)
    store.retire(graph.state)
    settle_labels(folder, saved)
    retire_words(folder, graph.state)
    _tidy(folder, saved, {record.rows_sha256 for record in records.values()})
    return saved


def _measured(manifest: Manifest) -> tuple[dict[str, Any], ...]:
    """What its features and edges were measured on; of edges only while some have figures."""
    figures = any(name != unmeasured_name(name) for name in manifest.pairs)
    return tuple(each for each in manifest.measured if figures or each["kind"] not in EDGE_KINDS)


def settle_labels(folder: Path, manifest: Manifest) -> None:
    """Bring labels to the state that the manifest names, before they are changed or read without it."""
    for id_ in manifest.dictionaries:
        settle(dictionary_folder(folder, id_), manifest.state)


def _tidy(folder: Path, manifest: Manifest, rows: Set[str]) -> None:
    """Remove staged files that the manifest does not name, indexes of other rows, and what interrupted writes left."""
    kept = set(manifest.pairs)
    for path in matches_folder(folder).glob("*"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
    for path in nearest_folder(folder).glob("*"):
        if path.stem not in rows:
            path.unlink(missing_ok=True)


def with_run(manifest: Manifest, started: float, edges: int) -> Manifest:
    """The manifest with a record of the run that began at `started` (seconds since the epoch) and ends now."""
    number = len(manifest.runs) + 1
    packages = ("feature-atlas", "faiss-gpu", "faiss-cpu", "torch", "ladybug")
    run = run_record(
        id=f"run-{number}",
        k=manifest.k,
        thresholds={"res": manifest.min_res, "module": manifest.min_module},
        edges=edges,
        versions={name: found for name in packages if (found := _version(name))},
        started=_iso(started),
        finished=_iso(time.time()),
    )
    return replace(manifest, runs=(*manifest.runs, run))


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

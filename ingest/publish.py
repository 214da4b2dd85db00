"""A manifest's state made the current one: the graph built, named, and what nothing names any more dropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atlas.atlas import load_dictionaries
from atlas.graphfile import state_path
from atlas.ladybug import LadybugStore
from atlas.manifest import Manifest
from ingest.graph import AtlasGraph
from ingest.progress import Progress


def publish(folder: Path, before: Manifest, after: Manifest, progress: Progress) -> Manifest:
    """Build the graph of `after` beside that of `before`, then switch; readers see either, whole.

    The caller holds the write lock. Returns the manifest as saved.
    """
    records = load_dictionaries(folder, after.dictionaries)
    graph = AtlasGraph(folder, records, after.pairs, after.runs, after.min_res, after.min_module)
    store = LadybugStore(folder / "graph", before.state, before.fingerprint)
    try:
        with progress.steps("graph", graph.size + len(graph.pairs), "edges") as advance:
            token = store.publish(graph, progress=advance)
        saved = replace(after, state=token, fingerprint=store.fingerprint(token))
        saved.save(folder)
        store.retire(token)
    finally:
        store.close()
    _tidy(folder, saved)
    return saved


def graph_there(folder: Path, manifest: Manifest) -> bool:
    """Whether the graph that the manifest names exists; raises CorruptAtlas where it is damaged."""
    if manifest.state is None or not state_path(folder / "graph", manifest.state).exists():
        return False
    store = LadybugStore(folder / "graph", manifest.state, manifest.fingerprint)
    try:
        store.open()
    finally:
        store.close()
    return True


def _tidy(folder: Path, manifest: Manifest) -> None:
    """Remove staged files that the manifest does not name, and what interrupted writes left."""
    kept = set(manifest.pairs)
    for path in (folder / "matches").glob("*"):
        if path.name not in kept:
            path.unlink(missing_ok=True)

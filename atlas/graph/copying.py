"""An atlas copied to another store, and the copy compared with it."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.address import ServerAddress, is_server
from atlas.atlas import Atlas
from atlas.cli.progress import Progress
from atlas.embedded.store import LadybugStore
from atlas.errors import AtlasError, CorruptAtlas, FolderError, NotAnAtlas, StoreError
from atlas.folder.labels import Labels
from atlas.folder.lock import writing
from atlas.folder.manifest import Manifest, disk_errors, replacing
from atlas.folder.paths import RECORD, dictionary_folder, graph_folder, is_own, matches_file
from atlas.folder.word_index import retire_words, write_words
from atlas.graph.digest import Digest, digest
from atlas.graph.store import Store
from atlas.graph.stored import StoredGraph
from atlas.graph.unpack import drop_other_rows, unpack


@dataclass(frozen=True)
class Copied:
    """What a copy holds, which is what the original holds."""

    address: str
    digest: Digest


def copy_atlas(
    source: Atlas,
    to: str,
    *,
    database: str | None = None,
    replace: bool = False,
    dressed: bool = False,
    vectors: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Copy an opened atlas to a folder or to a server, where what an interrupted copy wrote is kept.

    replace: also where the target holds another state of the same atlas, which is lost. Nothing tells an older state,
    all of which the source came from, from one with work that the source lacks.

    dressed, vectors: on a server also second labels and edges to look at, decoder rows to search
    (atlas.server.extras); no part of the graph.

    Both sides are counted and their edges digested at the end (atlas.graph.digest).
    Raises AddressError, LockedAtlas, StoreError where the server holds something else, cannot take it or the two
    differ, FolderError where the folder holds something else.
    """
    progress = progress or Progress(quiet=True)
    if is_server(to):
        extras = {"dressed": dressed, "vectors": vectors}
        return _to_server(source, ServerAddress.parse(to, database), replace, extras, progress)
    if dressed or vectors:
        raise StoreError("a dress and vectors are for a copy on a server; a folder has its rows")
    return _to_folder(source, Path(to), replace, progress)


def _to_server(
    source: Atlas, address: ServerAddress, replace: bool, extras: dict[str, bool], progress: Progress
) -> Copied:
    from atlas.server.store import Neo4jStore

    graph = StoredGraph(source.store, source.manifest)
    store = Neo4jStore(address, source.manifest.id, source.manifest.state)
    try:
        if not store.present():
            with store.writing(), progress.steps("graph", graph.size, "rows") as advance:
                # Looked at under the claim: no other writer can change it before this one begins.
                if not replace and store.state_to_replace() not in (None, source.manifest.state):
                    raise _other_state(StoreError, address, source)
                store.publish(graph, progress=advance)
        found = _compared(source.store, store, len(graph.matched), progress)
        if count := sum(extras.values()):
            rows = count * sum(record.d_sae for record in source.dictionaries.values())
            with store.writing(), progress.steps("extras", rows, "features") as advance:
                store.add(list(source.dictionaries.values()), source.rows, **extras, progress=advance)
        return Copied(str(address), found)
    finally:
        store.close()


def _to_folder(source: Atlas, folder: Path, replace: bool, progress: Progress) -> Copied:
    # Before the folder is made, so that a refusal leaves nothing behind.
    _check_target(source, folder, replace)
    graph = StoredGraph(source.store, source.manifest)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder):
            _check_target(source, folder, replace)  # which another process may have changed meanwhile
            if source.path is not None:
                _copy_files(source, folder)
            else:
                with progress.steps("files", graph.size, "rows") as advance:
                    graph = unpack(graph, source.dictionaries, folder, advance)
            fingerprint = _there(folder, graph.state)
            if fingerprint is None:
                with progress.steps("graph", graph.size, "rows") as advance:
                    fingerprint = LadybugStore(graph_folder(folder), None).publish(graph, progress=advance)
            store = LadybugStore(graph_folder(folder), graph.state, fingerprint)
            try:
                found = _compared(source.store, store, len(graph.matched), progress)
                with progress.waiting("words"):
                    write_words(folder, graph.state, source.dictionaries.values())
                # After the comparison only: what differs is never named by a manifest.
                dataclasses.replace(source.manifest, store=None, fingerprint=fingerprint, pending=()).save(folder)
                store.retire(graph.state)
                retire_words(folder, graph.state)
            finally:
                store.close()
    return Copied(str(folder), found)


def _there(folder: Path, state: str) -> dict[str, Any] | None:
    """The fingerprint of a copy of that state which is there, whole; it is left as it is."""
    try:
        known = Manifest.load(folder)
        store = LadybugStore(graph_folder(folder), known.state, known.fingerprint)
        try:
            return known.fingerprint if known.store is None and known.state == state and store.present() else None
        finally:
            store.close()
    except (NotAnAtlas, CorruptAtlas):
        return None


def _check_target(source: Atlas, folder: Path, replace: bool) -> None:
    """Raise FolderError unless the folder is new, or holds the same state of the same atlas (any, to replace it)."""
    if source.path is not None and folder.resolve() == source.path.resolve():
        raise FolderError(f"{folder} is the atlas itself; copy it to another folder or to a server")
    try:
        there = Manifest.load(folder)
        if there.id != source.manifest.id:
            raise FolderError(f"{folder} holds another atlas; copy to another folder")
        if there.store is not None:
            raise FolderError(f"{folder} is bound to {there.store}; copy to another folder")
        if not replace and there.state not in (None, source.manifest.state):
            raise _other_state(FolderError, folder, source)
    except NotAnAtlas:
        if folder.is_dir() and any(not is_own(path) for path in folder.iterdir()):
            raise FolderError(f"{folder} is not empty and holds no atlas; copy to another folder") from None


def _other_state(error: type[AtlasError], target: object, source: Atlas) -> AtlasError:
    return error(
        f"{target} holds another state of this atlas than {source.address}: what was ingested or labelled only there "
        "would be lost; repeat the command with --replace to have it replaced"
    )


def _copy_files(source: Atlas, folder: Path) -> None:
    """Rows, labels and staged matches that the target lacks."""
    assert source.path is not None
    for id_, record in source.dictionaries.items():
        there, here = (dictionary_folder(each, id_) for each in (source.path, folder))
        drop_other_rows(here, record)
        here.mkdir(parents=True, exist_ok=True)
        # The record goes last: it marks the folder as finished.
        for path in sorted(there.iterdir(), key=lambda path: path.name == RECORD):
            if not path.name.startswith("labels."):
                _copy_file(path, here / path.name)
        _copy_labels(there, here, source.manifest.state)
    for name in source.manifest.pairs:
        _copy_file(matches_file(source.path, name), matches_file(folder, name))


def _copy_file(path: Path, target: Path) -> None:
    # One name, one content; but it may be damaged.
    there = target.stat().st_size if target.exists() else None
    if path.exists() and there != path.stat().st_size:
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)


def _copy_labels(there: Path, here: Path, state: str | None) -> None:
    """Labels change under one name. What a server does not hold, contexts and their like, stays as it is here."""
    labels = Labels.load(there, state)
    if labels.table is None:
        return
    try:
        kept = labels.with_beside_of(Labels.load(here))
    except CorruptAtlas:
        kept = labels
    kept.save(here)


def _compared(source: Store, target: Store, pairs: int, progress: Progress) -> Digest:
    with progress.steps("comparing", 2 * pairs, "pairs") as advance:
        wanted, found = digest(source, advance), digest(target, advance)
    if wanted != found:
        raise StoreError(
            f"{target.about} does not hold what {source.about} holds ({found} instead of {wanted}); empty it and copy "
            "again"
        )
    return found

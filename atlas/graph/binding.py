"""A folder bound to a Neo4j database: rows and matches stay in the folder, the graph lives on the server."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from atlas.address import ServerAddress
from atlas.errors import FolderError, NotAnAtlas
from atlas.folder.lock import writing
from atlas.folder.manifest import Manifest, disk_errors
from atlas.folder.paths import graph_folder, is_own
from atlas.graph.records import manifest_of, records_of
from atlas.graph.stored import StoredGraph
from atlas.graph.unpack import unpack
from atlas.server.connect import Connection
from atlas.server.schema import check_owner, create_schema, is_filled
from atlas.server.store import STATE, Neo4jStore


def bind(folder: Path, address: ServerAddress) -> Manifest:
    """Bind a folder to a database and make the database's constraints and indexes; returns the folder's manifest.

    A new folder and an empty database start an atlas. A new folder and a database with an atlas: the folder takes that
    atlas on, its records, labels and matches read from the graph. A folder with an atlas: the database must hold the
    same, as after `copy`.
    Raises FolderError where they hold different things, StoreError where the server cannot be used.
    """
    connection = Connection(address)
    try:
        check_owner(connection)
        create_schema(connection, filled=is_filled(connection))
        there = next(iter(connection.read(STATE)), None)
    finally:
        connection.close()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder):
            manifest = _known(folder, address, there)
            if manifest is None:
                bound = _adopted(folder, address) if there else Manifest(id=uuid.uuid4().hex)
            elif manifest.store == str(address) and (there is None or there["id"] == manifest.id):
                bound = manifest
            else:
                _check_same(folder, manifest, address, there)
                # The fingerprint is of the embedded graph, which goes; a server's state has none.
                bound = replace(manifest, fingerprint=None, pending=())
            bound = replace(bound, store=str(address))
            # Before the old graph goes: broken off in between, only room on the disk is lost.
            bound.save(folder)
            if graph_folder(folder).exists():  # the embedded graph, which nothing names any more
                shutil.rmtree(graph_folder(folder))
    return bound


def _known(folder: Path, address: ServerAddress, there: dict[str, str] | None) -> Manifest | None:
    """What the folder holds; None where that is nothing yet, bound as it may be to what others filled meanwhile."""
    try:
        known = Manifest.load(folder)
        elsewhere = known.store != str(address) or (there is not None and there["id"] != known.id)
        return None if known.state is None and known.store is not None and elsewhere else known
    except NotAnAtlas:
        if graph_folder(folder).exists() or not all(map(is_own, folder.iterdir())):
            raise FolderError(f"{folder} is not empty and holds no atlas; name another folder") from None
        return None


def _adopted(folder: Path, address: ServerAddress) -> Manifest:
    store = Neo4jStore(address)
    try:
        store.open()
        manifest = manifest_of(store)
        unpack(StoredGraph(store, manifest), records_of(store), folder)
        return manifest
    finally:
        store.close()


def _check_same(folder: Path, manifest: Manifest, address: ServerAddress, there: dict[str, str] | None) -> None:
    if there is None or (there["id"] == manifest.id != "" and there["state"] != manifest.state):
        raise FolderError(
            f"{folder} holds an atlas that {address} does not hold yet, or in another state; bring it there first: "
            f"feature-atlas copy -a {folder} --to {address}"
        )
    if there["id"] != manifest.id:
        raise FolderError(
            f"{folder} and {address} hold different atlases; bind another folder, or name another --database"
        )

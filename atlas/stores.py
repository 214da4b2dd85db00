"""Which store holds an atlas's graph."""

from __future__ import annotations

from pathlib import Path

from atlas.address import ServerAddress
from atlas.manifest import Manifest
from atlas.store import Store


def store_of(folder: Path, manifest: Manifest) -> Store:
    """The store that a manifest names, in the manifest's state; nothing is opened yet."""
    if manifest.store is not None:
        from atlas.neo4j_store import Neo4jStore

        return Neo4jStore(ServerAddress.parse(manifest.store), manifest.id or None, manifest.state)
    from atlas.ladybug import LadybugStore

    return LadybugStore(folder / "graph", manifest.state, manifest.fingerprint)

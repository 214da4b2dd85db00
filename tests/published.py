"""Graphs written to a server, and what they are when nothing happens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from planted_graph import PlantedGraph

from atlas.address import ServerAddress
from atlas.embedded.store import LadybugStore
from atlas.graph.digest import Digest, digest
from atlas.server.store import Neo4jStore

LARGE = partial(PlantedGraph, layers=8, width=1500, extra=6000)  # 7 pairs of about 9,000 edges
SMALL = partial(PlantedGraph, layers=4, width=60, extra=100)


class Killed(BaseException):
    """As kill -9: nothing is tidied up after it."""


def store_at(uri: str) -> Neo4jStore:
    """Whatever atlas is there."""
    return Neo4jStore(ServerAddress.parse(uri))


def publish(uri: str, graph: PlantedGraph, progress: Callable[[int], None] | None = None) -> None:
    """Write the graph to the server."""
    store = store_at(uri)
    try:
        with store.writing():
            store.publish(graph, progress=progress)
    finally:
        store.close()


def numbers(uri: str) -> Digest:
    """What the server holds."""
    store = store_at(uri)
    try:
        return digest(store)
    finally:
        store.close()


def undisturbed(folder: Path, graph: PlantedGraph) -> Digest:
    """What a graph is in the embedded store."""
    LadybugStore(folder, None).publish(graph)
    store = LadybugStore(folder, graph.state)
    try:
        return digest(store)
    finally:
        store.close()

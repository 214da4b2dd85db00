"""How fast an embedded graph is loaded and read: `python tests/bench_load.py`."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from planted_graph import PlantedGraph

from atlas.embedded.file import fingerprint, state_path
from atlas.embedded.store import LadybugStore
from atlas.graph.store import Batch
from atlas.schema import FEATURE

TARGET = 250_000  # edges a second


class Timed(PlantedGraph):
    """A graph that keeps account of the time its making takes, which is no part of loading it."""

    making: float = 0.0

    def nodes(self, label: str) -> Iterator[pa.Table]:
        yield from self._timed(super().nodes(label))

    def edges(self, type_: str) -> Iterator[Batch]:
        yield from self._timed(super().edges(type_))

    def _timed(self, parts: Iterator) -> Iterator:  # type: ignore[type-arg]
        while True:
            start = time.perf_counter()
            part = next(parts, None)
            self.making += time.perf_counter() - start
            if part is None:
                return
            yield part


def measure(layers: int, width: int, edges: int) -> None:
    """Load about `edges` edges among `layers` dictionaries of `width` features and print rates."""
    graph = Timed(layers=layers, width=width, extra=max(0, edges // (layers - 1) - 2 * width))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = LadybugStore(folder, None)
        nodes_only = Timed(layers=layers, width=width)
        nodes_only.edges = lambda type_: iter(())  # type: ignore[method-assign]
        start = time.perf_counter()
        store.publish(nodes_only)
        store.retire(nodes_only.state)
        nodes_seconds = time.perf_counter() - start - nodes_only.making
        written: list[int] = []
        start = time.perf_counter()
        token = graph.state
        store.publish(graph, progress=written.append)
        seconds = time.perf_counter() - start - graph.making
        size = state_path(folder, token).stat().st_size
        edges = sum(written) - layers * width
        rate = edges / max(seconds - nodes_seconds, 1e-9)
        print(
            f"{layers * width:>9,} features {edges:>9,} edges: whole state {seconds:5.1f} s, of it features "
            f"{nodes_seconds:5.1f} s; edges {rate:,.0f}/s (target {TARGET:,}), {size / 1e6:,.0f} MB, "
            f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB"
        )
        start = time.perf_counter()
        expected = fingerprint(state_path(folder, token))
        hashing = time.perf_counter() - start
        reader = LadybugStore(folder, token, expected)
        start = time.perf_counter()
        reader.read(f"MATCH (f:{FEATURE}) RETURN f.id LIMIT 1")
        opening = time.perf_counter() - start
        cypher = f"MATCH (:{FEATURE} {{id: $id}})-[r:FROM_RES {{rank: 0}}]->(g:{FEATURE}) RETURN g.id AS id"
        start = time.perf_counter()
        for i in range(50):
            reader.read(
                cypher,
                {"id": graph.ids(layers - 1)[i % width]} if i == 0 else {"id": f"{graph.dictionary(layers - 1)}/{i}"},
            )
        reads = time.perf_counter() - start
        start = time.perf_counter()
        reader.query("RETURN 1 AS x", {})
        started = time.perf_counter() - start
        start = time.perf_counter()
        answer = reader.query(f"MATCH (f:{FEATURE}) RETURN f.id, f.layer, f.label LIMIT 100000", {})
        rows = len(answer.rows) / (time.perf_counter() - start)
        print(
            f"{'':>9} hash {hashing * 1e3:.0f} ms, open and first read {opening * 1e3:.0f} ms, 50 reads "
            f"{reads * 1e3:.0f} ms; worker started {started * 1e3:.0f} ms, rows through it {rows:,.0f}/s"
        )
        reader.close()


if __name__ == "__main__":
    sizes = [(4, 12_500, 1_000_000), (78, 16_384, 1_000_000)]
    for size in [tuple(map(int, sys.argv[1:4]))] if len(sys.argv) == 4 else sizes:
        measure(*size)

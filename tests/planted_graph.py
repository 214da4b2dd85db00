"""A small graph with known rows, and graphs of any size for benchmarks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from atlas.folder.manifest import FORMAT
from atlas.graph.store import Batch
from atlas.graph.tables import arrow_schema, columns_of
from atlas.schema import ATLAS, DICTIONARY, FEATURE, MATCHED, MODEL, RUN


def table(name: str, values: dict[str, object]) -> pa.Table:
    """The table of a label or edge type; columns without values are null."""
    rows = len(next(iter(values.values())))  # type: ignore[arg-type]
    arrays = {column: pa.array(values[column]) if column in values else pa.nulls(rows) for column in columns_of(name)}
    return pa.table(arrays).cast(arrow_schema(name))


@dataclass
class PlantedGraph:
    """`layers` residual dictionaries of `width` features; feature i of layer L comes from i of L−1 (rank 0, similarity
    0.5 + i/1000) and from i+1 (rank 1, similarity 0.25)."""

    layers: int = 4
    width: int = 10
    extra: int = 0  # further edges of random features of neighbouring layers, for benchmarks
    state: str = field(default_factory=lambda: secrets.token_hex(8))
    edges_before_failure: int | None = None  # raises after so many edge batches, as a failing disk would

    def dictionary(self, layer: int) -> str:
        return f"tiny/{layer}-res-{self.width}"

    def ids(self, layer: int) -> list[str]:
        return [f"{self.dictionary(layer)}/{i}" for i in range(self.width)]

    def nodes(self, label: str) -> Iterator[pa.Table]:
        layers = range(self.layers)
        if label == ATLAS:
            values = {"id": ["planted"], "state": [self.state], "format": [FORMAT], "k": [2]}
            yield table(label, values | {"thresholds": ['{"res": 0.5, "module": 0.25}']})
        if label == MODEL:
            yield table(label, {"id": ["tiny"], "name": ["tiny"], "d_model": [16]})
        elif label == RUN:
            yield table(label, {"id": ["run-1"], "k": [2]})
        elif label == DICTIONARY:
            ids = [self.dictionary(layer) for layer in layers]
            sets = [f"res-{self.width}"] * self.layers
            values = {"id": ids, "layer": list(layers), "site": ["res"] * self.layers, "set": sets}
            values |= {"model": ["tiny"] * self.layers, "d_sae": [self.width] * self.layers}
            yield table(label, values | {"depth": [3 * layer + 2 for layer in layers]})
        elif label == FEATURE:
            for layer in layers:
                yield table(
                    label,
                    {
                        "id": self.ids(layer),
                        "dictionary": [self.dictionary(layer)] * self.width,
                        "model": ["tiny"] * self.width,
                        "layer": [layer] * self.width,
                        "site": ["res"] * self.width,
                        "depth": [3 * layer + 2] * self.width,
                        "index": list(range(self.width)),
                        "norm": [1.0] * self.width,
                        "dead": [False] * self.width,
                        "label": [f"theme {i}; it's “quoted”" for i in range(self.width)],
                    },
                )

    def pairs(self) -> pa.Table:
        later, earlier = ([self.dictionary(layer) for layer in range(low, self.layers + low - 1)] for low in (1, 0))
        keys, count = [f"{layer}" for layer in range(1, self.layers)], 2 * self.width - 1 + self.extra
        values: dict[str, object] = {"later": later, "earlier": earlier, "key": keys}
        return table(MATCHED, values | {"edges": [count] * len(keys), "floor": [0.1] * len(keys)})

    def edges(self, type_: str) -> Iterator[Batch]:
        for layer in range(1, self.layers) if type_ == "FROM_RES" else ():
            if layer - 1 == self.edges_before_failure:
                raise OSError(28, "No space left on device")
            later, earlier = self.dictionary(layer), self.dictionary(layer - 1)
            yield Batch(type_, f"{layer}", later, earlier, self._batch(type_, layer))

    def _batch(self, type_: str, layer: int) -> pa.Table:
        own = np.arange(self.width)
        rng = np.random.default_rng(layer)
        later = np.concatenate([own, own[:-1], np.sort(rng.integers(0, self.width, self.extra))])
        earlier = np.concatenate([own, own[:-1] + 1, rng.integers(0, self.width, self.extra)])
        rank = np.concatenate([np.zeros(self.width), np.ones(self.width - 1), np.full(self.extra, 2)]).astype(int)
        values: dict[str, object] = {
            "later": later,
            "earlier": earlier,
            "similarity": np.where(rank == 0, 0.5 + later / 1000, 0.25),
            "rank": rank,
            "forward_rank": pa.array(rank, mask=rank > 0),
            "gap": np.ones(len(rank), dtype=int),
        }
        return table(type_, values)


class Rematched(PlantedGraph):
    """The same edges under other keys, as another k gives them."""

    def pairs(self) -> pa.Table:
        table = super().pairs()
        keys = pa.array([f"{key}-again" for key in table["key"].to_pylist()])
        return table.set_column(table.column_names.index("key"), "key", keys)

    def edges(self, type_: str) -> Iterator[Batch]:
        for batch in super().edges(type_):
            yield replace(batch, key=f"{batch.key}-again")

"""A small graph with known rows, and graphs of any size for benchmarks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from atlas.folder.manifest import FORMAT
from atlas.graph.store import Batch
from atlas.schema import (
    ATLAS,
    BOOLEAN,
    DICTIONARY,
    FEATURE,
    FLOAT,
    INTEGER,
    MATCHED,
    MODEL,
    RUN,
    STRING,
    properties,
)

_TYPES = {STRING: pa.string(), INTEGER: pa.int64(), FLOAT: pa.float64(), BOOLEAN: pa.bool_()}


def table(columns: dict[str, str], values: dict[str, object]) -> pa.Table:
    """A table with these columns; those without values are null."""
    arrays = {name: pa.array(v) for name, v in values.items()}
    rows = len(next(iter(arrays.values())))
    return pa.table(
        {
            name: arrays[name].cast(_TYPES[type_]) if name in arrays else pa.nulls(rows, _TYPES[type_])
            for name, type_ in columns.items()
        }
    )


@dataclass
class PlantedGraph:
    """`layers` residual dictionaries of `width` features; feature i of layer L comes from i of L−1 (rank 0, similarity
    0.5 + i/1000) and from i+1 (rank 1, similarity 0.25)."""

    layers: int = 4
    width: int = 10
    extra: int = 0  # further edges of random features of neighbouring layers, for benchmarks
    state: str = field(default_factory=lambda: secrets.token_hex(8))
    previous: tuple[str, ...] = ()
    edges_before_failure: int | None = None  # raises after so many edge batches, as a failing disk would

    def dictionary(self, layer: int) -> str:
        return f"tiny/{layer}-res-{self.width}"

    def ids(self, layer: int) -> list[str]:
        return [f"{self.dictionary(layer)}/{i}" for i in range(self.width)]

    def nodes(self, label: str) -> Iterator[pa.Table]:
        columns = properties(label)
        layers = range(self.layers)
        if label == ATLAS:
            values = {"id": ["planted"], "state": [self.state], "format": [FORMAT], "k": [2]}
            yield table(columns, values | {"thresholds": ['{"res": 0.5, "module": 0.25}']})
        if label == MODEL:
            yield table(columns, {"id": ["tiny"], "name": ["tiny"], "d_model": [16]})
        elif label == RUN:
            yield table(columns, {"id": ["run-1"], "k": [2]})
        elif label == DICTIONARY:
            ids = [self.dictionary(layer) for layer in layers]
            sets = [f"res-{self.width}"] * self.layers
            values = {"id": ids, "layer": list(layers), "site": ["res"] * self.layers, "set": sets}
            values |= {"model": ["tiny"] * self.layers, "d_sae": [self.width] * self.layers}
            yield table(columns, values | {"depth": [3 * layer + 2 for layer in layers]})
        elif label == FEATURE:
            for layer in layers:
                yield table(
                    columns,
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

    def edges(self, type_: str) -> Iterator[Batch]:
        columns = {"later": STRING, "earlier": STRING, **properties(type_)}
        pairs = [(layer, layer - 1) for layer in range(1, self.layers)]
        if type_ == MATCHED:
            later, earlier = ([self.dictionary(layer) for layer in side] for side in zip(*pairs, strict=True))
            keys, counts = [f"{layer}" for layer, _ in pairs], [2 * self.width - 1 + self.extra] * len(pairs)
            values = {"later": later, "earlier": earlier, "key": keys, "edges": counts, "floor": [0.1] * len(pairs)}
            yield Batch(type_, "pairs", table(columns, values))
        elif type_ == "FROM_RES":
            for number, (layer, before) in enumerate(pairs):
                if number == self.edges_before_failure:
                    raise OSError(28, "No space left on device")
                yield Batch(type_, f"{layer}", self._batch(columns, layer, before))

    def _batch(self, columns: dict[str, str], layer: int, before: int) -> pa.Table:
        own = np.arange(self.width)
        rng = np.random.default_rng(layer)
        later = np.concatenate([own, own[:-1], np.sort(rng.integers(0, self.width, self.extra))])
        earlier = np.concatenate([own, own[:-1] + 1, rng.integers(0, self.width, self.extra)])
        rank = np.concatenate([np.zeros(self.width), np.ones(self.width - 1), np.full(self.extra, 2)]).astype(int)
        similarity = np.where(rank == 0, 0.5 + later / 1000, 0.25)
        ids = [pa.array(self.ids(number)) for number in (layer, before)]
        return table(
            columns,
            {
                "later": ids[0].take(pa.array(later)),
                "earlier": ids[1].take(pa.array(earlier)),
                "similarity": similarity,
                "rank": rank,
                "forward_rank": pa.array(rank, mask=rank > 0),
                "gap": np.ones(len(rank), dtype=int),
            },
        )


class Rematched(PlantedGraph):
    """The same edges under other keys, as another k gives them."""

    def edges(self, type_: str) -> Iterator[Batch]:
        for batch in super().edges(type_):
            table = batch.table
            if type_ == MATCHED:
                keys = pa.array([f"{key}-again" for key in table["key"].to_pylist()])
                table = table.set_column(table.column_names.index("key"), "key", keys)
            yield replace(batch, key=f"{batch.key}-again", table=table)

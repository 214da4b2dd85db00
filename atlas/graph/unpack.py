"""The files of an atlas folder written from a graph alone: records, labels, staged matches.

Decoder and encoder rows are not in a graph; they are fetched from their sources when needed (atlas.folder.rows_cache).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.errors import CorruptAtlas
from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import Labels
from atlas.folder.matches import Pair, write
from atlas.graph.store import Batch, Row
from atlas.graph.stored import StoreGraph
from atlas.graph.tables import row_indices
from atlas.ids import is_file_name
from atlas.schema import EDGE_OF_SITE, FEATURE, MATCHED

if TYPE_CHECKING:
    import pyarrow as pa


class Unpacking:
    """A graph (atlas.graph.store.Graph) that leaves the files which `folder` lacks of its atlas there as it is read."""

    def __init__(self, graph: StoreGraph, records: dict[str, Dictionary], folder: Path, *, labels: bool = True) -> None:
        """labels: write these too, as far as the graph knows them."""
        self.graph = graph
        self.records = records
        self.folder = folder
        self._labels = labels
        self._pairs = {pair["key"]: pair for pair in graph.pairs}
        for key in self._pairs:
            if not is_file_name(key):
                raise CorruptAtlas(f"the graph names matches {key!r}, which no ingest writes")

    @property
    def state(self) -> str:
        """That of the graph."""
        return self.graph.state

    @property
    def previous(self) -> tuple[str, ...]:
        """Those of the graph."""
        return self.graph.previous

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables of that label; those of features leave records and labels."""
        if label != FEATURE:
            yield from self.graph.nodes(label)
            return
        for record, table in zip(self.records.values(), self.graph.nodes(FEATURE), strict=True):
            place = self.folder / "dictionaries" / record.id
            drop_other_rows(place, record)
            place.mkdir(parents=True, exist_ok=True)
            if self._labels:
                _write_labels(place, table)
            if not (place / "dictionary.json").exists():
                record.save(place)
            yield table

    def edges(self, type_: str) -> Iterator[Batch]:
        """Batches of that type; those between features leave the staged matches."""
        for batch in self.graph.edges(type_):
            path = self.folder / "matches" / batch.key
            if type_ != MATCHED and not path.exists():
                write(path, _pair(self._pairs[batch.key], type_), _staged(batch))
            yield batch

    def write(self) -> None:
        """Read the graph for the files alone."""
        for parts in (self.nodes(FEATURE), *map(self.edges, EDGE_OF_SITE.values())):
            for _ in parts:
                pass


def drop_other_rows(place: Path, record: Dictionary) -> None:
    """Remove a dictionary's folder that is unfinished or holds other content: a write that was broken off left it."""
    try:
        there = Dictionary.load(place)
        same = (there.sha256, there.rows_sha256) == (record.sha256, record.rows_sha256)
    except CorruptAtlas:
        same = False
    if not same:
        shutil.rmtree(place, ignore_errors=True)


def _write_labels(place: Path, table: pa.Table) -> None:
    """Bring a folder's labels to what the graph says; a graph has no contexts, and those that are there stay."""
    try:
        there = Labels.load(place)
    except CorruptAtlas:
        there = Labels(None)
    labels = there.following(table)
    if labels is not there:
        labels.save(place)


def _pair(row: Row, type_: str) -> Pair:
    floors = {"floor": row["floor"], "floor_median": row["floor_median"]}
    return Pair(row["later"], row["earlier"], type_, row["gap"], row["k"], row["edges"], **floors)


def _staged(batch: Batch) -> pa.Table:
    import pyarrow as pa

    table = batch.table
    columns = {end: row_indices(table[end]).cast(pa.int32()) for end in ("later", "earlier")}
    columns["similarity"] = table["similarity"].cast(pa.float32())
    columns |= {rank: table[rank].cast(pa.int32()) for rank in ("rank", "forward_rank")}
    return pa.table(columns)

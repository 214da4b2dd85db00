"""The files of an atlas folder written from a graph alone: records, labels, staged matches.

Decoder and encoder rows are not in a graph; they are fetched from their sources when needed (atlas.folder.rows_cache).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.errors import CorruptAtlas
from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import Labels
from atlas.folder.matches import Pair, edge_table, read_table, split, staged_table, write
from atlas.folder.paths import RECORD, dictionary_folder, matches_file
from atlas.graph.store import Row
from atlas.graph.stored import StoredGraph
from atlas.ids import is_file_name
from atlas.schema import EDGE_OF_SITE, FEATURE, FIRES_WITH

if TYPE_CHECKING:
    import pyarrow as pa


def unpack(
    graph: StoredGraph, records: dict[str, Dictionary], folder: Path, advance: Callable[[int], None] = lambda _: None
) -> UnpackedGraph:
    """Write the files of the graph's atlas that `folder` lacks; `advance` is called with the rows read since.

    Returns the same graph, its edges read from the folder from here on. Raises CorruptAtlas where the graph names files
    that no ingest writes.
    """
    # Before anything is written: keys become names of files, and whoever may write to the graph chose them.
    for pair in graph.matched:
        if not is_file_name(pair["key"]):
            raise CorruptAtlas(f"the graph names matches {pair['key']!r}, which no ingest writes")
    # Both in the order of one statement (atlas.graph.records), so that a record meets its own features.
    for record, table in zip(records.values(), graph.nodes(FEATURE), strict=True):
        place = dictionary_folder(folder, record.id)
        drop_other_rows(place, record)
        place.mkdir(parents=True, exist_ok=True)
        _write_labels(place, table)
        # Last: a folder with a record is complete.
        if not (place / RECORD).exists():
            record.save(place)
        advance(len(table))
    pairs = {pair["key"]: pair for pair in graph.matched if not matches_file(folder, pair["key"]).exists()}
    for key, pair in pairs.items():
        table = graph.whole(pair)
        write(matches_file(folder, key), _pair(pair), staged_table(table))
        advance(len(table))
    return UnpackedGraph(graph, folder)


class UnpackedGraph(StoredGraph):
    """A graph whose nodes are read from its store, and its edges from the files that were staged from there."""

    def __init__(self, graph: StoredGraph, folder: Path) -> None:
        super().__init__(graph.store, graph.manifest)
        self.folder = folder

    def _table(self, type_: str, pair: Row) -> pa.Table:
        matches, fires_with = split(edge_table(read_table(matches_file(self.folder, pair["key"])), pair["gap"]))
        return fires_with if type_ == FIRES_WITH else matches


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


def _pair(row: Row) -> Pair:
    figures = {"floor": row["floor"], "floor_median": row["floor_median"], "fires_with": row["fires_with"] or 0}
    type_ = EDGE_OF_SITE[row["site"]]
    return Pair(row["later"], row["earlier"], type_, row["gap"], row["k"], row["edges"], **figures)

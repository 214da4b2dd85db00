"""The files of an atlas folder written from a graph alone: records, labels, staged matches.

Decoder and encoder rows are not in a graph; they are fetched from their sources when needed (atlas.rows_cache).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atlas.dictionary import Dictionary
from atlas.labels import FIGURES, TEXTS, Labels
from atlas.matches import Pair, write
from atlas.schema import EDGE_OF_SITE, FEATURE
from atlas.store import Batch, Row
from atlas.store_graph import StoreGraph
from atlas.tables import row_indices

if TYPE_CHECKING:
    import pyarrow as pa


def unpack(graph: StoreGraph, records: dict[str, Dictionary], folder: Path) -> None:
    """Write the files that `folder` lacks of an atlas with this graph and these records."""
    for record, table in zip(records.values(), graph.nodes(FEATURE), strict=True):
        place = folder / "dictionaries" / record.id
        place.mkdir(parents=True, exist_ok=True)
        labels = Labels(table.select([*TEXTS, *FIGURES]))
        if any(column.null_count < len(table) for column in labels.table.columns):  # type: ignore[union-attr]
            labels.save(place)
        if not (place / "dictionary.json").exists():
            record.save(place)
    pairs = {pair["key"]: pair for pair in graph.pairs}
    for type_ in EDGE_OF_SITE.values():
        for batch in graph.edges(type_):
            path = folder / "matches" / batch.key
            if not path.exists():
                write(path, _pair(pairs[batch.key], type_), _staged(batch))


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

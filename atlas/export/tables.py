"""A graph as tables: a Parquet or CSV file for each label and edge type.

    nodes/LABEL.parquet         the properties of atlas.schema, in its order
    edges/TYPE.parquet          `later`, `earlier` (ids of the two ends), then the properties

Every file is there, also where it has no rows. A pair of dictionaries is in memory at a time. CSV is written as
spreadsheets need it: text that begins like a formula gets an apostrophe before it, control characters become spaces;
Parquet holds text as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.export.text import without_controls
from atlas.graph.store import Graph
from atlas.graph.tables import conform, with_ids, written_schema
from atlas.schema import EDGES, FEATURE, MATCHED, NODES

if TYPE_CHECKING:
    import pyarrow as pa

Advance = Callable[[int], Any]
_FORMULA = r"^[=+\-@\t\r]"


def write_tables(graph: Graph, folder: Path, format_: str, advance: Advance) -> tuple[int, int]:
    """Write the files to an existing folder, `format_` parquet or csv; returns the numbers of nodes and edges.

    `advance` is called with the number of features and edges just written.
    """
    write = _parquet if format_ == "parquet" else _csv
    nodes = edges = 0
    for part in ("nodes", "edges"):
        (folder / part).mkdir()
    for node in NODES:
        found = (conform(node.label, table) for table in graph.nodes(node.label))
        told = advance if node.label == FEATURE else _quiet
        nodes += write(folder / "nodes" / node.label, node.label, found, told)
    for edge in EDGES:
        edges += write(folder / "edges" / edge.type, edge.type, _edges(graph, edge.type), advance)
    return nodes, edges


def _edges(graph: Graph, type_: str) -> Iterator[pa.Table]:
    if type_ == MATCHED:
        yield conform(MATCHED, graph.pairs())
        return
    for batch in graph.edges(type_):
        yield with_ids(batch)


def _quiet(_rows: int) -> None:
    """Rows that are not counted: those of records are few."""


def _parquet(path: Path, name: str, tables: Iterator[pa.Table], advance: Advance) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(path.with_suffix(".parquet"), written_schema(name), compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
            advance(len(table))
    return rows


def _csv(path: Path, name: str, tables: Iterator[pa.Table], advance: Advance) -> int:
    from pyarrow import csv

    rows = 0
    with csv.CSVWriter(path.with_suffix(".csv"), written_schema(name)) as writer:
        for table in tables:
            writer.write_table(_for_sheets(table))
            rows += len(table)
            advance(len(table))
    return rows


def _for_sheets(table: pa.Table) -> pa.Table:
    """The table with text that no spreadsheet takes for a formula (atlas.cli.output does the same)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = without_controls(table[field.name])
            quoted = pc.binary_join_element_wise("'", column, "")
            column = pc.if_else(pc.match_substring_regex(column, _FORMULA), quoted, column)
            table = table.set_column(place, field, column)
    return table

"""Bulk loading of a LadybugDB file.

1. The tables are declared from atlas.schema, with the macro that makes `type(r)` work as in Neo4j.
2. The parts of one table are put together in a Parquet file beside it until it holds ROWS rows.
3. That file is loaded by one COPY: one large COPY an edge type is several times faster, and the result an eighth of
   the size, than many small ones into a growing table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.graph.store import Graph
from atlas.graph.tables import END_COLUMNS, arrow_schema, conform
from atlas.schema import EDGES, FEATURE, NODES

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa

ROWS = 4_000_000  # of one COPY, which takes about 0.8 GB of memory
_PARQUET_ROWS = 1 << 17  # rows of a row group

Progress = Callable[[int], Any] | None


def create_tables(connection: ladybug.Connection) -> None:
    """Declare every table of the schema."""
    for node in NODES:
        connection.execute(f"CREATE NODE TABLE `{node.label}` ({_columns(node.properties)}, PRIMARY KEY (`id`))")
    for edge in EDGES:
        ends = f"FROM `{edge.label}` TO `{edge.label}`"
        connection.execute(f"CREATE REL TABLE `{edge.type}` ({ends}, {_columns(edge.properties)})")
    connection.execute("CREATE MACRO type(r) AS label(r)")


def load(connection: ladybug.Connection, graph: Graph, staging: Path, progress: Progress = None) -> None:
    """Load a whole graph into empty tables; `staging` is a folder for temporary files.

    Raises IngestError where a table lacks a column or holds a value that is not a number.
    """
    for node in NODES:
        counted = progress if node.label == FEATURE else None
        _copy(connection, node.label, graph.nodes(node.label), node.properties, staging, counted)
    for edge in EDGES:
        columns = END_COLUMNS | edge.properties
        tables = (batch.table for batch in graph.edges(edge.type))
        _copy(connection, edge.type, tables, columns, staging, progress)


def _columns(properties: dict[str, str]) -> str:
    return ", ".join(f"`{name}` {type_}" for name, type_ in properties.items())


def _copy(
    connection: ladybug.Connection,
    name: str,
    tables: Iterator[pa.Table],
    columns: dict[str, str],
    staging: Path,
    progress: Progress = None,
) -> None:
    """Load the tables' rows into the table `name`, ROWS at a time."""
    import pyarrow.parquet as pq

    schema = arrow_schema(columns)
    path = staging / "rows.parquet"
    pieces = _pieces(name, tables, columns)
    piece = next(pieces, None)
    while piece is not None:
        rows = 0
        with pq.ParquetWriter(path, schema, compression="none") as writer:
            while piece is not None and (rows == 0 or rows + piece.num_rows <= ROWS):
                writer.write_table(piece, row_group_size=_PARQUET_ROWS)
                rows += piece.num_rows
                piece = next(pieces, None)
        connection.execute(f'COPY `{name}` FROM "{_quoted(path)}"')
        path.unlink()
        if progress is not None:
            progress(rows)


def _pieces(name: str, tables: Iterator[pa.Table], columns: dict[str, str]) -> Iterator[pa.Table]:
    """The tables with exactly the schema's columns, in its order, in pieces of 1 to ROWS rows."""
    for table in tables:
        table = conform(name, table, columns)
        for start in range(0, table.num_rows, ROWS):
            yield table.slice(start, ROWS)


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')

"""Bulk loading of a LadybugDB file.

1. The tables are declared from atlas.schema, with the macro that makes `type(r)` work as in Neo4j.
2. The parts of one table are put together in a Parquet file beside it until it holds ROWS rows.
3. That file is loaded by one COPY: one large COPY an edge type is several times faster, and the result an eighth of
   the size, than many small ones into a growing table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.cli.progress import Advance
from atlas.graph.store import Graph
from atlas.graph.tables import conform, with_ids
from atlas.schema import EDGES, FEATURE, MATCHED, NODES

if TYPE_CHECKING:
    import ladybug
    import pyarrow as pa

ROWS = 2_000_000  # of one COPY, which takes about 0.4 GB of memory
_PARQUET_ROWS = 1 << 17  # rows of a row group


def create_tables(connection: ladybug.Connection) -> None:
    """Declare every table of the schema."""
    for node in NODES:
        connection.execute(f"CREATE NODE TABLE `{node.label}` ({_columns(node.properties)}, PRIMARY KEY (`id`))")
    for edge in EDGES:
        ends = f"FROM `{edge.label}` TO `{edge.label}`"
        connection.execute(f"CREATE REL TABLE `{edge.type}` ({ends}, {_columns(edge.properties)})")
    connection.execute("CREATE MACRO type(r) AS label(r)")


def load(connection: ladybug.Connection, graph: Graph, staging: Path, progress: Advance | None = None) -> None:
    """Load a whole graph into empty tables; `staging` is a folder for temporary files.

    Raises IngestError where a table lacks a column or holds a value that is not a number.
    """
    for node in NODES:
        counted = progress if node.label == FEATURE else None
        tables = (conform(node.label, table) for table in graph.nodes(node.label))
        _copy(connection, node.label, tables, staging, counted)
    for edge in EDGES:
        if edge.type == MATCHED:
            edges = iter([conform(MATCHED, graph.pairs())])
        else:
            edges = map(with_ids, graph.edges(edge.type))
        _copy(connection, edge.type, edges, staging, progress)


def _columns(properties: dict[str, str]) -> str:
    return ", ".join(f"`{name}` {type_}" for name, type_ in properties.items())


def _copy(
    connection: ladybug.Connection,
    name: str,
    tables: Iterator[pa.Table],
    staging: Path,
    progress: Advance | None = None,
) -> None:
    """Load the tables' rows into the table `name`, ROWS at a time."""
    import pyarrow.parquet as pq

    path = staging / "rows.parquet"
    pieces = (table.slice(start, ROWS) for table in tables for start in range(0, table.num_rows, ROWS))
    piece = next(pieces, None)
    kept = 0  # rows that the engine has in its buffer alone
    while piece is not None:
        rows = 0
        with pq.ParquetWriter(path, piece.schema, compression="none") as writer:
            while piece is not None and (rows == 0 or rows + piece.num_rows <= ROWS):
                writer.write_table(piece, row_group_size=_PARQUET_ROWS)
                rows += piece.num_rows
                piece = next(pieces, None)
        connection.execute(f'COPY `{name}` FROM "{_quoted(path)}"')
        kept += rows
        if kept >= ROWS:
            # Or all that was loaded would stay in the engine's buffer, whose size would limit the graph's.
            connection.execute("CHECKPOINT")
            kept = 0
        path.unlink()
        if progress is not None:
            progress(rows)


def _quoted(path: Path) -> str:
    """The path inside a statement's quotes, where the engine takes *, ? and [ for a pattern of many files."""
    literal = re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", str(path))
    return literal.replace("\\", "\\\\").replace('"', '\\"')

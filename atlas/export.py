"""An atlas as files for `neo4j-admin database import`: the fastest way into a new, empty Neo4j database.

    nodes/LABEL.csv             one file a label, its columns named in LABEL-header.csv; the id is a property too
    relationships/TYPE.csv      one file a type; `:START_ID` is the later feature, `:END_ID` the earlier
    schema.cypher               constraints and indexes; made when feature-atlas first opens the database, if not before
    import.sh                   the command

CSV and not Parquet, which neo4j-admin also knows: some releases of the server come without the classes to read that.
The imported database is the atlas, in the same state: it can be opened, and a folder that is bound to it goes on there.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import FolderError
from atlas.manifest import disk_errors
from atlas.neo4j_schema import statements
from atlas.schema import BOOLEAN, EDGES, FLOAT, INTEGER, MATCHED, NODES, STRING, EdgeTable
from atlas.store import Graph
from atlas.tables import END_COLUMNS, conform

if TYPE_CHECKING:
    import pyarrow as pa

_NODES, _EDGES = "nodes", "relationships"
_TYPES = {STRING: "", INTEGER: ":long", FLOAT: ":double", BOOLEAN: ":boolean"}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    nodes: int
    edges: int
    command: list[str]  # imports it, run in `folder`


def export_neo4j_admin(graph: Graph, folder: Path, progress: Callable[[int], Any] | None = None) -> Exported:
    """Write a graph's files to an empty or new folder; `progress` is called with the number of edges just written.

    Raises FolderError where the folder is not empty or cannot be written to.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FolderError(f"{folder} is not empty; export to a new folder")
    with disk_errors(folder):
        for part in (_NODES, _EDGES):
            (folder / part).mkdir(parents=True)
        nodes = {t.label: _nodes(folder, graph, t.label, t.properties) for t in NODES}
        edges = {t.type: _edges(folder, graph, t, progress) for t in EDGES}
        command = _command([n for n, rows in nodes.items() if rows], [n for n, rows in edges.items() if rows])
        (folder / "schema.cypher").write_text("".join(f"{statement};\n" for statement in statements()))
        (folder / "import.sh").write_text(
            "#!/bin/sh\n# Into an empty database, with the server stopped; NEO4J_HOME is the server's.\nset -e\n"
            f'cd "$(dirname "$0")"\n{shlex.join(command)}\n'
        )
        (folder / "import.sh").chmod(0o755)
    return Exported(folder, sum(nodes.values()), sum(edges.values()), command)


def _command(labels: list[str], types: list[str]) -> list[str]:
    def files(part: str, name: str) -> str:
        return f"--{part}={name}={part}/{name}-header.csv,{part}/{name}.csv"

    nodes, edges = [files(_NODES, label) for label in labels], [files(_EDGES, type_) for type_ in types]
    # Imported labels may have line feeds in them.
    return ["neo4j-admin", "database", "import", "full", "neo4j", "--multiline-fields=true", *nodes, *edges]


def _nodes(folder: Path, graph: Graph, label: str, columns: dict[str, str]) -> int:
    """Write the nodes of a label; returns their number."""
    header = [f"id:ID({label})" if name == "id" else f"{name}{_TYPES[type_]}" for name, type_ in columns.items()]
    return _write(folder / _NODES / label, header, (conform(label, table, columns) for table in graph.nodes(label)))


def _edges(folder: Path, graph: Graph, edge: EdgeTable, progress: Callable[[int], Any] | None) -> int:
    """Write the edges of a type; returns their number."""
    header = [f":START_ID({edge.label})", f":END_ID({edge.label})"]
    header += [f"{name}{_TYPES[type_]}" for name, type_ in edge.properties.items()]
    columns = END_COLUMNS | edge.properties
    tables = (conform(edge.type, batch.table, columns) for batch in graph.edges(edge.type))
    if edge.type == MATCHED:  # as many edges as there are have been written (atlas.neo4j_write)
        header.append("written:long")
        tables = (table.append_column("written", table["edges"]) for table in tables)
    return _write(folder / _EDGES / edge.type, header, tables, progress)


def _write(
    path: Path, header: list[str], tables: Iterator[pa.Table], progress: Callable[[int], Any] | None = None
) -> int:
    """Write `path`-header.csv and `path`.csv; returns the number of rows."""
    from pyarrow import csv

    path.with_name(f"{path.name}-header.csv").write_text(",".join(header) + "\n")
    rows, writer = 0, None
    try:
        for table in tables:
            if writer is None:
                options = csv.WriteOptions(include_header=False)
                writer = csv.CSVWriter(path.with_name(f"{path.name}.csv"), table.schema, write_options=options)
            writer.write_table(table)
            rows += len(table)
            if progress is not None:
                progress(len(table))
    finally:
        if writer is not None:
            writer.close()
    return rows

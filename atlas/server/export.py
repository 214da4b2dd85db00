"""An atlas as files for `neo4j-admin database import`: the fastest way into a new, empty Neo4j database.

    nodes/LABEL.csv             one file a label, its columns named in LABEL-header.csv; `:ID` numbers its nodes from 0
    relationships/TYPE.csv      one file a type; `:START_ID` numbers the later feature, `:END_ID` the earlier
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
from atlas.folder.manifest import disk_errors
from atlas.graph.store import Graph
from atlas.graph.tables import conform
from atlas.schema import (
    BOOLEAN,
    DICTIONARY,
    EDGES,
    FEATURE,
    FLOAT,
    INTEGER,
    MATCHED,
    NODES,
    STRING,
    EdgeTable,
    NodeTable,
)
from atlas.server.schema import statements

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
    """Write a graph's files to an empty or new folder; `progress` is called with the number of features and edges just
    written.

    Raises FolderError where the folder is not empty or cannot be written to.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FolderError(f"{folder} is not empty; export to a new folder")
    with disk_errors(folder):
        for part in (_NODES, _EDGES):
            (folder / part).mkdir(parents=True)
        files = _Files(folder, progress)
        nodes = {table.label: files.nodes(graph, table) for table in NODES}
        edges = {table.type: files.edges(graph, table) for table in EDGES}
        # Where there are no rows there is a header and no file, and the import would miss it.
        command = files.command([name for name, rows in (nodes | edges).items() if rows])
        (folder / "schema.cypher").write_text("".join(f"{statement};\n" for statement in statements()))
        (folder / "import.sh").write_text(
            "#!/bin/sh\n# Into a new database, with the server stopped; NEO4J_HOME is the server's.\n"
            "# Where it ran before: import.sh --overwrite-destination, which drops what is there.\nset -e\n"
            f'cd "$(dirname "$0")"\n"${{NEO4J_HOME:+$NEO4J_HOME/bin/}}neo4j-admin" {shlex.join(command[1:])} "$@"\n'
        )
        (folder / "import.sh").chmod(0o755)
    return Exported(folder, sum(nodes.values()), sum(edges.values()), command)


class _Files:
    """The files of one export; nodes first, their numbers are known then."""

    def __init__(self, folder: Path, progress: Callable[[int], Any] | None) -> None:
        self.folder = folder
        self.progress = progress
        self._dictionaries: dict[str, int] = {}  # a dictionary's number
        self._features: dict[str, int] = {}  # the number of a dictionary's first feature
        self._line_feeds = False  # whether a text of a node has one

    def command(self, names: list[str]) -> list[str]:
        """The import of the files with these labels and types."""
        command = ["neo4j-admin", "database", "import", "full", "neo4j", "--id-type=integer"]
        if self._line_feeds:  # costs a fifth of the speed
            command.append("--multiline-fields=true")
        for part, tables in ((_NODES, [t.label for t in NODES]), (_EDGES, [t.type for t in EDGES])):
            command += [f"--{part}={n}={part}/{n}-header.csv,{part}/{n}.csv" for n in tables if n in names]
        return command

    def nodes(self, graph: Graph, of: NodeTable) -> int:
        """Write the nodes of a label; returns their number."""
        header = [f":ID({of.label})", *(f"{name}{_TYPES[type_]}" for name, type_ in of.properties.items())]
        progress = self.progress if of.label == FEATURE else None
        return _write(self.folder / _NODES / of.label, header, self._numbered(graph, of), progress)

    def edges(self, graph: Graph, of: EdgeTable) -> int:
        """Write the edges of a type; returns their number."""
        header = [f":START_ID({of.label})", f":END_ID({of.label})"]
        header += [f"{name}{_TYPES[type_]}" for name, type_ in of.properties.items()]
        if of.type == MATCHED:  # as many edges as there are have been written (atlas.server.edges)
            header.append("written:long")
        return _write(self.folder / _EDGES / of.type, header, self._between(graph, of), self.progress)

    def _numbered(self, graph: Graph, of: NodeTable) -> Iterator[pa.Table]:
        """A label's tables, with the numbers of their nodes first."""
        import pyarrow as pa
        import pyarrow.compute as pc

        start = 0
        for table in graph.nodes(of.label):
            table = conform(of.label, table)
            numbers = range(start, start + len(table))
            if of.label == DICTIONARY:
                self._dictionaries |= zip(table["id"].to_pylist(), numbers, strict=True)
            elif of.label == FEATURE and len(table):
                self._features[table["dictionary"][0].as_py()] = start
            for field in table.schema:
                if not self._line_feeds and pa.types.is_string(field.type):
                    self._line_feeds = bool(pc.any(pc.match_substring_regex(table[field.name], "[\r\n]")).as_py())
            yield table.add_column(0, "number", pa.array(numbers, pa.int64()))
            start += len(table)

    def _between(self, graph: Graph, of: EdgeTable) -> Iterator[pa.Table]:
        """A type's tables, with the numbers of both ends for their ids."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if of.type == MATCHED:
            table = conform(MATCHED, graph.pairs())
            for place, end in enumerate(("later", "earlier")):
                numbers = pa.array([self._dictionaries[id_] for id_ in table[end].to_pylist()], pa.int64())
                table = table.set_column(place, end, numbers)
            # Both kinds count (atlas.server.edges); a graph may not know of the second.
            yield table.append_column("written", pc.add(table["edges"], pc.coalesce(table["fires_with"], 0)))
            return
        for batch in graph.edges(of.type):
            table = conform(of.type, batch.table)
            for place, (end, dictionary) in enumerate((("later", batch.later), ("earlier", batch.earlier))):
                # In the graph the features of a dictionary stand in the order of their rows.
                table = table.set_column(place, end, pc.add(table[end], self._features[dictionary]))
            yield table


def _write(
    path: Path, header: list[str], tables: Iterator[pa.Table], progress: Callable[[int], Any] | None = None
) -> int:
    """Write `path`-header.csv and `path`.csv; returns the number of rows."""
    from pyarrow import csv

    path.with_name(f"{path.name}-header.csv").write_text(",".join(header) + "\n")
    rows, writer = 0, None
    try:
        for table in tables:
            # What the columns are is known from the first table only.
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

"""An atlas exported: which graph, in which format, to which folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.cli.progress import Progress
from atlas.errors import FolderError
from atlas.export.folder import new_folder
from atlas.export.graphml import write_graphml
from atlas.export.grass import write_grass
from atlas.export.selection import select
from atlas.export.tables import write_tables
from atlas.folder.paths import matches_file
from atlas.graph.stored import StoredGraph
from atlas.graph.unpack import UnpackedGraph

if TYPE_CHECKING:
    from atlas.atlas import Atlas

TABLES = ("parquet", "csv")
GRAPHML, GRASS, NEO4J_ADMIN = "graphml", "grass", "neo4j-admin"
FORMATS = (NEO4J_ADMIN, *TABLES[:1], GRAPHML, *TABLES[1:], GRASS)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    nodes: int
    edges: int
    command: tuple[str, ...] = ()  # imports it, run in `folder`; empty where files are opened as they are


def export_atlas(
    atlas: Atlas, folder: Path, format_: str, *, cypher: str | None = None, progress: Progress | None = None
) -> Exported:
    """Write an atlas' graph, or a part of it, to a new folder, which is whole or not there.

    Args:
        format_: parquet, csv (atlas.export.tables), graphml or neo4j-admin (atlas.server.export).
        cypher: a statement whose column `feature` names the features to export, with the edges among them; None: all.

    Raises FolderError where the folder is not empty, cannot be written to, or the format takes no selection;
    QueryError, UnknownFeature.
    """
    progress = progress or Progress(quiet=True)
    if cypher is not None and format_ == NEO4J_ADMIN:
        raise FolderError("neo4j-admin imports a whole atlas; a selection goes into parquet, csv or graphml")
    whole = _graph(atlas)
    graph = whole if cypher is None else select(atlas, whole, cypher)
    with new_folder(folder) as place, progress.steps("export", whole.size, "rows") as advance:
        if format_ == NEO4J_ADMIN:
            from atlas.server.export import export_neo4j_admin

            exported = export_neo4j_admin(whole, place, advance)
            return Exported(folder, exported.nodes, exported.edges, tuple(exported.command))
        if format_ == GRAPHML:
            return Exported(folder, *write_graphml(graph, place, advance))
        return Exported(folder, *write_tables(graph, place, format_, advance))


def export_grass(folder: Path) -> list[Path]:
    """Write how Neo4j Browser shows any atlas to a new folder; returns the files."""
    with new_folder(folder) as place:
        return [folder / path.name for path in write_grass(place)]


def _graph(atlas: Atlas) -> StoredGraph:
    """The atlas' graph; its edges from staged files where the folder has all of them, which are read a hundred times
    faster than from a store."""
    graph = StoredGraph(atlas.store, atlas.manifest)
    path = atlas.path
    if path is not None and all(matches_file(path, pair["key"]).exists() for pair in graph.matched):
        return UnpackedGraph(graph, path)
    return graph

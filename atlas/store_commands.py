"""Commands about where an atlas is kept: init, copy, export."""

from __future__ import annotations

from pathlib import Path

import click

from atlas.options import atlas_option

database_option = click.option(
    "--database", metavar="NAME", help="The database on the server.  [default: the server's own]"
)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", required=True, metavar="ADDRESS", help="A server: neo4j://host:7687, bolt+s://…")
@database_option
def init(folder: Path, store: str, database: str | None) -> None:
    """Bind DIR to a Neo4j database: the graph lives there, rows and staged matches in DIR.

    User and password come from NEO4J_USERNAME and NEO4J_PASSWORD; they are never stored. Everything then works with DIR
    as with any atlas, and with the server's address where the graph is enough. Where the database holds an atlas
    already, DIR takes that one on.

    \b
    feature-atlas init my-atlas --store neo4j://localhost:7687
    feature-atlas ingest path/to/dictionaries -a my-atlas
    feature-atlas lineage smollm2-135m-instruct/9-res-2k/14 -a neo4j://localhost:7687
    """
    from atlas.address import ServerAddress
    from atlas.binding import bind

    manifest = bind(folder, ServerAddress.parse(store, database))
    there = f"{len(manifest.dictionaries)} dictionaries" if manifest.state else "no atlas yet: fill it with ingest"
    click.echo(f"{folder} is bound to {manifest.store} ({there})")


@click.command()
@atlas_option
@click.option("--to", required=True, metavar="ADDRESS", help="A server's address, or a folder.")
@database_option
def copy(atlas: str | None, to: str, database: str | None) -> None:
    """Copy an atlas to another store: from a laptop's folder to a server, or back.

    What an interrupted copy wrote is kept: repeat the command. At the end both sides are counted, and the edges of both
    digested in Cypher and compared. A folder copied from a server has no rows; they are fetched from the dictionaries'
    sources when they are needed.

    \b
    feature-atlas copy -a my-atlas --to neo4j://localhost:7687
    feature-atlas copy -a neo4j://localhost:7687 --to my-atlas-again
    """
    from atlas import open_atlas
    from atlas.copying import copy_atlas
    from atlas.progress import Progress

    with open_atlas(atlas) as opened:
        copied = copy_atlas(opened, to, database=database, progress=Progress())
    counts = ", ".join(f"{count:,} {label}" for label, count in copied.digest.nodes.items() if count)
    click.echo(f"{copied.address}: {counts}, {copied.digest.edges:,} edges, digest {copied.digest.sha256[:16]} on both")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@atlas_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(("neo4j-admin",)),
    default="neo4j-admin",
    show_default=True,
    help="neo4j-admin: CSV files and the command that makes a Neo4j database of them.",
)
def export(folder: Path, atlas: str | None, format_: str) -> None:
    """Write the graph as files for other tools to DIR.

    Prints the command that imports them; it is also in DIR/import.sh. It makes a whole database, several times faster
    than `copy`, into an empty one of a server that is stopped.

    \b
    feature-atlas export atlas-files -a my-atlas
    NEO4J_HOME=/path/to/neo4j atlas-files/import.sh
    """
    from atlas import open_atlas
    from atlas.export import export_neo4j_admin
    from atlas.progress import Progress
    from atlas.store_graph import StoreGraph

    with open_atlas(atlas) as opened:
        graph = StoreGraph(opened.store, opened.manifest)
        with Progress().steps("graph", graph.size, "rows") as advance:
            exported = export_neo4j_admin(graph, folder, advance)
    click.echo(
        f"{exported.nodes:,} nodes, {exported.edges:,} edges written to {folder}; import them there with", err=True
    )
    click.echo(" ".join(exported.command))

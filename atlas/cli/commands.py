"""Commands that need the atlas alone: info, query, init, copy, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from atlas.cli.options import ASSIGNMENT, atlas_option, format_option


@click.command()
@atlas_option
@click.option("--pairs", is_flag=True, help="The pairs of dictionaries with their noise floors instead.")
@click.option("--runs", is_flag=True, help="The ingests that made the atlas instead.")
@format_option
def info(atlas: str | None, pairs: bool, runs: bool, format_: str) -> None:
    """What an atlas holds: models, dictionaries, counts, life cycles, pairs, runs, store, disk.

    \b
    feature-atlas info
    feature-atlas info --pairs
    feature-atlas info --format json | jq .
    """
    from atlas import open_atlas
    from atlas.cli.info import dictionary_rows, pair_rows, people_columns, run_rows, summary
    from atlas.cli.output import lines, print_rows
    from atlas.cli.progress import Progress

    with open_atlas(atlas) as opened, Progress().waiting("info"):
        told = summary(opened) if not pairs and not runs and format_ == "table" else {}
        columns, rows = (pair_rows if pairs else run_rows if runs else dictionary_rows)(opened)
        names = opened.names
    if told:
        click.echo(lines(told) + "\n")
        columns = people_columns(columns, rows)
    print_rows(rows, columns, format_, names=names)


@click.command()
@click.argument("cypher")
@atlas_option
@click.option(
    "--param", "parameters", multiple=True, type=ASSIGNMENT, help="A parameter; its value is JSON, else text."
)
@click.option("--limit", default=1000, show_default=True, metavar="N", help="Most rows to print; 0: all.")
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="When to give up.")
@format_option
def query(
    cypher: str, atlas: str | None, parameters: tuple[tuple[str, Any], ...], limit: int, timeout: float, format_: str
) -> None:
    """Ask the graph in Cypher, read-only and bounded. `-` reads the statement from stdin.

    \b
    feature-atlas query 'MATCH (f:Feature {lifecycle: "appears"}) RETURN f.id, f.origin LIMIT 5'
    feature-atlas query 'MATCH (f:Feature {layer: $l}) RETURN count(*) AS n' --param l=9
    echo 'MATCH (d:Dictionary) RETURN d.id' | feature-atlas query - --format csv
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress

    if limit < 0 or timeout <= 0:
        raise click.UsageError("--limit must be 0 or more, --timeout more than 0")
    text = sys.stdin.read() if cypher == "-" else cypher
    with open_atlas(atlas) as opened, Progress().waiting("query"):
        answer = opened.answer(text, dict(parameters), limit=limit, timeout=timeout)
    print_rows(answer.rows, answer.columns, format_)
    if answer.more:
        click.echo(f"cut after {limit} rows; --limit 0 prints all", err=True)


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
    from atlas.graph.binding import bind

    manifest = bind(folder, ServerAddress.parse(store, database))
    there = f"{len(manifest.dictionaries)} dictionaries" if manifest.state else "no atlas yet: fill it with ingest"
    click.echo(f"{folder} is bound to {manifest.store} ({there})")


@click.command()
@atlas_option
@click.option("--to", required=True, metavar="ADDRESS", help="A server's address, or a folder.")
@database_option
@click.option("--replace", is_flag=True, help="Replace another state of this atlas that is there; it is lost.")
@click.option(
    "--dress", "dressed", is_flag=True, help="On a server: labels :Res, :Mlp, :Att, edges IN and OF, to look at."
)
@click.option("--vectors", is_flag=True, help="On a server: decoder rows with a vector index, for `ask similar-to`.")
def copy(atlas: str | None, to: str, database: str | None, replace: bool, dressed: bool, vectors: bool) -> None:
    """Copy an atlas to another store: from a laptop's folder to a server, or back.

    What an interrupted copy wrote is kept: repeat the command. Another atlas is never replaced, another state of the
    same only with --replace. At the end both sides are counted, and the edges of both digested in Cypher and compared.
    A folder copied from a server has no rows; they are fetched from the dictionaries'
    sources when they are needed.

    \b
    feature-atlas copy -a my-atlas --to neo4j://localhost:7687
    feature-atlas copy -a neo4j://localhost:7687 --to my-atlas-again
    feature-atlas copy -a my-atlas --to neo4j://localhost:7687 --replace
    feature-atlas copy -a my-atlas --to neo4j://localhost:7687 --dress --vectors

    --dress and --vectors are no part of the graph, and may be added by copying once more; after a later ingest the same
    command renews them.
    """
    from atlas import open_atlas
    from atlas.cli.progress import Progress
    from atlas.graph.copying import copy_atlas

    with open_atlas(atlas) as opened:
        extras = {"dressed": dressed, "vectors": vectors}
        copied = copy_atlas(opened, to, database=database, replace=replace, **extras, progress=Progress())
    counts = ", ".join(f"{count:,} {label}" for label, count in copied.digest.nodes.items() if count)
    click.echo(f"{copied.address}: {counts}, {copied.digest.edges:,} edges, digest {copied.digest.sha256[:16]} on both")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@atlas_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(("neo4j-admin", "parquet", "graphml", "csv", "grass")),
    default="neo4j-admin",
    show_default=True,
    help="For Neo4j's bulk import, for tables, for graph tools, or a style for Neo4j Browser.",
)
@click.option("--cypher", metavar="QUERY", help="Only the features it returns, as column feature, and their edges.")
def export(folder: Path, atlas: str | None, format_: str, cypher: str | None) -> None:
    """Write the graph as files for other tools to DIR.

    DIR is a new folder; an export that is broken off leaves none.

    parquet, csv: a table for each label and edge type. graphml: features and the edges between them, for Gephi or
    networkx. neo4j-admin: CSV files; prints the command that makes a whole database of them, several times faster than
    `copy`, on a server that is stopped (it is also in DIR/import.sh). grass: a style and saved queries for Neo4j
    Browser; needs no atlas.

    \b
    feature-atlas export atlas-files --format parquet
    feature-atlas export war --format graphml --cypher 'MATCH (f:Feature) WHERE f.fires_on CONTAINS "war"
        RETURN f.id AS feature'
    feature-atlas export atlas-files -a my-atlas
    NEO4J_HOME=/path/to/neo4j atlas-files/import.sh
    """
    from atlas import open_atlas
    from atlas.cli.progress import Progress
    from atlas.export.job import GRASS, export_atlas, export_grass

    if format_ == GRASS:
        if cypher is not None:
            raise click.UsageError("--cypher selects features, and a style is the same for all")
        for path in export_grass(folder):
            click.echo(path)
        return
    with open_atlas(atlas) as opened:
        exported = export_atlas(opened, folder, format_, cypher=cypher, progress=Progress())
    written = f"{exported.nodes:,} nodes, {exported.edges:,} edges written to {folder}"
    click.echo(written + ("; import them there with" if exported.command else ""), err=True)
    # What is printed is what comes next: the command that imports the files, or the files.
    files = (str(path) for path in sorted(folder.rglob("*")) if path.is_file())
    click.echo(" ".join(exported.command) if exported.command else "\n".join(files))

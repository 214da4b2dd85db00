"""Commands that need the atlas alone: info, query."""

from __future__ import annotations

import sys
from typing import Any

import click

from atlas.options import ASSIGNMENT, atlas_option, format_option


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
    from atlas.info import dictionary_rows, pair_rows, run_rows, summary
    from atlas.output import print_rows

    with open_atlas(atlas) as opened:
        if not pairs and not runs and format_ == "table":
            click.echo("\n".join(f"{name:<12} {value}" for name, value in summary(opened).items()) + "\n")
        columns, rows = (pair_rows if pairs else run_rows if runs else dictionary_rows)(opened)
        print_rows(rows, columns, format_)


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
    from atlas.output import print_rows

    if limit < 0 or timeout <= 0:
        raise click.UsageError("--limit must be 0 or more, --timeout more than 0")
    text = sys.stdin.read() if cypher == "-" else cypher
    with open_atlas(atlas) as opened:
        answer = opened.answer(text, dict(parameters), limit=limit, timeout=timeout)
        print_rows(answer.rows, answer.columns, format_)
    if answer.more:
        click.echo(f"cut after {limit} rows; --limit 0 prints all", err=True)

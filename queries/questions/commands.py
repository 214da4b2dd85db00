"""The command that asks a named question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlas.cli.options import ASSIGNMENT, atlas_option, complete_features, output_option
from atlas.cli.output import FORMATS, PICTURES, terminal_width


def _complete_questions(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    from queries.questions.questions import QUESTIONS

    return [name for name in QUESTIONS if name.startswith(typed)]


@click.command()
@click.argument("question", required=False, shell_complete=_complete_questions)
@click.argument("features", nargs=-1, metavar="[FEATURE]...", shell_complete=complete_features)
@atlas_option
@click.option("--param", "parameters", multiple=True, type=ASSIGNMENT, help="A parameter of the question (JSON).")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Most rows.")
@click.option("--show", is_flag=True, help="Print the question's Cypher instead; needs no atlas.")
@click.option(
    "--format",
    "format_",
    type=click.Choice((*FORMATS, *PICTURES)),
    default="table",
    show_default=True,
    help="How rows are printed; a picture where they are edges: path, twins, strongest.",
)
@output_option
def ask(
    question: str | None,
    features: tuple[str, ...],
    atlas: str | None,
    parameters: tuple[tuple[str, Any], ...],
    limit: int,
    show: bool,
    format_: str,
    output: Path | None,
) -> None:
    """Ask a named QUESTION; without one, list them all.

    \b
    feature-atlas ask
    feature-atlas ask born-here --param layer=9
    feature-atlas ask path smollm2-135m-instruct/11-res-2k/14 smollm2-135m-instruct/8-res-2k/7
    feature-atlas ask hubs --show
    """
    from atlas import open_atlas
    from atlas.cli.output import deliver, print_rows, render
    from atlas.cli.progress import Progress
    from queries.questions.questions import QUESTIONS, find_question
    from queries.questions.questions import ask as answer

    # Before an atlas is opened: the list is the same for all.
    if question is None:
        rows = [
            {"question": name, "features": len(q.features), "parameters": ", ".join(q.parameters), "about": q.about}
            for name, q in QUESTIONS.items()
        ]
        if format_ == "table":
            click.echo(_listed(rows), nl=False)
        else:
            print_rows(rows, ("question", "features", "parameters", "about"), format_)
        return
    if "limit" in dict(parameters):
        raise click.UsageError("the number of rows is set by --limit, not by --param")
    asked = find_question(question)
    if show:
        click.echo(asked.cypher.strip())
        return
    with open_atlas(atlas) as opened, Progress().waiting(question):
        # One more than is shown, so that it can be said that rows were cut.
        rows = answer(opened, question, *features, limit=limit + 1, **dict(parameters))
        graph, names = None, opened.names
        if format_ in PICTURES:
            from queries.questions.answer_graph import answer_graph

            graph = answer_graph(opened, asked, rows[:limit])
    if graph is not None:
        from queries.lineage.draw import draw, painted

        deliver(painted(graph) if format_ == "png" else draw(graph, format_), output)
    elif output is not None:
        deliver(render(rows[:limit], asked.columns, format_), output)
    else:
        print_rows(rows, asked.columns, format_, most=limit, names=names)
        return
    if len(rows) > limit:
        click.echo(f"cut after {limit} rows; --limit N gives more", err=True)


def _listed(rows: list[dict[str, Any]]) -> str:
    """The questions as help lists commands: a table would have no room for what they mean."""
    formatter = click.HelpFormatter(width=terminal_width(100))
    formatter.write_dl(
        [
            (
                " ".join([row["question"], *["FEATURE"] * row["features"]]),
                row["about"] + (f" (--param {row['parameters']})" if row["parameters"] else ""),
            )
            for row in rows
        ],
        col_max=32,
    )
    return formatter.getvalue()

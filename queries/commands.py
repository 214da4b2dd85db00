"""Commands that ask the graph: lineage, ask, search, show."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from atlas.cli.options import (
    ASSIGNMENT,
    THRESHOLD,
    atlas_option,
    by_option,
    complete_dictionaries,
    complete_features,
    format_option,
    output_option,
)
from atlas.cli.output import FORMATS, terminal_width
from atlas.ids import SITES

PICTURES = ("svg", "html", "png")  # what a graph is drawn as, besides text


@click.command()
@click.argument("feature", shell_complete=complete_features)
@atlas_option
@click.option("--back", type=click.IntRange(0), metavar="N", help="Residual steps back.  [default: all]")
@click.option("--forward", type=click.IntRange(0), metavar="N", help="Residual steps forward.  [default: all]")
@click.option("--min-res", type=THRESHOLD, help="Where the walk along the stream ends.  [default: the atlas' own]")
@click.option(
    "--min-module", type=THRESHOLD, help="Smallest cosine of mlp and att features.  [default: the atlas' own]"
)
@click.option("--k", type=click.IntRange(1), default=1, show_default=True, help="Matches followed at each step.")
@by_option
@click.option(
    "--min-cofire",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Only edges whose earlier feature fires at this share of the later's positions (evidence edges).",
)
@click.option("--on", metavar="TEXT", help="The graph of one occurrence in this text instead, from activations.")
@click.option("--token", type=click.IntRange(0), metavar="N", help="Of the text.  [default: where it is strongest]")
@click.option("--verify", is_flag=True, help="Take each predecessor away in a forward pass, and print what falls.")
@click.option("--model", metavar="NAME_OR_FOLDER", help="What reads the text.  [default: the atlas' own model]")
@click.option("--device", default="auto", show_default=True, help="Where it runs: auto, cpu or cuda:N.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(("tree", "json", "mermaid", "dot", "graphml", *PICTURES)),
    default="tree",
    show_default=True,
    help="How the graph is drawn.",
)
@output_option
def lineage(
    feature: str,
    atlas: str | None,
    back: int | None,
    forward: int | None,
    min_res: Any,
    min_module: Any,
    k: int,
    by: str,
    min_cofire: float | None,
    on: str | None,
    token: int | None,
    verify: bool,
    model: str | None,
    device: str,
    format_: str,
    output: Path | None,
) -> None:
    """The flow graph of a FEATURE: where it comes from, where it goes, what writes to it on the way.

    A threshold may be `floor`: the noise floor of each pair of dictionaries. The atlas' own are those of its ingest;
    `info` names them. Of a feature that stands alone it says what lay just below. --by says what the best matches are
    best by: the cosine of their rows, or push, what one unit of the earlier adds to the later's pre-activation. svg and
    png are pictures; html is one file with the picture and its table, which opens offline.

    With --on the edges are those of one token: the --k predecessors in each dictionary whose activation × push is the
    largest share of the later feature's pre-activation, and for each feature what no edge stands for.

    \b
    feature-atlas lineage smollm2-135m-instruct/9-res-2k/14
    feature-atlas lineage smollm2-135m-instruct/9-res-2k/14 --min-res floor --min-module floor
    feature-atlas lineage smollm2-135m-instruct/9-res-2k/14 --k 2 --format mermaid
    feature-atlas lineage smollm2-135m-instruct/9-res-2k/14 --format html -o lineage.html
    feature-atlas lineage smollm2-135m-instruct/9-res-2k/14 --on "The film was shown in every village." --verify
    """
    from atlas import open_atlas
    from atlas.cli.output import deliver
    from queries.below import just_below
    from queries.draw import draw, painted
    from queries.lineage import lineage
    from queries.tree import WIDTH

    if on is None:
        chosen: dict[str, Any] = {"forward": forward, "min_res": min_res, "min_module": min_module, "by": by}
        chosen["min_cofire"] = min_cofire
        _only_with("--on", token=token, verify=verify or None, model=model)
    else:
        _without_on()
        chosen = {"on": on, "token": token, "verify": verify}
    with open_atlas(atlas) as opened:
        if on is not None:
            from queries.steer.commands import announced_model

            name = model or opened.locate(feature)[0].model_name
            chosen["model"], chosen["tokenizer"] = announced_model(name, device)
        graph = lineage(opened, feature, back=back, k=k, **chosen)
        below = just_below(opened, graph) if on is None else []
    deliver(painted(graph) if format_ == "png" else draw(graph, format_, terminal_width(WIDTH)), output)
    for line in below:
        click.echo(line, err=True)


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


def _complete_questions(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    from queries.questions import QUESTIONS

    return [name for name in QUESTIONS if name.startswith(typed)]


def _only_with(option: str, **others: Any) -> None:
    """Raise UsageError where options are given that have a meaning only beside another."""
    for name, value in others.items():
        if value is not None:
            raise click.UsageError(f"--{name} belongs to {option}")


def _without_on() -> None:
    """Raise UsageError where options are given that have no part in the graph of a text."""
    context = click.get_current_context()
    for name in ("forward", "min_res", "min_module", "by", "min_cofire"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} has no part in the graph of a text: it goes by shares")


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
    from queries.questions import QUESTIONS, find_question
    from queries.questions import ask as answer

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
        graph, model = None, opened.only_model
        if format_ in PICTURES:
            from queries.answer_graph import answer_graph

            graph = answer_graph(opened, asked, rows[:limit])
    if graph is not None:
        from queries.draw import draw, painted

        deliver(painted(graph) if format_ == "png" else draw(graph, format_), output)
    elif output is not None:
        deliver(render(rows[:limit], asked.columns, format_), output)
    else:
        print_rows(rows, asked.columns, format_, most=limit, model=model)
        return
    if len(rows) > limit:
        click.echo(f"cut after {limit} rows; --limit N gives more", err=True)


@click.command()
@click.argument("text")
@atlas_option
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Most rows.")
@click.option("--site", type=click.Choice(SITES), help="Only features of this site.")
@click.option("--layer", type=int, metavar="N", help="Only features of this layer.")
@format_option
def search(text: str, atlas: str | None, limit: int, site: str | None, layer: int | None, format_: str) -> None:
    """Features by label, by the tokens they fire on, by the tokens they promote.

    All words of TEXT must be there. Whole words come first, then features that fire on a word more than on any other,
    then those that fire on few others.

    \b
    feature-atlas search war
    feature-atlas search 'sheep wool' --site res --layer 9
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.search import COLUMNS, advice, people_columns, search

    with open_atlas(atlas) as opened, Progress().waiting("search"):
        # One more than is shown, so that it can be said that rows were cut.
        rows = search(opened, text, limit=limit + 1, site=site, layer=layer)
        advised, model = advice(opened, rows), opened.only_model
    print_rows(rows, people_columns(rows) if format_ == "table" else COLUMNS, format_, most=limit, model=model)
    if advised:
        click.echo(advised, err=True)


@click.command()
@click.argument("feature", shell_complete=complete_features)
@atlas_option
@click.option("--most", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="Matches a dictionary.")
@by_option
@format_option
def show(feature: str, atlas: str | None, most: int, by: str, format_: str) -> None:
    """Everything that the atlas knows of a FEATURE: scores, words, best matches, contexts.

    \b
    feature-atlas show smollm2-135m-instruct/9-res-2k/14
    feature-atlas show smollm2-135m-instruct/9-res-2k/14 --format json
    """
    from atlas import open_atlas
    from atlas.cli.output import fit, print_rows, printable
    from queries.matches import COSINE
    from queries.show import COLUMNS, MATCH_COLUMNS, show

    with open_atlas(atlas) as opened:
        rows, model = show(opened, feature, most=most, by=by), opened.only_model
    figure = () if by == COSINE else (by,)
    if format_ != "table":
        print_rows(rows, (*COLUMNS, *figure), format_)
        return
    parts: dict[str, list[dict[str, Any]]] = {"feature": [], "earlier": [], "later": [], "context": []}
    for row in rows:
        parts[row.pop("part")].append(row)
    for name, value in parts["feature"][0].items():
        if value is not None:
            click.echo(f"{name:<14} " + (f"{value:.4g}" if isinstance(value, float) else printable(str(value))))
    for title, part in (("comes from", "earlier"), ("goes to", "later")):
        if parts[part]:
            click.echo(f"\n{title}")
            said = [name for name in MATCH_COLUMNS if name not in ("site", "layer")]  # by the id
            print_rows(parts[part], (*said, *figure), model=model)
    width = shutil.get_terminal_size().columns
    if parts["context"]:
        click.echo("\ncontexts")
    for row in parts["context"]:
        click.echo("  " + fit(printable(row["context"]), width - 2))


@click.command()
@click.argument("feature", required=False, shell_complete=complete_features)
@atlas_option
@click.option(
    "--in",
    "dictionaries",
    multiple=True,
    metavar="DICTIONARY",
    shell_complete=complete_dictionaries,
    help="Where to look; repeatable; all: all.",
)
@click.option(
    "--vector", type=click.Path(path_type=Path), metavar="FILE", help="A direction instead: .npy or JSON list."
)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Most rows.")
@format_option
def neighbours(
    feature: str | None, atlas: str | None, dictionaries: tuple[str, ...], vector: Path | None, top: int, format_: str
) -> None:
    """The features nearest to a FEATURE by cosine, exactly: in its own dictionary, in others, in all.

    \b
    feature-atlas neighbours smollm2-135m-instruct/9-res-2k/2018
    feature-atlas neighbours 9-res-2k/2018 --in 10-res-2k --in 10-mlp-2k
    feature-atlas neighbours --vector direction.npy --in all
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.neighbours import COLUMNS, neighbours, read_direction

    if (feature is None) == (vector is None):
        raise click.UsageError("name a FEATURE, or a direction with --vector FILE")
    with open_atlas(atlas) as opened:
        wanted = read_direction(vector) if vector is not None else str(feature)
        rows = neighbours(opened, wanted, dictionaries=dictionaries or None, top=top, progress=Progress())
        model = opened.only_model
    print_rows(rows, COLUMNS, format_, model=model)

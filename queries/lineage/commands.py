"""The command that draws a lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlas.cli.options import THRESHOLD, atlas_option, by_option, complete_features, output_option
from atlas.cli.output import PICTURES, terminal_width


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
    type=click.Choice(("tree", "json", "mermaid", "dot", "graphml", "attribution", *PICTURES)),
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
    png are pictures; html is one file with the picture and its table, which opens offline; attribution is the JSON of
    attribution graphs, for Neuronpedia's and circuit-tracer's pages.

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
    from queries.lineage.below import just_below
    from queries.lineage.draw import draw, painted
    from queries.lineage.tree import WIDTH
    from queries.lineage.walk import lineage

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

"""The group `evidence`: what speaks for an atlas's edges, and what against, on a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlas.cli.options import Decorator, atlas_option, format_option


def _text_options(tokens: int, about: str, least: int = 0) -> Decorator:
    """The options of a measurement on a text; `least`: of --tokens, where 0 does not mean all."""

    def decorate(command: Any) -> Any:
        options = (
            click.option(
                "--text",
                "texts",
                multiple=True,
                required=True,
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                metavar="FILE",
                help="The text; repeatable.",
            ),
            click.option(
                "--tokens", type=click.IntRange(min=least), default=tokens, show_default=True, metavar="N", help=about
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Draws contexts of the text."),
            click.option("--model", metavar="NAME_OR_FOLDER", help="The model.  [default: the dictionaries' own]"),
            click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N"),
        )
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_permutation = click.option(
    "--permutation", is_flag=True, help="Also match all features one to one (2,048: a second; 16,384: minutes)."
)
_frozen = click.option("--frozen", is_flag=True, help="Also a control dictionary of random rows that nobody trained.")


@click.group()
def evidence() -> None:
    """Is it true? Edges and maps of an atlas measured on a text, beside what chance gives.

    \b
    feature-atlas evidence edges --text prose.txt --tokens 100000
    feature-atlas evidence deactivation --text prose.txt
    """


@evidence.command()
@atlas_option
@_text_options(0, "Read about so many tokens of the text; 0: all.")
@format_option
def edges(atlas: str | None, texts: tuple[Path, ...], tokens: int, format_: str, **options: Any) -> None:
    """Which matches fire together? Writes cofire, lift, correlation and support to every edge.

    Also the earlier features that correlate most with a later one and are no match, as edges FIRES_WITH. Start tokens
    and attention sinks are left out. Broken off, the same command goes on.
    """
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.evidence.firing.edges import EdgesReport, measure_edges

    report = measure_edges(atlas, texts, tokens=tokens, progress=Progress(), **options)
    print_rows([vars(report) | {"atlas": str(report.atlas)}], list(EdgesReport.__annotations__), format_)


@evidence.command()
@atlas_option
@_text_options(500, "Tokens at which active features are looked at, five of a context.", least=1)
@click.option(
    "--table",
    type=click.Choice(("shares", "tests", "rates", "controls")),
    default="shares",
    show_default=True,
    help="Groups by layer; their cosines compared; dead and silent features of each dictionary; how often the best "
    "match is active, beside random features, rows that nobody trained, and a source that cannot be one.",
)
@format_option
def groups(atlas: str | None, texts: tuple[Path, ...], tokens: int, table: str, format_: str, **options: Any) -> None:
    """Which best matches of an active feature are active too? Eight groups by layer (paper §5.1)."""
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.evidence.controls import present
    from queries.evidence.groups import RATES, SHARES, TESTS, groups

    with open_atlas(atlas) as opened:
        found = groups(opened, texts, positions=tokens, controls=table == "controls", progress=Progress(), **options)
    if table == "tests":
        rows = found.tests()
        print_rows(rows, TESTS, format_)
        below = sum(row["p"] < 0.001 for row in rows)
        click.echo(f"p < 0.001 in {below} of {len(rows)} tests, not corrected for their number", err=True)
    elif table == "controls":
        print_rows(found.controls(), present.COLUMNS, format_)
    elif table == "rates":
        print_rows(found.rates(), RATES, format_)
    else:
        print_rows(found.shares(), SHARES, format_)


@evidence.command()
@atlas_option
@_text_options(100, "Tokens at which features are removed, five of a context.", least=1)
@click.option(
    "--table",
    type=click.Choice(("success", "recall", "cosine", "loss")),
    default="success",
    show_default=True,
    help="By method; strong effects that rankings name; the best match by its cosine; what it does to the loss.",
)
@_permutation
@_frozen
@click.option("--common", is_flag=True, help="Only targets whose best match is active: the same for all methods.")
@format_option
def deactivation(
    atlas: str | None, texts: tuple[Path, ...], tokens: int, table: str, common: bool, format_: str, **options: Any
) -> None:
    """Does a feature stop when a predecessor is removed? By how that was chosen, beside controls (paper §5.2).

    Edges that were tried get the property effect.
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.evidence.removals import recall
    from queries.evidence.removals.deactivation import deactivation
    from queries.evidence.removals.effects import write_effects
    from queries.evidence.removals.outcome import COLUMNS, LOSS_COLUMNS

    progress = Progress()
    with open_atlas(atlas) as opened:
        outcome = deactivation(opened, texts, positions=tokens, progress=progress, **options)
        folder = opened.path
    if table == "recall":
        print_rows(outcome.recall(), recall.COLUMNS, format_)
    elif table == "cosine":
        print_rows(outcome.by_cosine(), recall.COSINE_COLUMNS, format_)
    elif table == "loss":
        print_rows(outcome.loss(), LOSS_COLUMNS, format_)
    else:
        print_rows(outcome.rows(common=common), COLUMNS, format_)
    # After the table: it took long, and must not be lost where the atlas cannot be written to.
    if folder is None:
        click.echo("the atlas has no folder here: effects are not written to its edges", err=True)
    else:
        count = write_effects(folder, outcome, progress)
        click.echo(f"effect written to {count:,} edges", err=True)


@evidence.command("map")
@atlas_option
@_text_options(10_000, "Read about so many tokens of the text; 0: all.")
@click.option(
    "--per",
    "direction",
    type=click.Choice(("target", "source")),
    default="target",
    show_default=True,
    help="Whose best matches: each later feature's, or each earlier one's.",
)
@_permutation
@_frozen
@format_option
def map_(atlas: str | None, texts: tuple[Path, ...], format_: str, **options: Any) -> None:
    """Do matches predict the next layer? Variance that they explain, beside a ceiling and controls (paper App. F)."""
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.evidence.mapping import COLUMNS, map_rows

    with open_atlas(atlas) as opened:
        rows = map_rows(opened, texts, progress=Progress(), **options)
    print_rows(rows, COLUMNS, format_)


@evidence.command()
@atlas_option
@click.option(
    "--features",
    type=click.IntRange(min=0),
    default=2048,
    show_default=True,
    metavar="N",
    help="Later features tried in the dictionary that cannot be the source; 0: all.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws them.")
@format_option
def floor(atlas: str | None, format_: str, **options: Any) -> None:
    """How many best matches lie above their noise floor, and how many in a dictionary that cannot be the source?

    Of a pair with an MLP or attention: the same module of the nearest layer behind, at the same floor. From rows alone.
    The page shows them afterwards.
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.evidence.controls.impossible import COLUMNS, floor_rows, keep

    with open_atlas(atlas) as opened:
        rows = floor_rows(opened, progress=Progress(), **options)
        print_rows(rows, COLUMNS, format_)
        try:
            keep(opened, rows)
        except OSError as error:
            click.echo(f"not kept for the page: {error}", err=True)


@evidence.command()
@atlas_option
@click.option(
    "--least",
    type=click.FloatRange(0, 1),
    default=0.7,
    show_default=True,
    metavar="COSINE",
    help="From which two features of two sets count as the same one.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the shuffle and the intervals.")
@format_option
def stability(atlas: str | None, format_: str, **options: Any) -> None:
    """Do two sets of dictionaries at the same places give the same answers? Seeds or widths, from rows alone.

    How many features both have, and of those whether a lineage's step and the life cycle are the same in both.
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.evidence.stability import COLUMNS, stability_rows

    with open_atlas(atlas) as opened:
        rows = stability_rows(opened, progress=Progress(), **options)
    print_rows(rows, COLUMNS, format_)


@evidence.command()
@atlas_option
@format_option
def golden(atlas: str | None, format_: str) -> None:
    """The graph that the paper prints (Table 5), against an atlas of Gemma Scope 2B."""
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from queries.evidence.golden import COLUMNS, golden

    with open_atlas(atlas) as opened:
        rows = golden(opened)
    print_rows(rows, COLUMNS, format_)
    printed = [row for row in rows if row["printed"] is not None]
    scores = [row["close"] for row in rows if row["close"] is not None]
    click.echo(f"{sum(row['same'] for row in printed)} of {len(printed)} printed features found", err=True)
    click.echo(f"{sum(scores)} of {len(scores)} printed scores met", err=True)
    click.echo(f"{len(rows) - len(printed)} MLP matches that are not printed", err=True)

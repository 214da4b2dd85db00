"""The group `evidence`: what speaks for an atlas's edges, and what against, on a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlas.cli.options import Decorator, atlas_option, format_option, ray_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from atlas.atlas import Atlas
    from atlas.rows import Rows


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


def _told(opened: Atlas, name: str, rows: Rows, format_: str, **options: Any) -> None:
    """Print a table and leave it in the atlas's folder for the page, with what was asked."""
    from atlas.cli.output import print_kept
    from atlas.folder.results import keep

    texts = [path.name for path in options.pop("texts", ())]
    given = {
        key.removesuffix("_name"): value
        for key, value in options.items()
        if key not in ("device", "ray") and value is not None and value is not False
    }
    said = [*texts, *(key if value is True else f"{key} {value}" for key, value in given.items())]
    print_kept(rows, rows.columns, format_, lambda: keep(opened.path, name, opened.dictionaries, rows, ", ".join(said)))


def _from_rows(
    atlas: str | None, name: str, measure: Callable[..., Rows], format_: str, options: dict[str, Any]
) -> None:
    """A measurement that needs no text and no model."""
    from atlas import open_atlas
    from atlas.cli.progress import Progress

    with open_atlas(atlas) as opened:
        _told(opened, name, measure(opened, progress=Progress(), **options), format_, **options)


_permutation = click.option(
    "--permutation", is_flag=True, help="Also match all features one to one (2,048: a second; 16,384: minutes)."
)
_frozen = click.option("--frozen", is_flag=True, help="Also a control dictionary of random rows that nobody trained.")


_ray = ray_option(
    "Run the model on the Ray cluster there, whose nodes find the atlas as here; alone: on one of its own."
)
_set = click.option(
    "--set", "set_name", metavar="NAME", help="Of several dictionaries at one place those of this set: res-2k, or 2k."
)


@click.group()
def evidence() -> None:
    """Is it true? Edges and maps of an atlas measured on a text, beside what chance gives.

    Tables are left in the atlas's folder, and shown on the page's Evidence.

    \b
    feature-atlas evidence edges --text prose.txt --tokens 100000
    feature-atlas evidence deactivation --text prose.txt
    """


@evidence.command()
@atlas_option
@_text_options(0, "Read about so many tokens of the text; 0: all.")
@_ray
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
@_set
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
    from atlas.cli.progress import Progress
    from queries.evidence.groups import groups

    with open_atlas(atlas) as opened:
        found = groups(opened, texts, positions=tokens, controls=table == "controls", progress=Progress(), **options)
        rows = getattr(found, table)()
        _told(opened, "groups" if table == "shares" else table, rows, format_, texts=texts, tokens=tokens, **options)
    if table == "tests":
        below = sum(row["p"] < 0.001 for row in rows)
        click.echo(f"p < 0.001 in {below} of {len(rows)} tests, not corrected for their number", err=True)


@evidence.command()
@atlas_option
@_text_options(100, "Tokens at which features are removed, five of a context.", least=1)
@_set
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
@_ray
@format_option
def deactivation(
    atlas: str | None, texts: tuple[Path, ...], tokens: int, table: str, common: bool, format_: str, **options: Any
) -> None:
    """Does a feature stop when a predecessor is removed? By how that was chosen, beside controls (paper §5.2).

    Edges that were tried get the property effect.
    """
    from atlas import open_atlas
    from atlas.cli.progress import Progress
    from queries.evidence.removals.deactivation import deactivation
    from queries.evidence.removals.effects import write_effects

    progress = Progress()
    with open_atlas(atlas) as opened:
        outcome = deactivation(opened, texts, positions=tokens, progress=progress, **options)
        folder = opened.path
        made: dict[str, Callable[[], Rows]] = {
            "recall": outcome.recall,
            "cosine": outcome.by_cosine,
            "loss": outcome.loss,
            "success": lambda: outcome.rows(common=common),
        }
        told = {"texts": texts, "tokens": tokens, "common": common, **options}
        _told(opened, "deactivation" if table == "success" else table, made[table](), format_, **told)
    # After the table: it took long, and must not be lost where the atlas cannot be written to.
    if folder is None:
        click.echo("the atlas has no folder here: effects are not written to its edges", err=True)
    else:
        count = write_effects(folder, outcome, progress)
        click.echo(f"effect written to {count:,} edges", err=True)


@evidence.command("map")
@atlas_option
@_text_options(10_000, "Read about so many tokens of the text; 0: all.")
@_set
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
    from atlas.cli.progress import Progress
    from queries.evidence.mapping import map_rows

    with open_atlas(atlas) as opened:
        l0: dict[str, float] = {}
        rows = map_rows(opened, texts, progress=Progress(), l0=l0, **options)
        _told(opened, "map", rows, format_, texts=texts, **options)
    click.echo("active features a token: " + ", ".join(f"{id_} {each:.1f}" for id_, each in l0.items()), err=True)


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
    """
    from queries.evidence.controls.impossible import floor_rows

    _from_rows(atlas, "floor", floor_rows, format_, options)


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
    from queries.evidence.stability import stability_rows

    _from_rows(atlas, "stability", stability_rows, format_, options)


@evidence.command()
@atlas_option
@format_option
def golden(atlas: str | None, format_: str) -> None:
    """The graph that the paper prints (Table 5), against an atlas of Gemma Scope 2B."""
    from atlas import open_atlas
    from queries.evidence.golden import golden

    with open_atlas(atlas) as opened:
        rows = golden(opened)
        _told(opened, "golden", rows, format_)
    printed = [row for row in rows if row["printed"] is not None]
    scores = [row["close"] for row in rows if row["close"] is not None]
    click.echo(f"{sum(row['same'] for row in printed)} of {len(printed)} printed features found", err=True)
    click.echo(f"{sum(scores)} of {len(scores)} printed scores met", err=True)
    click.echo(f"{len(rows) - len(printed)} MLP matches that are not printed", err=True)

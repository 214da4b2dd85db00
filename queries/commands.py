"""Commands that find features: search, show, neighbours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from atlas.cli.options import atlas_option, by_option, complete_dictionaries, complete_features, format_option
from atlas.ids import SITES


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
        advised, names = advice(opened, rows), opened.names
    print_rows(rows, people_columns(rows) if format_ == "table" else COLUMNS, format_, most=limit, names=names)
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
    from atlas.cli.output import bars, fit, print_rows, printable
    from queries.lineage.matches import COSINE
    from queries.show import COLUMNS, MATCH_COLUMNS, show

    with open_atlas(atlas) as opened:
        detail, names = opened.detail(feature), opened.names
        rows = show(opened, feature, most=most, by=by, detail=detail)
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
    if (histogram := detail.histogram) is not None:
        click.echo(f"{'histogram':<14} {bars(histogram.counts)} activation 0 to {histogram.end:g}")
    for title, part in (("comes from", "earlier"), ("goes to", "later")):
        if parts[part]:
            click.echo(f"\n{title}")
            said = [name for name in MATCH_COLUMNS if name not in ("site", "layer")]  # by the id
            print_rows(parts[part], (*said, *figure), names=names)
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
    "--vector",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A direction instead: .npy, JSON list, .safetensors, or a control vector (.gguf).",
)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="Most rows.")
@click.option("--index", is_flag=True, help="First index these rows, once: a large atlas is then asked in no time.")
@format_option
def neighbours(
    feature: str | None,
    atlas: str | None,
    dictionaries: tuple[str, ...],
    vector: Path | None,
    top: int,
    index: bool,
    format_: str,
) -> None:
    """The features nearest to a FEATURE by cosine, exactly: in its own dictionary, in others, in all.

    \b
    feature-atlas neighbours smollm2-135m-instruct/9-res-2k/2018
    feature-atlas neighbours 9-res-2k/2018 --in 10-res-2k --in 10-mlp-2k
    feature-atlas neighbours --vector direction.npy --in all
    feature-atlas neighbours 9-res-2k/2018 --in all --index
    feature-atlas neighbours --vector happy.gguf

    Each direction of a control vector is looked for in its own block's dictionaries: those of --in, else those of the
    stream after it.
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.neighbours import COLUMNS, neighbours, read_direction

    if (feature is None) == (vector is None):
        raise click.UsageError("name a FEATURE, or a direction with --vector FILE")
    with open_atlas(atlas) as opened:
        if vector is not None and vector.suffix == ".gguf":
            from queries.plans.control_vector import read_control_vector
            from queries.plans.imported import nearest

            rows = nearest(opened, read_control_vector(vector), dictionaries or None, top=top)
        else:
            wanted = read_direction(vector) if vector is not None else str(feature)
            chosen = dictionaries or None
            rows = neighbours(opened, wanted, dictionaries=chosen, top=top, index=index, progress=Progress())
        names = opened.names
    print_rows(rows, COLUMNS, format_, names=names)

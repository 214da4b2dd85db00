"""Commands that read a text with a model: activate."""

from __future__ import annotations

import click

from atlas.cli.options import atlas_option, complete_features, format_option


@click.command()
@click.argument("text")
@atlas_option
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="ID",
    shell_complete=complete_features,
    help="Only this feature; repeatable.",
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="The N strongest a dictionary.  [default: 3]")
@click.option("--model", metavar="NAME_OR_FOLDER", help="The model.  [default: the atlas' own]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@format_option
def activate(
    text: str,
    atlas: str | None,
    features: tuple[str, ...],
    top: int | None,
    model: str | None,
    device: str,
    format_: str,
) -> None:
    """Which features fire at each token of TEXT, and how strongly.

    `relative` is to the feature's largest activation on record, where `label --text` or an import made one. Attention
    sinks are left out.

    \b
    feature-atlas activate "The film was shown in every village."
    feature-atlas activate "The film was shown in every village." --feature 9-res-2k/2018 --format json
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from queries.occurrence.activate import COLUMNS, TOP, activate, dictionaries_of
    from queries.occurrence.reading import name_of
    from queries.steer.commands import announced_model

    if features and top is not None:
        raise click.UsageError("--top is of all features; without --feature")
    with open_atlas(atlas) as opened:
        # Before the model is loaded, which takes seconds.
        name = name_of(opened, dictionaries_of(opened, features or None), model)
        rows = activate(opened, *announced_model(name, device), text, features=features or None, top=top or TOP)
        names = opened.names
    print_rows(rows, COLUMNS, format_, names=names)

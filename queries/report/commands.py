"""The command report."""

from __future__ import annotations

from pathlib import Path

import click

from atlas.cli.options import atlas_option, format_option
from queries.steer.commands import announced_model, device_option


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--again", is_flag=True, help="Run its sweeps again into DIR/again, and compare the texts.")
@atlas_option
@device_option
@format_option
def report(folder: Path, again: bool, atlas: str | None, device: str, format_: str) -> None:
    """Write up what DIR holds: report.md, report.html that loads nothing, figures, tables, texts, plans, commands.

    DIR is a sweep's folder, or one with several of them; rows of `evidence … --format json` in DIR/evidence are taken
    in by their file's name. Figures need the extra plots.

    \b
    feature-atlas evidence deactivation --text prose.txt --format json > war/evidence/deactivation.json
    feature-atlas report war
    feature-atlas report war --again
    """
    from queries.report.figures import can_draw
    from queries.report.report import write_report

    if again:
        from atlas.atlas import open_atlas
        from atlas.cli.output import print_rows
        from atlas.cli.progress import Progress
        from queries.report.again import COLUMNS, run_again

        with open_atlas(atlas) as opened:
            rows = run_again(opened, folder, lambda name: announced_model(name, device), Progress())
        print_rows(rows, COLUMNS, format_)
        return
    if not can_draw():
        click.echo("figures are left out: pip install 'feature-atlas[plots]'", err=True)
    for path in write_report(folder):
        click.echo(path)

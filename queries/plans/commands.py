"""The group `plan`: look into a saved plan, take it to other programs, make one of a control vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from atlas.cli.options import atlas_option, format_option

COLUMNS = ("feature", "label", "layer", "site", "mode", "strength", "positions")
FORMATS = ("gguf", "easysteer", "neuronpedia")
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_out = click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to."
)


@click.group()
def plan() -> None:
    """Saved steering plans: what one does, for other programs, from a control vector.

    \b
    feature-atlas plan show war.json
    feature-atlas plan export war.json --format gguf -o war.gguf
    feature-atlas plan import happy.gguf -o happy.json
    """


@plan.command()
@click.argument("file", type=_file)
@format_option
def show(file: Path, format_: str) -> None:
    """What a plan does: its interventions, in their order in FILE; needs no atlas."""
    from atlas.cli.output import print_rows
    from queries.steer.plan_file import read_plan

    values = read_plan(file)
    rows = [{name: entry.get(name) for name in COLUMNS} for entry in values["interventions"]]
    print_rows(rows, COLUMNS, format_)
    click.echo(f"for {values['model']}", err=True)
    if "origin" in values:
        click.echo(f"from {json.dumps(values['origin'], ensure_ascii=False)}", err=True)


@plan.command()
@click.argument("file", type=_file)
@atlas_option
@click.option("--format", "format_", type=click.Choice(FORMATS), required=True, help="Whose.")
@_out
def export(file: Path, atlas: str | None, format_: str, output: Path) -> None:
    """Write the plan in FILE for another program; what that cannot say is refused.

    gguf: a control vector for llama.cpp (--control-vector). easysteer: EasySteer's specification, with the vectors
    beside it. neuronpedia: the body of its request for steered text.

    \b
    feature-atlas plan export war.json --format gguf -o war.gguf
    llama-cli -m model.gguf --control-vector war.gguf -p "I think "
    """
    from atlas import open_atlas
    from atlas.cli.output import deliver
    from queries.plans.added import added
    from queries.plans.control_vector import write_control_vector
    from queries.plans.easysteer import write_easysteer
    from queries.plans.neuronpedia import steer_request
    from queries.steer.plan import SteeringPlan

    with open_atlas(atlas) as opened:
        loaded = SteeringPlan.load(file, opened)
        written = [output]
        if format_ == "gguf":
            write_control_vector(output, loaded, added(loaded)["all"])
        elif format_ == "easysteer":
            written += write_easysteer(output, loaded)
        else:
            deliver(json.dumps(steer_request(opened, loaded), indent=1) + "\n", output)
    click.echo(f"written: {', '.join(map(str, written))}", err=True)


@plan.command("import")
@click.argument("file", type=_file)
@atlas_option
@click.option("--model", metavar="NAME_OR_FOLDER", help="Whose control vector it is.  [default: the atlas' only model]")
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="Nearest features each.")
@_out
@format_option
def import_(file: Path, atlas: str | None, model: str | None, top: int, output: Path, format_: str) -> None:
    """Make a plan of the control vector in FILE, and print which features its directions are nearest to.

    \b
    feature-atlas plan import happy.gguf -o happy.json
    feature-atlas steer "I think " --plan happy.json
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.errors import QueryError
    from queries.neighbours import COLUMNS as NEAREST
    from queries.plans.control_vector import read_control_vector
    from queries.plans.imported import imported_plan, nearest

    with open_atlas(atlas) as opened:
        made = imported_plan(file, opened, model)
        made.save(output)
        click.echo(f"plan written to {output}", err=True)
        rows: list[dict[str, Any]] = []
        try:
            rows = nearest(opened, read_control_vector(file), top=top)
        except QueryError as error:
            click.echo(str(error), err=True)
        names = opened.names
    print_rows(rows, NEAREST, format_, names=names)

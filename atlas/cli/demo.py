"""The command `demo`: the main job end to end, as the commands that a user would type.

Every step is printed before it runs, so that it can be typed again, changed, and pointed at another model.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

import click

FOLDER = "demo-atlas"
MODEL = "smollm2-135m-instruct"
SEED = f"{MODEL}/9-res-2k/2018"  # film and its directors
ONE_LAYER = f"{MODEL}/10-res-2k/1342"  # the layer of its lineage that steers best alone
CONTROL = tuple(f"{MODEL}/{layer}-res-2k/100" for layer in (8, 9, 10, 11))  # features taken blindly, by index
WORDS = (
    "film*,movie*,cinema,actor*,actress*,director*,directed,screen,screenplay,scene*,comedy,comedies,drama,plot*,"
    "character*,audience*,hollywood,box office,star,stars,starring,sequel*,show,shows,tv,television,episode*,series,"
    "documentar*,theater*,theatre*,oscar*,blockbuster*"
)
PROMPTS = ("My friend told me that", "I think that", "The most important thing is", "Yesterday we")


@click.command()
@click.argument("folder", default=FOLDER, required=False, metavar="[DIR]", type=click.Path(path_type=Path))
def demo(folder: Path) -> None:
    """The main job, end to end, on bundled dictionaries: ingest, label, lineage, steer, score.

    Twelve dictionaries of SmolLM2-135M-Instruct (layers 8 to 11; residual stream, MLP, attention) become an atlas in
    DIR (default: demo-atlas). Then one feature about film is followed through the layers, and the model is steered
    along its lineage. Each step is a command that you can type yourself. A second run finds the atlas there and is
    faster.
    """
    bundle = _bundle()
    plans = {name: folder / f"film-{name}.json" for name in ("one-layer", "lineage", "control")}
    _say(
        "1. Take twelve dictionaries in and match their decoder rows across layers. They are small and were trained",
        "   apart, so thresholds are each pair's own noise floor, not the 0.5 and 0.25 of the paper.",
    )
    floor = ("--min-res", "floor", "--min-module", "floor")
    _run(folder, "ingest", bundle, *floor)
    _say(
        "2. Give the features words: contexts from a small text, and bundled labels that were measured on a large one."
    )
    _run(folder, "label", "--import", bundle / "labels.parquet", "--text", bundle / "text.txt")
    _run(folder, "info")
    _say("3. Look for a theme, and see where one of its features comes from and where it goes.")
    _run(folder, "search", "film", "--limit", "8")
    _run(folder, "lineage", SEED, *floor)
    _say("4. Turn it: in one layer, along its lineage, and, as a control, features of no theme in the same layers.")
    sampling = ("--temperature", "0.7", "--top-p", "1", "--tokens", "30")
    steer = ("steer", PROMPTS[0], *sampling, "--save-plan")
    _run(folder, *steer, plans["one-layer"], "--feature", f"{ONE_LAYER}=48")
    _run(folder, *steer, plans["lineage"], "--lineage", SEED, *floor, "--strength", "15")
    control = [option for id_ in CONTROL for option in ("--feature", f"{id_}=15")]
    _run(folder, *steer, plans["control"], *control)
    _say("5. Is that luck? The same over prompts and samples: theme words a text, and what it costs in fluency.")
    prompts = [option for prompt in PROMPTS for option in ("--prompt", prompt)]
    chosen = [option for path in plans.values() for option in ("--plan", path)]
    against = ("--control", "film-one-layer")  # whether a lineage does more than the feature alone
    _run(folder, "score", *chosen, *against, "--words", WORDS, *prompts, "--samples", "12", *sampling)
    _say(f"The atlas is in {folder}; try: feature-atlas ask -a {folder}")


def _bundle() -> Path:
    """The bundled dictionaries, beside the room that reads them."""
    # Looked for, not imported: atlas imports none of the rooms that use it.
    spec = find_spec("ingest")
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException(
            "the package is not installed whole: ingest is missing; pip install feature-atlas again"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "bundle" / "smollm2-135m"


def _say(*lines: str) -> None:
    click.secho("\n" + "\n".join(lines), bold=True)


def _run(folder: Path, *arguments: object) -> None:
    """Print a command as it would be typed, and run it."""
    from atlas.cli.main import root

    words = [str(argument) for argument in (*arguments, "-a", folder)]
    click.secho(f"\n$ feature-atlas {shlex.join(words)}", dim=True)
    # Not standalone, as which click would end the process after the first step.
    root.main(words, "feature-atlas", standalone_mode=False)

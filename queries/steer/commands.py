"""Commands that run a model: steer, score."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlas.cli.options import THRESHOLD, atlas_option, format_option
from atlas.errors import PlanError
from queries.steer.intervention import ADD, MODES, POSITIONS
from queries.steer.printed import side_by_side
from queries.steer.strength import SCHEDULES

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.lineage import Lineage, Threshold
    from queries.steer.generation import Generation
    from queries.steer.plan import SteeringPlan

# What reads well on a small model: one feature, and features along a lineage, each.
ALONE, TOGETHER = "30%", "6%"


model_option = click.option("--model", metavar="NAME_OR_FOLDER", help="The model.  [default: the atlas' own]")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")


@cache
def announced_model(name: str, device: str) -> tuple[Any, Any]:
    """Load a model, said on stderr since it takes seconds; once for all commands of a process. Raises ModelError."""
    from hooked.load import load_model

    click.echo(f"loading {name} …", err=True)
    return load_model(name, device=device)


@click.command()
@click.argument("prompt")
@atlas_option
@click.option("--feature", "features", multiple=True, metavar="ID[=STRENGTH]", help="A feature to turn; repeatable.")
@click.option("--lineage", metavar="ID", help="Turn the features of this feature's flow graph.")
@click.option("--min-res", type=THRESHOLD, default=0.5, show_default=True, help="Where a --lineage ends.")
@click.option("--min-module", type=THRESHOLD, default=0.25, show_default=True, help="Its smallest mlp and att cosine.")
@click.option("--cypher", metavar="QUERY", help="Turn the features it returns: column feature, perhaps strength.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A saved plan.")
@click.option("--mode", type=click.Choice(MODES), help="What is done.  [default: add]")
@click.option(
    "--strength",
    help="8: units of the unit direction; 30%: of the norm there. suppress: 0 removes, below 0 overshoots. clamp: the "
    f"activation.  [default: add {ALONE} for one feature, {TOGETHER} each for several; suppress 0]",
)
@click.option("--schedule", type=click.Choice(SCHEDULES), help="Strength over layers.  [default: constant]")
@click.option("--layers", metavar="SELECTION", help="single:12, upto:12 or 8-12.")
@click.option(
    "--sites", metavar="LIST", help="Of res,mlp,att.  [default: res for add and clamp of a lineage, else all]"
)
@click.option("--positions", type=click.Choice(POSITIONS), help="Which are steered.  [default: all]")
@model_option
@device_option
@click.option("--tokens", type=click.IntRange(min=1), default=36, show_default=True, help="Tokens to add.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0), help="Sample at this temperature.  [default: greedy]")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Sample among tokens of this mass only.")
@click.option("--save-plan", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan there, as JSON.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def steer(
    prompt: str,
    atlas: str | None,
    features: tuple[str, ...],
    lineage: str | None,
    min_res: Threshold,
    min_module: Threshold,
    cypher: str | None,
    plan_file: Path | None,
    mode: str | None,
    strength: str | None,
    schedule: str | None,
    layers: str | None,
    sites: str | None,
    positions: str | None,
    model: str | None,
    device: str,
    tokens: int,
    seed: int,
    temperature: float | None,
    top_p: float | None,
    save_plan: Path | None,
    format_: str,
) -> None:
    """Continue PROMPT twice: with the model as it is, and with features turned.

    \b
    feature-atlas steer "I think " --feature gemma-2-2b/12-gemmascope-res-16k/4230=30%
    feature-atlas steer "I think " --lineage gemma-2-2b/12-gemmascope-res-16k/4230 --strength 6% --save-plan w.json
    feature-atlas steer "I think " --plan w.json --seed 1 --temperature 1.27 --top-p 0.7
    """
    from atlas.atlas import open_atlas
    from queries.lineage import lineage as flow_graph
    from queries.steer.plan import SteeringPlan

    if sum(map(bool, (features, lineage, cypher, plan_file))) != 1:
        raise click.UsageError("name what to turn: one of --feature (repeatable), --lineage, --cypher, --plan")
    choices = {
        "mode": mode,
        "strength": strength,
        "schedule": schedule,
        "layers": layers,
        "sites": sites,
        "positions": positions,
    }
    given = [name for name, value in choices.items() if value is not None]
    if plan_file and given:
        raise click.UsageError(f"--{given[0]} is for a new plan; --plan says what is done already")
    with open_atlas(atlas) as opened:
        if plan_file:
            plan = SteeringPlan.load(plan_file, opened)
        else:
            graph = flow_graph(opened, lineage, min_res=min_res, min_module=min_module) if lineage else None
            plan = _new_plan(opened, features, graph, cypher, choices)
    if save_plan:
        plan.save(save_plan)
        click.echo(f"plan written to {save_plan}", err=True)
    name = model or plan.model_name
    loaded, tokenizer = announced_model(name, device)
    made = []
    for title, chosen in (("unsteered", None), ("steered", plan)):
        made.append(_generate(title, loaded, tokenizer, prompt, chosen, tokens, seed, temperature, top_p))
    if format_ == "json":
        click.echo(json.dumps(_result(prompt, seed, name, plan, *made), indent=1, ensure_ascii=False))
    else:
        click.echo(side_by_side(prompt, plan, *made, width=shutil.get_terminal_size((100, 24)).columns))


def _new_plan(
    atlas: Atlas, features: tuple[str, ...], graph: Lineage | None, cypher: str | None, choices: dict[str, str | None]
) -> SteeringPlan:
    """A plan from the command line's options."""
    from queries.steer.plan import SteeringPlan

    mode, strength = choices["mode"] or ADD, choices["strength"]
    if strength is None and mode == ADD:
        strength = ALONE if len(features) == 1 else TOGETHER
    positions, schedule = choices["positions"] or "all", choices["schedule"] or "constant"
    layers = choices["layers"]
    sites = choices["sites"].split(",") if choices["sites"] else None
    if graph is not None:
        return SteeringPlan.from_lineage(
            atlas, graph, strength, mode=mode, positions=positions, schedule=schedule, layers=layers, sites=sites
        )
    if cypher:
        return SteeringPlan.from_query(
            atlas, cypher, strength, mode=mode, positions=positions, schedule=schedule, layers=layers, sites=sites
        )
    named: dict[str, str | None] = {}
    for feature in features:
        id_, _, own = feature.partition("=")
        if id_ in named:
            raise PlanError(f"{id_} is named twice; give it once")
        named[id_] = own or None
    return SteeringPlan.from_features(
        atlas,
        named,
        strength=strength,
        mode=mode,
        positions=positions,
        schedule=schedule,
        layers=layers,
        sites=sites,
    )


def _generate(
    title: str,
    model: Any,
    tokenizer: Any,
    prompt: str,
    plan: SteeringPlan | None,
    tokens: int,
    seed: int,
    temperature: float | None,
    top_p: float | None,
) -> Generation:
    """One continuation, shown on the terminal while it is made; stdout stays for the result."""
    from queries.steer.generation import generate

    streamer = None
    if sys.stderr.isatty() and sys.stdout.isatty():
        from queries.steer.printed import stderr_streamer

        click.secho(f"{title}: ", err=True, dim=True, nl=False)
        streamer = stderr_streamer(tokenizer)
    return generate(
        model,
        tokenizer,
        [prompt],
        plan,
        max_new_tokens=tokens,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        streamer=streamer,
    )[0]


def _result(
    prompt: str, seed: int, model: str, plan: SteeringPlan, unsteered: Generation, steered: Generation
) -> dict[str, Any]:
    """The contract's json."""
    return {
        "prompt": prompt,
        "seed": seed,
        "model": model,
        "plan": [each.to_dict() for each in plan.interventions],
        "unsteered": {"text": unsteered.text, "tokens": unsteered.tokens},
        "steered": {"text": steered.text, "tokens": steered.tokens},
        "hooks": steered.hooks,
    }


@click.command()
@atlas_option
@click.option("--plan", "plan_files", type=click.Path(path_type=Path), multiple=True, help="A saved plan; repeatable.")
@click.option("--words", required=True, help="The theme's words: war,army,soldier* or a file of them.")
@click.option("--prompt", "prompts", multiple=True, default=["I think "], show_default=True, help="Repeatable.")
@click.option("--samples", type=click.IntRange(min=1), default=12, show_default=True, help="Of each prompt.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), default=30, show_default=True, help="Tokens to add.")
@click.option("--temperature", type=click.FloatRange(min=0), default=1.27, show_default=True, help="0: greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.7, show_default=True)
@model_option
@device_option
@format_option
def score(
    atlas: str | None,
    plan_files: tuple[Path, ...],
    words: str,
    prompts: tuple[str, ...],
    samples: int,
    seed: int,
    tokens: int,
    temperature: float,
    top_p: float,
    model: str | None,
    device: str,
    format_: str,
) -> None:
    """Compare plans: theme words a text, share of texts with one, and fluency under the unsteered model.

    Figures are means over samples of each prompt, each with its standard error (_se). Unsteered text is the first
    condition; the last line says whether the plan with most theme words really has more than the next.

    \b
    feature-atlas score --plan war.json --plan other.json --words "war,army,soldier*" --samples 24
    """
    from atlas.atlas import open_atlas
    from atlas.cli.output import print_rows
    from queries.steer.plan import SteeringPlan
    from queries.steer.score import ThemeScore, read_words, theme_score, verdict

    if not plan_files:
        raise click.UsageError("give at least one --plan; `steer --save-plan FILE` writes one")
    with open_atlas(atlas) as opened:
        plans: dict[str, SteeringPlan | None] = {"unsteered": None}
        plans |= {_name(path, plan_files): SteeringPlan.load(path, opened) for path in plan_files}
    name = model or next(plan.model_name for plan in plans.values() if plan)
    loaded, tokenizer = announced_model(name, device)
    # Without sampling all samples are one.
    chosen, count = (top_p, samples) if temperature else (None, 1)
    scores = theme_score(
        loaded,
        tokenizer,
        prompts,
        read_words(words),
        plans,
        samples=count,
        seed=seed,
        max_new_tokens=tokens,
        temperature=temperature,
        top_p=chosen,
    )
    print_rows([asdict(each) for each in scores], [field.name for field in fields(ThemeScore)], format_)
    if format_ == "table":
        click.echo(f"\n{verdict(scores)}")


def _name(path: Path, all_: tuple[Path, ...]) -> str:
    """A plan's name in the table: its file's, with the folder where two share it."""
    return path.stem if [other.stem for other in all_].count(path.stem) == 1 else str(path)

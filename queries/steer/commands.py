"""Commands that run a model: steer, score."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlas.cli.options import THRESHOLD, Decorator, atlas_option, by_option, complete_features, format_option, gathered
from atlas.errors import PlanError
from queries.steer.generation import Generation, GenerationOptions, continued
from queries.steer.intervention import ADD, MODES, POSITIONS
from queries.steer.printed import side_by_side
from queries.steer.running.prompts import Given as Prompt
from queries.steer.steering import NothingSteered
from queries.steer.strength import SCHEDULES, Given

if TYPE_CHECKING:
    from queries.lineage.walk import Threshold
    from queries.steer.plan import SteeringPlan

# What reads well on a small model: one feature, and features along a lineage, each.
ALONE, TOGETHER = "30%", "6%"

model_option = click.option("--model", metavar="NAME_OR_FOLDER", help="The model.  [default: the atlas' own]")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")


steering_options = gathered(
    "steering",
    {
        "mode": click.option("--mode", type=click.Choice(MODES), help="What is done.  [default: add]"),
        "strength": click.option(
            "--strength",
            help="8: units of the unit direction; 30%: of the norm there. suppress: 0 removes, below 0 overshoots. "
            f"clamp: the activation.  [default: add {ALONE} for one feature, {TOGETHER} each for several; suppress 0]",
        ),
        "schedule": click.option(
            "--schedule", type=click.Choice(SCHEDULES), help="Strength over layers.  [default: constant]"
        ),
        "layers": click.option("--layers", metavar="SELECTION", help="single:12, upto:12 or 8-12."),
        "sites": click.option(
            "--sites",
            metavar="LIST",
            callback=lambda _context, _option, value: value.split(",") if value else None,
            help="Of res,mlp,att.  [default: res for add and clamp of a lineage, else all]",
        ),
        "positions": click.option("--positions", type=click.Choice(POSITIONS), help="Which.  [default: all]"),
    },
)


def generation_options(tokens: int, temperature: float | None, top_p: float | None) -> Decorator:
    """How text is made, with a command's defaults; the keys are fields of GenerationOptions."""
    share = click.FloatRange(0, 1, min_open=True)
    return gathered(
        "generation",
        {
            "max_new_tokens": click.option(
                "--tokens",
                "max_new_tokens",
                type=click.IntRange(min=1),
                default=tokens,
                show_default=True,
                help="Tokens to add.",
            ),
            "seed": click.option("--seed", type=int, default=0, show_default=True),
            "temperature": click.option(
                "--temperature",
                type=click.FloatRange(min=0),
                default=temperature,
                show_default="greedy" if temperature is None else True,
                help="Sample at this temperature; 0: greedy.",
            ),
            "top_p": click.option(
                "--top-p",
                type=share,
                default=top_p,
                show_default="all" if top_p is None else True,
                help="Sample among tokens of this mass only.",
            ),
        },
    )


@cache
def announced_model(name: str, device: str) -> tuple[Any, Any]:
    """Load a model, said on stderr since it takes seconds; once for all commands of a process. Raises ModelError."""
    from atlas.cli.progress import Progress
    from hooked.load import load_model

    click.echo(f"loading {name} …", err=True)
    with Progress().waiting(f"loading {name}"):
        return load_model(name, device=device)


@click.command()
@click.argument("prompt")
@atlas_option
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="ID[=STRENGTH]",
    shell_complete=complete_features,
    help="A feature to turn; repeatable.",
)
@click.option(
    "--lineage", metavar="ID", shell_complete=complete_features, help="Turn the features of this feature's flow graph."
)
@click.option("--min-res", type=THRESHOLD, help="Where a --lineage ends.  [default: the atlas' own]")
@click.option("--min-module", type=THRESHOLD, help="Its smallest mlp and att cosine.  [default: the atlas' own]")
@by_option
@click.option("--cypher", metavar="QUERY", help="Turn the features it returns: column feature, perhaps strength.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A saved plan.")
@steering_options
@model_option
@device_option
@generation_options(tokens=36, temperature=None, top_p=None)
@click.option("--chat", is_flag=True, help="PROMPT is a user's message, put through the model's chat template.")
@click.option(
    "--control", type=click.Choice(["random"]), help="Beside it, the same doses to other features of the dictionaries."
)
@click.option("--control-seed", type=int, default=0, show_default=True, help="Draws those features.")
@click.option("--save-plan", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan there, as JSON.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def steer(
    prompt: str,
    atlas: str | None,
    features: tuple[str, ...],
    lineage: str | None,
    min_res: Threshold | None,
    min_module: Threshold | None,
    by: str,
    cypher: str | None,
    plan_file: Path | None,
    steering: dict[str, Any],
    model: str | None,
    device: str,
    generation: dict[str, Any],
    chat: bool,
    control: str | None,
    control_seed: int,
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
    from queries.lineage.below import just_below
    from queries.lineage.walk import lineage as flow_graph
    from queries.steer.plan import SteeringPlan

    if sum(map(bool, (features, lineage, cypher, plan_file))) != 1:
        raise click.UsageError("name what to turn: one of --feature (repeatable), --lineage, --cypher, --plan")
    if plan_file and steering:
        raise click.UsageError(f"--{next(iter(steering))} is for a new plan; --plan says what is done already")
    if "strength" not in steering and steering.get("mode", ADD) == ADD:
        steering["strength"] = ALONE if len(features) == 1 else TOGETHER
    with open_atlas(atlas) as opened:
        if plan_file:
            plan = SteeringPlan.load(plan_file, opened)
        elif lineage:
            graph = flow_graph(opened, lineage, min_res=min_res, min_module=min_module, by=by)
            for line in just_below(opened, graph):
                click.echo(line, err=True)
            plan = SteeringPlan.from_lineage(opened, graph, **steering)
        elif cypher:
            plan = SteeringPlan.from_query(opened, cypher, **steering)
        else:
            plan = SteeringPlan.from_features(opened, _named(features), **steering)
        other = plan.control(opened, control_seed) if control else None
    if save_plan:
        plan.save(save_plan)
        click.echo(f"plan written to {save_plan}", err=True)
    name = model or plan.model_name
    loaded, tokenizer = announced_model(name, device)
    options = GenerationOptions(**generation)
    given: Prompt = [{"role": "user", "content": prompt}] if chat else prompt
    plans = {"unsteered": None, "steered": plan} | ({"control": other} if other else {})
    made = {title: _generate(title, loaded, tokenizer, given, each, options) for title, each in plans.items()}
    if format_ == "json":
        click.echo(json.dumps(_result(prompt, name, plan, made), indent=1, ensure_ascii=False))
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        click.echo(side_by_side(prompt, plan, made, width=width))


def _named(features: tuple[str, ...]) -> dict[str, Given]:
    """`ID` or `ID=STRENGTH`, taken apart; raises PlanError for an id that is named twice."""
    named: dict[str, Given] = {}
    for feature in features:
        id_, _, own = feature.partition("=")
        if id_ in named:
            raise PlanError(f"{id_} is named twice; give it once")
        named[id_] = own or None
    return named


def _generate(
    title: str, model: Any, tokenizer: Any, prompt: Prompt, plan: SteeringPlan | None, options: GenerationOptions
) -> Generation:
    """One continuation, shown on the terminal while it is made; stdout stays for the result."""
    streamer = None
    if sys.stderr.isatty() and sys.stdout.isatty():
        from queries.steer.printed import stderr_streamer

        click.secho(f"{title}: ", err=True, dim=True, nl=False)
        streamer = stderr_streamer(tokenizer)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", NothingSteered)
        made = continued(model, tokenizer, [prompt], plan, options, streamer)[0]
    for warning in raised:
        if issubclass(warning.category, NothingSteered):
            click.echo(f"{title}: {warning.message}", err=True)
    return made


def _result(prompt: str, model: str, plan: SteeringPlan, made: dict[str, Generation]) -> dict[str, Any]:
    """The contract's json."""
    return {
        "prompt": prompt,
        "seed": made["steered"].seed,
        "model": model,
        "plan": [each.to_dict() for each in plan.interventions],
        **{title: {"text": each.text, "tokens": each.tokens} for title, each in made.items()},
        "hooks": made["steered"].hooks,
    }


@click.command()
@atlas_option
@click.option("--plan", "plan_files", type=click.Path(path_type=Path), multiple=True, help="A saved plan; repeatable.")
@click.option("--control", metavar="NAME", help="What plans are compared with.  [default: unsteered]")
@click.option("--words", required=True, help="The theme's words: war,army,soldier* or a file of them.")
@click.option("--prompt", "prompts", multiple=True, default=["I think "], show_default=True, help="Repeatable.")
@click.option("--samples", type=click.IntRange(min=1), default=12, show_default=True, help="Of each prompt.")
@generation_options(tokens=30, temperature=1.27, top_p=0.7)
@model_option
@device_option
@format_option
def score(
    atlas: str | None,
    plan_files: tuple[Path, ...],
    control: str | None,
    words: str,
    prompts: tuple[str, ...],
    samples: int,
    generation: dict[str, Any],
    model: str | None,
    device: str,
    format_: str,
) -> None:
    """Compare plans: theme words a text, share of texts with one, and fluency under the unsteered model.

    Figures are means over samples of each prompt, each with its standard error (± in the table, _se elsewhere): words
    and the share of texts with one, nats a token, and what is more of both than in the control. Unsteered text is the
    first condition; the last lines say whether each plan really has more theme words than it, or than the plan that
    --control names, texts of one seed and prompt being compared with each other.

    \b
    feature-atlas score --plan war.json --plan other.json --words "war,army,soldier*" --samples 24
    """
    from atlas.atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.cli.progress import Progress
    from queries.steer.plan import SteeringPlan
    from queries.steer.printed import with_errors
    from queries.steer.score import ThemeScore, read_words, theme_score, verdict

    if not plan_files:
        raise click.UsageError("give at least one --plan; `steer --save-plan FILE` writes one")
    with open_atlas(atlas) as opened:
        plans: dict[str, SteeringPlan | None] = {"unsteered": None}
        plans |= {_name(path, plan_files): SteeringPlan.load(path, opened) for path in plan_files}
    name = model or next(plan.model_name for plan in plans.values() if plan)
    loaded, tokenizer = announced_model(name, device)
    if not generation["temperature"]:  # without sampling all samples are one
        samples, generation["top_p"] = 1, None
    scores = theme_score(
        loaded,
        tokenizer,
        prompts,
        read_words(words),
        plans,
        control=control,
        samples=samples,
        progress=Progress(),
        **generation,
    )
    if format_ != "table":
        print_rows([asdict(each) for each in scores], [field.name for field in fields(ThemeScore)], format_)
        return
    rows = [with_errors(each) for each in scores]
    print_rows(rows, [*rows[0]])
    click.echo(f"\n{verdict(scores)}")


def _name(path: Path, all_: tuple[Path, ...]) -> str:
    """A plan's name in the table: its file's, with the folder where two share it."""
    return path.stem if [other.stem for other in all_].count(path.stem) == 1 else str(path)

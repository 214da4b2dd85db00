"""The command `score`: compare saved plans by a theme."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import click

from atlas.options import atlas_option, format_option
from queries.model_options import announced_model, device_option, model_option


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
    from atlas.output import print_rows
    from queries.plan import SteeringPlan
    from queries.score import ThemeScore, read_words, theme_score, verdict

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

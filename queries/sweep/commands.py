"""The command sweep."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlas.cli.options import THRESHOLD, atlas_option, format_option, ray_option
from queries.steer.commands import announced_model, device_option, generation_options, model_option
from queries.steer.intervention import ADD, SUPPRESS

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.sweep.design import Design
    from queries.sweep.scores import Judged
    from queries.sweep.trials import Trial

TABLES = ("arms", "contrasts", "strengths", "trials")


def _listed(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else None


@click.command()
@click.argument("features", nargs=-1, required=True, metavar="FEATURE…")
@atlas_option
@click.option("--words", required=True, help="The theme's words: war,army,soldier* or a file of them.")
@click.option("--theme", help="The theme in words, for the prompted arm and a judge.  [default: the first word]")
@click.option("--output", "-o", type=click.Path(file_okay=False, path_type=Path), required=True, help="A folder.")
@click.option("--mode", type=click.Choice((ADD, SUPPRESS)), default=ADD, show_default=True)
@click.option(
    "--strengths",
    callback=_listed,
    help="add: total doses, 36% of each layer's median norm or 40; suppress: r. lineage=72%: for that arm alone.  "
    "[default: 12%,24%,36%,48%; 0 … -64]",
)
@click.option("--arms", callback=_listed, help="Kinds of arms.  [default: all that the mode has]")
@click.option("--prompt", "prompts", multiple=True, help="Repeatable; every second one reports.  [default: eight]")
@click.option(
    "--samples", type=click.IntRange(min=1), default=16, show_default=True, help="Of each prompt that chooses."
)
@click.option(
    "--report-samples", type=click.IntRange(min=1), default=32, show_default=True, help="Of each that reports."
)
@click.option("--min-res", type=THRESHOLD, default=0.5, show_default=True, help="Where the lineage ends.")
@click.option("--min-module", type=THRESHOLD, default=0.25, show_default=True, help="Its smallest mlp and att cosine.")
@click.option("--held-out", multiple=True, metavar="ID", help="Read texts by these features.  [default: by --words]")
@click.option(
    "--contrast",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text, for differences of means: its sentences with and without --words.",
)
@generation_options(tokens=36, temperature=1.27, top_p=0.7)
@model_option
@device_option
@click.option(
    "--judge", metavar="URL", help="Rate every text by a server of the OpenAI protocol: http://127.0.0.1:8080/v1."
)
@click.option("--judge-model", metavar="NAME", help="The model to ask there.")
@click.option("--subject", "subjects", multiple=True, help="Rate for this subject too; repeatable.")
@ray_option(
    "Make texts on the Ray cluster there, whose nodes find the atlas where it is here; alone: on one of its own."
)
@click.option("--dry-run", is_flag=True, help="Say what it would do and how long it would take.")
@click.option("--rows", type=click.Choice(TABLES), default="arms", show_default=True, help="What is printed.")
@format_option
def sweep(
    features: tuple[str, ...],
    atlas: str | None,
    output: Path,
    device: str,
    generation: dict[str, Any],
    judge: str | None,
    judge_model: str | None,
    subjects: tuple[str, ...],
    ray: str | None,
    dry_run: bool,
    rows: str,
    format_: str,
    **choices: Any,
) -> None:
    """Steering measured: arms × strengths × texts, along the lineage of FEATURE and every way it is compared with.

    All arms of one strength are given the same total dose: the sum of the lengths added over layers. Texts of one
    prompt and sample are drawn by the same random numbers in every arm. Half the prompts choose each arm's strength and
    layer; what is chosen, and nothing else, is run and reported on the other half. Every text and score is kept in the
    folder; a sweep that was stopped goes on.

    \b
    feature-atlas sweep FEATURE --words "war,army,soldier*" -o war --contrast prose.txt --dry-run
    feature-atlas sweep FEATURE --words "war,army,soldier*" -o war --strengths 24%,36% --arms lineage,single,random
    feature-atlas sweep FEATURE --words "war,army,soldier*" -o war-less --mode suppress
    """
    from atlas.atlas import open_atlas
    from atlas.cli.progress import Progress
    from atlas.cluster import cluster
    from queries.sweep.judge.client import Server
    from queries.sweep.judge.rated import rated_sweep
    from queries.sweep.on_ray import made_on_ray
    from queries.sweep.running import Sweep

    if bool(judge) != bool(judge_model):
        raise click.UsageError("--judge URL and --judge-model NAME belong together")
    # An address that is none is refused now, not after hours of texts.
    server = Server(judge, judge_model) if judge and judge_model else None
    with open_atlas(atlas) as opened, ExitStack() as stack:
        design = _with_held_out(opened, _design(opened, features, choices, generation))
        model, tokenizer = announced_model(design.model, device)
        elsewhere = None
        if ray is not None and not dry_run:
            # Around all halves of the sweep: its workers keep the model.
            elsewhere = partial(made_on_ray, stack.enter_context(cluster(ray)), opened, design)
        made = Sweep(opened, model, tokenizer, design, elsewhere=elsewhere)
        estimate = made.estimate(output)
        click.echo(str(estimate), err=True)
        if dry_run:
            _print([asdict(estimate) | {"seconds": estimate.seconds}], None, format_)
            return
        trials, judged = rated_sweep(
            made, output, server, subjects, Progress(), lambda line: click.echo(line, err=True)
        )
    _finish(design, output, trials, judged, rows, format_)


def _design(atlas: Atlas, features: tuple[str, ...], choices: dict[str, Any], generation: dict[str, Any]) -> Design:
    """The design of the command's options; what is left open gets the mode's defaults."""
    from queries.steer.score import read_words
    from queries.sweep.design import DOSES, FACTORS, KINDS, MEANS, PROMPTS, TOKENS, Design

    mode, contrast = choices["mode"], choices["contrast"]
    ids = tuple(atlas.full_id(each) for each in features)
    record, _ = atlas.locate(ids[0])
    words = tuple(word.strip() for word in read_words(choices["words"]))
    arms = choices["arms"]
    if arms is None:
        arms = tuple(kind for kind in KINDS[mode] if kind != MEANS or contrast)
        if MEANS in KINDS[mode] and not contrast:
            click.echo("differences of means are left out: they need --contrast FILE", err=True)
    source = click.get_current_context().get_parameter_source("max_new_tokens")
    if mode == SUPPRESS and source is not None and source.name == "DEFAULT":
        generation["max_new_tokens"] = TOKENS[SUPPRESS]
    if not generation["temperature"]:
        raise click.UsageError("a sweep samples: give a --temperature above 0")
    return Design(
        features=ids,
        theme=choices["theme"] or words[0].rstrip("*"),
        words=words,
        model=choices["model"] or record.model_name,
        mode=mode,
        strengths=choices["strengths"] or {ADD: DOSES, SUPPRESS: FACTORS}[mode],
        arms=arms,
        prompts=choices["prompts"] or PROMPTS[mode],
        held_out=tuple(choices["held_out"]),
        contrast=str(contrast) if contrast else None,
        contrast_sha256=hashlib.sha256(contrast.read_bytes()).hexdigest() if contrast else None,
        atlas={"id": atlas.manifest.id, "state": atlas.manifest.state},
        **{name: choices[name] for name in ("samples", "report_samples", "min_res", "min_module")},
        **generation,
    )


def _with_held_out(atlas: Atlas, design: Design) -> Design:
    """The design with the held-out features that it amounts to, so that a repeated sweep reads by the same."""
    from dataclasses import replace

    from queries.steer.theme import theme_pattern
    from queries.sweep.arms import chain_of
    from queries.sweep.held_out import held_out

    found = held_out(atlas, chain_of(atlas, design), theme_pattern(design.words), design.held_out)
    if not found:
        click.echo("no other feature fires on the theme's words: texts are not read by features", err=True)
    return replace(design, held_out=tuple(found))


def _finish(design: Design, output: Path, trials: list[Trial], judged: Judged | None, rows: str, format_: str) -> None:
    """Write the tables and print the one that was asked for."""
    from queries.sweep.findings import ARM_COLUMNS, BESIDE, edges, sentences, tables_of, write_tables
    from queries.sweep.scores import scores_of

    scores = scores_of(design, trials, judged)
    tables = tables_of(scores)
    write_tables(output, tables)
    columns = None
    if format_ == "table" and rows == "arms":  # what fits a terminal; the other formats have every interval
        columns = [*ARM_COLUMNS, *(f"{scores.primary}{end}" for end in ("", "_low", "_high")), *BESIDE]
    _print([asdict(trial) for trial in trials] if rows == "trials" else tables[rows], columns, format_)
    if format_ == "table" and rows == "arms":
        lines = sentences(tables["contrasts"], scores.primary) + edges(scores)
        click.echo("\n" + "\n".join(lines) if lines else "\nno lineage arm: nothing is compared")
    failed = sum(trial.failed is not None for trial in trials)
    click.echo(f"{len(trials):,} texts in {output}, {failed} failed", err=True)


def _print(rows: list[dict[str, Any]], columns: list[str] | None, format_: str) -> None:
    from atlas.cli.output import print_rows

    print_rows(rows, columns or list(rows[0]) if rows else [], format_)

"""A sweep's part of a report: what was found, figures, tables, texts, and how it was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from queries.report.contents import Sweep
from queries.report.figures import figure, forest, lines, trade
from queries.report.page import Block, Code, Heading, Listed, Table, Text
from queries.steer.intervention import ADD
from queries.sweep.design import CHOOSE, EXPONENTIAL, LINEAGE, LINEAR, MEANS, REPORT, SINGLE, UPTO
from queries.sweep.findings import CONTRAST_COLUMNS, edges, sentences, shown_scores, tables_of
from queries.sweep.scores import Scores

Rows = list[dict[str, Any]]
Draw = Callable[[Any], None]
SHOWN_TEXTS = 2  # of each arm, the first: none is picked
_PAPER = (
    "The paper (§5.3, Figs 11 and 16) says that steering along a lineage beats one layer. It chose strengths on the "
    "texts that it shows, gave every layer the full strength, so that more layers were more dose, scored with "
    "gpt-4o-mini, had no random features, no prompt and no difference of means beside it, and printed no interval. "
    "Here the total dose is the same, and strengths are chosen on other prompts than those reported."
)


def sweep_blocks(sweep: Sweep, folder: Path) -> list[Block]:
    """The sweep's part; figures and their numbers are written to the report's folder."""
    tables = tables_of(sweep.scores)
    return [
        Heading(f"Steering: {sweep.design.theme} ({sweep.name})"),
        *_findings(sweep, tables["contrasts"]),
        *_figures(sweep, tables, folder),
        *_tables(sweep, tables),
        *_texts(sweep),
        *_method(sweep),
    ]


def _findings(sweep: Sweep, contrasts: Rows) -> Iterator[Block]:
    """Every primary contrast in words, those that speak against the lineage first and in no smaller type."""
    primary = sweep.scores.primary
    yield Heading("What was found", 3)
    yield Text(_PAPER)
    told = sentences(contrasts, primary)
    if not told:
        yield Text("There is no lineage arm, so nothing is compared.")
        return
    for title, word in (
        ("Where the lineage does worse", " is worse than "),
        ("Where these texts do not tell them apart", " is not told apart from "),
        ("Where the lineage does better", " is better than "),
    ):
        chosen = [line for line in told if word in line]
        yield Heading(title, 4)
        yield Listed(chosen) if chosen else Text("Nowhere.")
    if at_edge := edges(sweep.scores):
        yield Heading("Where the range of strengths was too short", 4)
        yield Listed(at_edge)


def _figures(sweep: Sweep, tables: Mapping[str, Rows], folder: Path) -> Iterator[Block]:
    primary = sweep.scores.primary
    dose = "total dose" if sweep.design.mode == ADD else "factor r"
    shown = [row for row in tables["strengths"] if row["half"] == CHOOSE and row["score"] == primary]
    steered = [row for row in shown if row["strength"] is not None]

    def picture(name: str, caption: str, rows: Rows, draw: Draw) -> Iterator[Block]:
        made = figure(folder, f"{sweep.name}-{name}", f"{sweep.design.theme}: {caption}.", rows, draw)
        if made is not None:
            yield made

    def by_strength(name: str, what: str, rows: Rows) -> Iterator[Block]:
        draw = lines(rows, "strength", "mean", "arm", (dose, primary))
        yield from picture(name, f"{primary} by {what}, on the prompts that choose", rows, draw)

    def by_layer(name: str, what: str, kind: str) -> Iterator[Block]:
        rows = [row | {"layer": int(row["arm"].partition(":")[2])} for row in steered if row["arm"].startswith(kind)]
        draw = lines(rows, "layer", "mean", "strength", ("layer", primary))
        yield from picture(name, f"{primary} of {what}, on the prompts that choose", rows, draw)

    yield from by_strength("dose", dose, [row for row in steered if ":" not in row["arm"]])
    yield from by_layer("layers", "one layer alone", f"{SINGLE}:")
    yield from by_layer("upto", "layers up to this one", f"{UPTO}:")
    if {LINEAR, EXPONENTIAL} & {row["arm"] for row in steered}:
        rows = [row for row in steered if row["arm"] in (LINEAGE, LINEAR, EXPONENTIAL)]
        yield from by_strength("schedules", "schedule", rows)
    arms = tables["arms"]
    yield from picture(
        "arms", f"{primary} of every arm at its best, reported", arms, forest(arms, primary, "arm", primary)
    )
    axes = ("nats a token under the unsteered model", "theme words a text")
    yield from picture("trade", "theme words against nats, reported", arms, trade(arms, axes))
    rows = [row for row in tables["contrasts"] if row["score"] == primary]
    rows = [row | {"name": f"{row['control']} ({row['kind']})"} for row in rows]
    draw = forest(rows, "difference", "name", f"difference in {primary}", zero=True)
    yield from picture("contrasts", f"{primary}, lineage less the other arm, reported", rows, draw)


def _tables(sweep: Sweep, tables: Mapping[str, Rows]) -> Iterator[Block]:
    names = shown_scores(sweep.scores)
    yield Heading("Every arm at its best, on the prompts that report", 3)
    yield Text("Means with 95 % intervals over prompts and samples. Failed texts have no score and are no zeros.")
    arms = [
        {name: row[name] for name in ("arm", "chosen", "strength", "texts", "failed")}
        | {name: _interval(row, name) for name in names}
        for row in tables["arms"]
    ]
    yield Table(["arm", "chosen", "strength", "texts", "failed", *names], arms)
    yield Heading("Contrasts", 3)
    yield Text(
        f"Pairs of one prompt and sample; p_holm corrects for all contrasts of a kind on {sweep.scores.primary}."
    )
    yield Table(CONTRAST_COLUMNS, [row for row in tables["contrasts"] if row["n"]])


def _interval(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    if row[f"{name}_low"] is None:
        return f"{row[name]:.2f}"
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _texts(sweep: Sweep) -> Iterator[Block]:
    yield Heading("Texts", 3)
    yield Text(
        f"The first {SHOWN_TEXTS} of each reported arm, none picked; all of them are in {sweep.name}-trials.csv, plans "
        f"in {sweep.name}-plans."
    )
    seen: dict[tuple[str, str | None], int] = {}
    for trial in sweep.trials:
        key = (trial.arm, trial.strength)
        if trial.half != REPORT or seen.get(key, 0) >= SHOWN_TEXTS:
            continue
        seen[key] = seen.get(key, 0) + 1
        prompt = sweep.design.prompts[trial.prompt]
        yield Code(
            f"{trial.arm} {trial.strength or ''}\n{prompt} ▸{trial.text if trial.failed is None else trial.failed}"
        )


def _method(sweep: Sweep) -> Iterator[Block]:
    design, scores = sweep.design, sweep.scores
    yield Heading("How", 3)
    items = [
        f"seeds of the lineage: {', '.join(design.features)}; thresholds {design.min_res}, modules {design.min_module}",
        f"theme words: {', '.join(design.words)}",
        f"{len(design.prompts)} prompts, every second one reports; {design.samples} samples each to choose by, "
        f"{design.report_samples} to report; {design.max_new_tokens} tokens, temperature {design.temperature}, top-p "
        f"{design.top_p}, seed {design.seed}",
        f"texts read by {len(design.held_out)} held-out features: {', '.join(design.held_out) or 'none'}",
    ]
    if scores.primary == "success" and scores.limit is not None:
        items.append(f"a text is fluent up to {scores.limit:.2f} nats a token")
    if MEANS in design.arms:
        items.append(f"contrast text: {design.contrast}, sha256 {design.contrast_sha256}")
    if sweep.judge is not None:
        ordered = ", ".join(f"{each['question']} {each['right']:.0%}" for each in sweep.judge["planted"])
        items.append(
            f"judge: {sweep.judge['model']} at {sweep.judge['url']}; planted pairs in the right order: {ordered}; "
            f"{sweep.judge['missing']} of {sweep.judge['ratings']} ratings missing"
        )
    yield Listed(items)
    for run in sweep.runs[-1:]:
        yield Code(run["command"])
        versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
        yield Text(f"{versions}; {run['device']}, {run['dtype']}, batches of {run['batch']}; begun {run['started']}")


def scores_note(scores: Scores) -> str:
    """What the primary score is, in a sentence."""
    if scores.primary == "total":
        return "total is the judge's Behavioral × Coherence, both over 5."
    return "success is 1 where a text is on the theme, fluent and does not repeat itself."

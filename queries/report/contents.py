"""What a report is made of: the sweeps in a folder, and rows that `evidence` printed there."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.errors import PlanError
from queries.sweep.design import DESIGN, RUNS, Design, read_design
from queries.sweep.findings import reported
from queries.sweep.judge.table import read_judged
from queries.sweep.scores import Scores, scores_of
from queries.sweep.trials import Trial, read_trials

EVIDENCE = "evidence"  # the folder of rows, in DIR: deactivation.json, map.csv, …
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Sweep:
    """A sweep that was run."""

    name: str  # its folder's
    folder: Path
    design: Design
    trials: list[Trial]
    scores: Scores
    judge: dict[str, Any] | None  # what the judge was, and how it ordered planted texts
    runs: Rows  # commands, times, versions


@dataclass(frozen=True)
class Contents:
    """Everything in a folder."""

    sweeps: tuple[Sweep, ...]
    evidence: dict[str, Rows]  # rows by the name of their file


def contents_of(folder: Path) -> Contents:
    """The sweeps in `folder`, itself or its folders, and rows in `folder/evidence`; raises PlanError where none is."""
    places = [folder] if (folder / DESIGN).exists() else sorted(path.parent for path in folder.glob(f"*/{DESIGN}"))
    sweeps = tuple(_sweep(place) for place in places)
    evidence = {path.stem: list(_rows(path)) for path in sorted((folder / EVIDENCE).glob("*.*"))}
    if not sweeps and not evidence:
        raise PlanError(
            f"{folder} holds no sweep and no {EVIDENCE}/*.json: run `sweep -o {folder}`, or write rows there with "
            "`evidence … --format json`"
        )
    return Contents(sweeps, evidence)


def _sweep(folder: Path) -> Sweep:
    design = read_design(folder)
    trials = read_trials(folder)
    if not any(trial.half == "report" for trial in trials):
        raise PlanError(f"the sweep in {folder} is not finished: repeat its command, which goes on where it was")
    judged, judge = read_judged(folder)
    scores = scores_of(design, trials, judged)
    keys = reported(scores)
    # What another judge had chosen once is kept in the folder, but is no part of this.
    trials = [trial for trial in trials if trial.half != "report" or (trial.arm, trial.strength) in keys]
    runs = folder / RUNS
    return Sweep(
        folder.resolve().name,
        folder,
        design,
        trials,
        scores_of(design, trials, judged),
        judge,
        json.loads(runs.read_text(encoding="utf-8")) if runs.exists() else [],
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of json, jsonl or csv, numbers as numbers; raises PlanError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            yield from ({name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(text.splitlines()))
        elif path.suffix in (".json", ".jsonl"):
            rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ValueError("no list of objects")
            yield from rows
    except (OSError, ValueError) as error:
        raise PlanError(f"{path} holds no rows ({error}): write it with `evidence … --format json`") from None


def _value(cell: str | None) -> Any:
    if cell is None or cell == "":
        return None
    try:
        return float(cell) if "." in cell or "e" in cell else int(cell)
    except ValueError:
        return cell

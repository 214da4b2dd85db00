"""Trials as arrays: every score of every cell, prompts × samples, missing where a text failed or has no such score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from queries.steer.intervention import ADD
from queries.sweep.design import CHOOSE, KINDS, PROMPTED, REPORT, UNSTEERED, Design
from queries.sweep.trials import Trial

MARKS = ("words", "activation", "nats", "rep3", "zlib")
REPETITION = 0.2  # share of repeated 3-grams above which a text is no longer fluent
FLUENT = 0.95  # quantile of unsteered and prompted texts' nats up to which a text is fluent
Key = tuple[str, str | None]  # arm and strength
Judged = Mapping[tuple[str, str | None, int, int], Mapping[str, float | None]]  # by trial, columns of a judge


class Scores(NamedTuple):
    """All scores of a sweep."""

    cells: dict[Key, dict[str, np.ndarray]]  # float64 [prompts, samples] by cell and score, NaN: missing
    made: dict[Key, np.ndarray]  # bool [prompts, samples]: there is a trial
    failed: dict[Key, np.ndarray]  # bool [prompts, samples]: it has no text
    limit: float | None  # nats a token up to which a text is fluent
    primary: str  # the score that strengths are chosen by and contrasts are tested on
    places: dict[str, tuple[np.ndarray, ...]]  # half -> its prompts and samples, an index into the arrays

    def values(self, key: Key, score: str, half: str) -> np.ndarray:
        """A score of a cell on the prompts of a half."""
        found: np.ndarray = self.cells[key][score][self.places[half]]
        return found


def scores_of(design: Design, trials: Sequence[Trial], judged: Judged | None = None) -> Scores:
    """The scores of trials; with `judged`, its columns too, and strengths are chosen by its `total`.

    Without a judge the primary score is `success`: 1 where a text has a word of the theme (in suppression: has none),
    at most `limit` nats a token and at most REPETITION repeated 3-grams, else 0. The limit is the FLUENT quantile of
    the unsteered and prompted texts of the half that chooses.
    """
    shape = (len(design.prompts), max(design.samples, design.report_samples))
    columns = list(dict.fromkeys(name for row in (judged or {}).values() for name in row))
    cells: dict[Key, dict[str, np.ndarray]] = {}
    made: dict[Key, np.ndarray] = {}
    failed: dict[Key, np.ndarray] = {}
    for trial in trials:
        key = (trial.arm, trial.strength)
        if key not in cells:
            cells[key] = {name: np.full(shape, np.nan) for name in (*MARKS, *columns)}
            made[key], failed[key] = (np.zeros(shape, dtype=bool) for _ in range(2))
        place = (trial.prompt, trial.sample)
        made[key][place] = True
        failed[key][place] = trial.failed is not None
        found = {name: getattr(trial, name) for name in MARKS}
        found |= dict((judged or {}).get((*key, *place), {}))
        for name, value in found.items():
            if value is not None:
                cells[key][name][place] = value
    places = {}
    for half, samples in ((CHOOSE, design.samples), (REPORT, design.report_samples)):
        prompts = [prompt for prompt in range(shape[0]) if design.half(prompt) == half]
        places[half] = np.ix_(prompts, range(samples))
    limit = _limit(cells, places[CHOOSE])
    # In the design's order, whatever order the trials came in: of equal strengths the first is chosen.
    keys = sorted(cells, key=lambda key: _order(design, key))
    for values in cells.values():
        with np.errstate(invalid="ignore"):
            values["share"] = np.where(np.isnan(values["words"]), np.nan, values["words"] > 0)
            values["success"] = _success(values, limit, design.mode == ADD)
    made, failed = ({key: part[key] for key in keys} for part in (made, failed))
    return Scores({key: cells[key] for key in keys}, made, failed, limit, "total" if judged else "success", places)


def _order(design: Design, key: Key) -> tuple[int, int, int]:
    """Kind, layer and strength as the design lists them."""
    kind, _, layer = key[0].partition(":")
    tried = design.tried(kind)
    strength = tried.index(key[1]) if key[1] in tried else 0
    return KINDS[design.mode].index(kind), int(layer or -1), strength


def _limit(cells: Mapping[Key, Mapping[str, np.ndarray]], place: tuple[np.ndarray, ...]) -> float | None:
    plain = [values["nats"][place].ravel() for (arm, _), values in cells.items() if arm in (UNSTEERED, PROMPTED)]
    known = np.concatenate(plain)[np.isfinite(np.concatenate(plain))] if plain else np.empty(0)
    return float(np.quantile(known, FLUENT)) if len(known) else None


def _success(values: Mapping[str, np.ndarray], limit: float | None, wanted: bool) -> np.ndarray:
    """1, 0 or NaN where the text is missing; a text without tokens has no theme and no faults."""
    on_theme = (values["words"] > 0) == wanted
    # NaN compares false: a text too short to repeat itself does not.
    fluent = ~(values["nats"] > (np.inf if limit is None else limit)) & ~(values["rep3"] > REPETITION)
    success: np.ndarray = np.where(np.isnan(values["words"]), np.nan, on_theme & fluent)
    return success

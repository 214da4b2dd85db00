"""Advice on a feature: the layers of its lineage ranked by what they do to texts, a nat of fluency that it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import PlanError
from atlas.schema import FEATURE
from queries.advice.output_score import first_tokens, output_score
from queries.sweep.arms import Arm, Cell, Plans
from queries.sweep.design import CHOOSE, LINEAGE, SINGLE, UNSTEERED, Design
from queries.sweep.intervals import interval
from queries.sweep.scores import Scores, scores_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from atlas.cli.progress import Progress
    from queries.sweep.running import Sweep

STRENGTH = "36%"
SAMPLES, TOKENS = 4, 24  # texts of each of four prompts, and their length
CONTROLS = 3  # other features that the output score is compared with
LEAST_COST = 0.05  # nats: a smaller cost counts as this, or a layer that costs nothing would rank by noise
_WORDS = 8
_RECORD = f"MATCH (f:{FEATURE}) WHERE f.id IN $ids RETURN f.id AS id, f.label AS label, f.fires_on AS fires_on, "
_RECORD += "f.max_activation AS largest"
COLUMNS = (
    *("layers", "feature", "label", "norm", "largest", "strength", "output_score", "output_random", "texts", "failed"),
    *("words", "words_more", "words_more_low", "words_more_high", "nats_more", "nats_more_low", "nats_more_high"),
    "words_per_nat",
)


def words_of(atlas: Atlas, feature: str) -> tuple[str, ...]:
    """The words that a feature fires on, as a theme; raises PlanError where none is on record."""
    (row,) = atlas.read(_RECORD, ids=[atlas.full_id(feature)])
    found = [word.strip() for word in (row["fires_on"] or "").split(",")]
    words = tuple(word for word in found if len(word) > 2 and word.isalpha())[:_WORDS]
    if not words:
        raise PlanError(f"no words are on record for {feature}: give --words, or run label --text first")
    return words


def advice_design(
    atlas: Atlas, feature: str, words: Sequence[str], *, strength: str = STRENGTH, samples: int = SAMPLES, **values: Any
) -> Design:
    """The small sweep that advice is made from: every layer alone and all together, at one total dose.

    values: further fields of Design. Raises PlanError, UnknownFeature.
    """
    id_ = atlas.full_id(feature)
    record, _ = atlas.locate(id_)
    given: dict[str, Any] = {"model": record.model_name, "max_new_tokens": TOKENS, **values}
    return Design(
        features=(id_,),
        theme=words[0].rstrip("*"),
        words=tuple(words),
        strengths=(strength,),
        arms=(UNSTEERED, LINEAGE, SINGLE),
        samples=samples,
        report_samples=1,
        atlas={"id": atlas.manifest.id, "state": atlas.manifest.state},
        **given,
    )


def advice(made: Sweep, folder: Path, progress: Progress) -> list[dict[str, Any]]:
    """A row a layer of the lineage and one for all of them, the best handle first; columns COLUMNS.

    norm: median norm of the stream there. largest: length of what the feature writes at its largest activation on
    record. strength: the length that was added. output_score, output_random: nats by which adding it, or another
    feature, raises the words as next tokens. words_more, nats_more: theme words a text and nats a token more than
    unsteered, pair by pair. words_per_nat: their ratio, a cost below LEAST_COST counting as that.
    """
    design = made.design
    trials = made.choose(folder, progress)
    scores = scores_of(design, trials)
    streams = made.streams(folder)
    plans = Plans(made.atlas, design, made.chain, streams)
    known = {row["id"]: row for row in made.atlas.read(_RECORD, ids=list(made.chain))}
    tokens = first_tokens(made.tokenizer, design.words)
    rows = []
    for cell in made.cells:
        if cell.strength is None:
            continue
        plan = plans.plan(cell)
        if plan is None:
            continue
        others = [plan.control(made.atlas, design.seed + draw) for draw in range(CONTROLS)]
        ours, random = output_score(made.model, made.prompts, tokens, plan, others)
        turned = plan.interventions
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"layers": "all" if cell.arm.layer is None else str(cell.arm.layer)}
        row |= {"strength": sum(abs(each.strength.value) for each in turned if each.strength is not None)}
        row |= {"output_score": ours, "output_random": random} | _figures(scores, cell)
        if len(turned) == 1:
            (only,) = turned
            row |= {"feature": only.feature, "label": known[only.feature]["label"]}
            row |= {"norm": streams.norms[only.dictionary.layer], "largest": _largest(made.atlas, known[only.feature])}
        rows.append(row)
    return sorted(rows, key=lambda row: -(row["words_per_nat"] if row["words_per_nat"] is not None else -np.inf))


def _figures(scores: Scores, cell: Cell) -> dict[str, Any]:
    """What a cell's texts have more than the unsteered ones."""
    key = (cell.arm.name, cell.strength)
    plain = (Arm(UNSTEERED).name, None)
    failed, made = scores.failed[key][scores.places[CHOOSE]], scores.made[key][scores.places[CHOOSE]]
    words = interval(scores.values(key, "words", CHOOSE))
    found: dict[str, Any] = {"texts": int(made.sum()), "failed": int(failed.sum()), "words": words.mean}
    for name in ("words", "nats"):
        more = interval(scores.values(key, name, CHOOSE) - scores.values(plain, name, CHOOSE))
        found |= {f"{name}_more": more.mean, f"{name}_more_low": more.low, f"{name}_more_high": more.high}
    if found["words_more"] is not None and found["nats_more"] is not None:
        found["words_per_nat"] = found["words_more"] / max(found["nats_more"], LEAST_COST)
    return found


def _largest(atlas: Atlas, row: dict[str, Any]) -> float | None:
    """The length that a feature writes at its largest activation; None where none is on record."""
    if not row["largest"]:
        return None
    record, index = atlas.locate(row["id"])
    return float(row["largest"] * atlas.rows(record.id).vectors["norms"][index])

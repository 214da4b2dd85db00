"""What a sweep found: each arm at the strength chosen on one half of the prompts, reported on the other; contrasts.

The contrasts are named here, before any text is made; Holm's correction is over all of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atlas.cli.output import render
from atlas.folder.manifest import write_text
from queries.steer.strength import Strength
from queries.sweep.design import (
    CHOOSE,
    EXPONENTIAL,
    LINEAGE,
    LINEAR,
    MEANS,
    NOISE,
    PROMPTED,
    RANDOM,
    REPORT,
    REVERSED,
    SEEDS,
    SINGLE,
    UNSTEERED,
    UPTO,
)
from queries.sweep.intervals import holm, interval
from queries.sweep.scores import Key, Scores

# Each is compared with the lineage: at its own best strength and layer, and at the lineage's own dose.
AGAINST = (UNSTEERED, SINGLE, SEEDS, PROMPTED, MEANS, RANDOM, NOISE, REVERSED, LINEAR, EXPONENTIAL, UPTO)
BEST, EQUAL = "each at its best", "equal dose"
SHOWN = ("success", "words", "share", "activation", "nats", "rep3", "zlib")
JUDGED = ("total", "behavioral", "coherence", "axbench")
ARM_COLUMNS = ("arm", "chosen", "strength", "texts", "failed")
BESIDE = ("words", "activation", "nats", "rep3")  # means that stand beside the primary score
CONTRAST_COLUMNS = ("contrast", "kind", "arm", "control", "score", "n", "difference", "low", "high", "p", "p_holm")


def shown_scores(scores: Scores) -> list[str]:
    """The scores that tables print, the judge's first where there is one."""
    known = next(iter(scores.cells.values()), {})
    return [name for name in (*JUDGED, *SHOWN) if name in known]


def strength_rows(scores: Scores) -> list[dict[str, Any]]:
    """A row a cell, half and score: `arm, strength, half, score, n, failed, mean, low, high`; no row without a text."""
    rows = []
    for (arm, strength), failed in scores.failed.items():
        for half, place in scores.places.items():
            if not scores.made[arm, strength][place].any():
                continue
            for score in shown_scores(scores):
                found = interval(scores.values((arm, strength), score, half))
                row: dict[str, Any] = {"arm": arm, "strength": strength, "half": half, "score": score, "n": found.n}
                rows.append(
                    row | {"failed": int(failed[place].sum()), "mean": found.mean, "low": found.low, "high": found.high}
                )
    return rows


def chosen(scores: Scores, strength: str | None = None) -> dict[str, Key]:
    """Of each kind of arm the layer and strength with the best primary score on the choosing half.

    strength: only that one, for arms that have any. Of equals the first stands: the smaller dose where doses ascend.
    """
    best: dict[str, tuple[float, Key]] = {}
    for key in scores.cells:
        kind = key[0].partition(":")[0]
        if strength is not None and key[1] not in (None, strength):
            continue
        mean = _mean(scores.values(key, scores.primary, CHOOSE))
        if kind not in best or mean > best[kind][0]:
            best[kind] = (mean, key)
    return {kind: key for kind, (_, key) in best.items()}


def reported(scores: Scores) -> set[Key]:
    """The cells that report: each kind of arm at its best, and at the strength that is best for the lineage."""
    best = chosen(scores)
    equal = chosen(scores, best[LINEAGE][1]) if LINEAGE in best else {}
    return {*best.values(), *equal.values()}


def arm_rows(scores: Scores) -> list[dict[str, Any]]:
    """A row a kind of arm, at what was chosen, on the reporting half; each score with its interval."""
    rows = []
    for kind, key in chosen(scores).items():
        failed = scores.failed[key][scores.places[REPORT]]
        row: dict[str, Any] = {"arm": kind, "chosen": key[0], "strength": key[1]}
        row |= {"texts": int(scores.made[key][scores.places[REPORT]].sum()), "failed": int(failed.sum())}
        for score in shown_scores(scores):
            found = interval(scores.values(key, score, REPORT))
            row |= {score: found.mean, f"{score}_low": found.low, f"{score}_high": found.high}
        rows.append(row)
    return rows


def contrast_rows(scores: Scores) -> list[dict[str, Any]]:
    """The named contrasts on the reporting half, text by text: CONTRAST_COLUMNS; p_holm for the primary score alone."""
    best = chosen(scores)
    if LINEAGE not in best:
        return []
    ours = best[LINEAGE]
    kinds: dict[str, Mapping[str, Key]] = {BEST: best, EQUAL: chosen(scores, ours[1])}
    rows: list[dict[str, Any]] = []
    for kind, keys in kinds.items():
        others = [name for name in AGAINST if name in keys and (kind == BEST or keys[name][1] is not None)]
        for score in shown_scores(scores):
            part = [_contrast(scores, kind, ours, name, keys[name], score) for name in others]
            if score == scores.primary:
                for row, adjusted in zip(part, holm([row["p"] for row in part]), strict=True):
                    row["p_holm"] = adjusted
            rows += part
    return rows


def edges(scores: Scores) -> list[str]:
    """A sentence for each kind of arm whose best strength is the strongest that was tried: more may be better."""
    lines = []
    for kind, (arm, strength) in chosen(scores).items():
        tried = [key[1] for key in scores.cells if key[0] == arm and key[1] is not None]
        if strength is None or len(tried) < 2 or kind in (RANDOM, NOISE):
            continue
        if abs(Strength.of(strength).value) == max(abs(Strength.of(each).value) for each in tried):
            lines.append(f"{arm}: its best strength, {strength}, is the strongest that was tried; more may be better")
    return lines


def _contrast(scores: Scores, kind: str, ours: Key, name: str, other: Key, score: str) -> dict[str, Any]:
    found = interval(scores.values(ours, score, REPORT) - scores.values(other, score, REPORT))
    return {
        "contrast": f"{LINEAGE} − {name}",
        "kind": kind,
        "arm": _named(ours),
        "control": _named(other),
        "score": score,
        "n": found.n,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "p_holm": None,
    }


def tables_of(scores: Scores) -> dict[str, list[dict[str, Any]]]:
    """The tables by name: arms, contrasts, strengths."""
    return {"arms": arm_rows(scores), "contrasts": contrast_rows(scores), "strengths": strength_rows(scores)}


def write_tables(folder: Path, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write each table as csv to a sweep's folder."""
    for name, rows in tables.items():
        if rows:
            write_text(folder / f"{name}.csv", render(rows, list(rows[0]), "csv"))


def sentences(rows: Iterable[Mapping[str, Any]], primary: str) -> list[str]:
    """The primary contrasts in words, each with its interval: a failure as plainly as a success."""
    lines = []
    for row in rows:
        if row["score"] != primary or row["difference"] is None:
            continue
        between = f"[{_number(row['low'])}, {_number(row['high'])}]" if row["low"] is not None else "(no interval)"
        sure = row["p_holm"] is not None and row["p_holm"] < 0.05
        word = ("better than" if row["difference"] > 0 else "worse than") if sure else "not told apart from"
        p = "" if row["p_holm"] is None else f", Holm p {row['p_holm']:.3f}"
        lines.append(
            f"{row['kind']}: {row['arm']} is {word} {row['control']}: {primary} {row['difference']:+.3f} {between}{p}"
        )
    return lines


def _named(key: Key) -> str:
    return key[0] if key[1] is None else f"{key[0]} {key[1]}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    # Nothing there is worse than anything: an arm all of whose texts failed is not chosen.
    return float(known.mean()) if len(known) else -np.inf

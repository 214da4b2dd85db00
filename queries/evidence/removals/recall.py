"""The other way round: of the strong effects that trying everything finds, which had the atlas named?

Every active predecessor of every target was removed alone. An effect is strong where at least STRONG of the target's
activation goes. Recall is the share of strong effects among the first of a ranking, precision the share of the active
ones among those first that have a strong effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from queries.evidence.intervals import row_of, shares
from queries.evidence.removals.removal import Trial
from queries.evidence.sources import NONE, ranks_among

STRONG = 0.5
TOPS = (1, 5, 20)
RANKINGS = {  # name -> column of pairs_of
    "cosine": "by_cosine",  # of decoder rows, among all of the dictionary
    "push": "by_push",  # what one unit of its activation adds to the target's pre-activation, among all
    "here": "by_here",  # the same times its activation at the token, among the active ones
    "correlation": "by_correlation",  # on a text, among stored edges
}
COLUMNS = (
    *("layer", "site", "margin", "by", "top", "strong", "recall", "recall_low", "recall_high"),
    *("tried", "precision", "precision_low", "precision_high"),
)
COSINE_COLUMNS = ("layer", "site", "cosine", "n", "success", "success_low", "success_high", "change")
COSINES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_MARGINS = (("all", -np.inf), ("above 1.5", 1.5))
Row = dict[str, Any]
Table = Mapping[str, np.ndarray]


def pairs_of(trial: Trial) -> dict[str, np.ndarray]:
    """Columns about every pair of a target and an active predecessor, [m · n] each.

    change, margin, amount, cosine; ranks of the predecessor among all of its dictionary by cosine and by push, among
    the active ones by amount × push (`here`), among stored edges by correlation; NONE for no rank. `edge`: bool,
    whether a match is stored.
    """
    pair, targets, active = trial.source, trial.targets, trial.active
    cosine, push = pair.cosines(targets), pair.pushes(targets)
    none = np.full((len(targets), len(active)), NONE, dtype=np.int32)
    found = {
        "change": trial.change.T,
        "margin": np.broadcast_to(trial.margin[:, None], none.shape),
        "cosine": cosine[:, active],
        "by_cosine": ranks_among(cosine, active),
        "by_push": none if push is None else ranks_among(push, active),
        "by_here": none,
        "by_correlation": none.copy(),
        "edge": np.zeros(none.shape, dtype=bool),
    }
    if push is not None:
        norms = pair.rows[1].vectors["norms"][active]
        found["by_here"] = ranks_among(push[:, active] * (trial.amount / norms), np.arange(len(active)))
    place = np.full(pair.earlier.d_sae, -1)
    place[active] = np.arange(len(active))
    for n, feature in enumerate(targets.tolist()):
        own = np.flatnonzero(pair.b == feature) if len(pair.b) else np.empty(0, dtype=int)
        correlations = np.nan_to_num(pair.correlation[own], nan=-np.inf)
        rank = np.argsort(np.argsort(-correlations, kind="stable"), kind="stable")
        at = place[pair.a[own]]
        there = at >= 0
        found["by_correlation"][n, at[there & np.isfinite(correlations)]] = rank[there & np.isfinite(correlations)]
        found["edge"][n, at[there & (pair.rank[own] != NONE)]] = True
    return {name: np.ascontiguousarray(array).ravel() for name, array in found.items()}


def recall_rows(pairs: Table, places: list[tuple[int, str]], seed: int) -> list[Row]:
    """A row for each layer, site, margin and ranking; `top` is null for `edge`: whether a match is stored at all."""
    return [
        row
        for layer, site in places
        for margin, least in _MARGINS
        for row in _ranked(_where(pairs, layer, site, least), (layer, site, margin), seed)
    ]


def _ranked(pairs: Table, where: tuple[Any, ...], seed: int) -> Iterator[Row]:
    strong = pairs["change"] >= STRONG
    if not strong.any():
        return
    chosen: list[tuple[str, int | None, np.ndarray]] = [("edge", None, pairs["edge"])]
    for name, column in RANKINGS.items():
        if (pairs[column] != NONE).any():
            chosen += [(name, top, pairs[column] < top) for top in TOPS]
    for name, top, named in chosen:
        found = (strong & named).astype(float)
        recall = shares(found, strong.astype(float), pairs["text"], seed)
        tried = named.astype(float)
        precision = shares(found, tried, pairs["text"], seed) if named.any() else (None, None, None)
        values = (*where, name, top, int(strong.sum()), *recall, int(named.sum()), *precision)
        yield row_of(COLUMNS, values)


def cosine_rows(pairs: Table, places: list[tuple[int, str]], seed: int) -> list[Row]:
    """Success of removing the best match where it is active, by its cosine."""
    rows = []
    for layer, site in places:
        best = _where(pairs, layer, site, -np.inf)
        best = {name: column[best["by_cosine"] == 0] for name, column in best.items()}
        for low, high in pairwise(COSINES):
            kept = (best["cosine"] >= low) & ((best["cosine"] < high) | (high == COSINES[-1]))
            if kept.any():
                change = best["change"][kept]
                success = shares((change == 1).astype(float), np.ones(len(change)), best["text"][kept], seed)
                values = (layer, site, f"{low:g}-{high:g}", len(change), *success, float(change.mean()))
                rows.append(row_of(COSINE_COLUMNS, values))
    return rows


def _where(pairs: Table, layer: int, site: str, least: float) -> dict[str, np.ndarray]:
    kept = (pairs["layer"] == layer) & (pairs["site"] == site)
    if least > -np.inf:  # a dictionary without thresholds has no margins
        kept &= pairs["margin"] >= least
    return {name: column[kept] for name, column in pairs.items()}

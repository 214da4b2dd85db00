"""The four cases of a residual feature, from its scores alone (paper §3.3).

    s(R) high, s(M) and s(A) low   persists       it was in the stream already
    s(R) high, s(M) or s(A) high   transforms     it was there and a module wrote to it
    s(R) low,  s(M) or s(A) high   appears        a module made it
    all low                        unexplained    not explained by cosine alone

In the first dictionary of a model's residual stream there is nothing to compare with: start. A feature vanishes where
no feature of the next residual dictionary is as close to it as the threshold asks.
"""

from __future__ import annotations

import numpy as np

from atlas.ids import ATT, MLP, RES

Scores = dict[str, np.ndarray | None]  # site -> float64 [d_sae], or None where no such dictionary was ingested


def high(scores: np.ndarray | None, threshold: np.ndarray | float, size: int) -> np.ndarray:
    """bool [d_sae]: at or above the threshold; False where the score was not measured."""
    return np.zeros(size, dtype=bool) if scores is None else scores >= threshold


def life_cycle(
    scores: Scores, min_res: float, min_module: dict[str, float], alive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Life cycle and origin of every feature of one residual dictionary.

    Args:
        scores: best cosine by site of the earlier dictionary.
        min_res: threshold on the residual score.
        min_module: thresholds by site, for mlp and att.
        alive: bool [d_sae]; dead features get None.

    Returns:
        (lifecycle, origin), object arrays of str [d_sae]. origin is the site with the highest score among those that
        reach their threshold, or none.
    """
    size = len(alive)
    reached = {RES: high(scores[RES], min_res, size)}
    reached |= {site: high(scores[site], min_module[site], size) for site in (MLP, ATT)}
    res, module = reached[RES], reached[MLP] | reached[ATT]
    if scores[RES] is None:
        lifecycle = np.full(size, "start", dtype=object)
    else:
        names = np.array([["unexplained", "appears"], ["persists", "transforms"]], dtype=object)
        lifecycle = names[res.astype(int), module.astype(int)]
    # Scores below their threshold count as nothing: an origin is one that explains the feature.
    ranked = np.stack([np.where(reached[site], _or_zero(scores[site], size), 0.0) for site in (RES, MLP, ATT)])
    origin = np.array([RES, MLP, ATT], dtype=object)[ranked.argmax(axis=0)]
    origin[ranked.max(axis=0) <= 0] = "none"
    lifecycle[~alive] = None
    origin[~alive] = None
    return lifecycle, origin


def _or_zero(scores: np.ndarray | None, size: int) -> np.ndarray:
    return np.zeros(size) if scores is None else scores


def vanishes(s_next: np.ndarray | None, min_res: float, alive: np.ndarray) -> np.ndarray | None:
    """bool object [d_sae]: nothing continues the feature; None in the last residual dictionary and where dead."""
    if s_next is None:
        return None
    gone = (s_next < min_res).astype(object)
    gone[~alive] = None
    return gone

"""Intervals by bootstrap over texts: what was measured in one context is not independent, so contexts are resampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
AUC_RESAMPLES = 200  # a product of all pairs of values each
LEVEL = 0.95


def shares(successes: np.ndarray, tried: np.ndarray, texts: np.ndarray, seed: int) -> tuple[float, float, float]:
    """A ratio of sums and its percentile interval at LEVEL.

    Args:
        successes, tried: float [n], numerator and denominator of each observation.
        texts: int [n], the context that each belongs to.

    Returns:
        (ratio, low, high); the bounds are NaN with fewer than two contexts.

    Example:
        shares(np.array([1.0, 0, 1, 1]), np.ones(4), np.array([0, 0, 1, 2]), seed=0)  # (0.75, …)
    """
    _, groups = np.unique(texts, return_inverse=True)
    above, below = (np.bincount(groups, weights=each) for each in (successes, tried))
    ratio = float(above.sum() / below.sum())
    count = len(above)
    if count < 2:
        return ratio, float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    sums = drawn @ below
    found = (drawn @ above)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return ratio, float(low), float(high)


def auc(
    values: tuple[np.ndarray, np.ndarray], present: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[float, float, float]:
    """How often a value of the first is above one of the second, ties half, and an interval at LEVEL about it.

    It is Mann-Whitney's U over the number of pairs: 0.5 says that neither tends to have more.

    Args:
        values: float [n] and [m].
        present: bool [n, contexts] and [m, contexts], the contexts that each value was met in. A value is in a resample
            where one of its contexts is.

    Example:
        once = np.ones((1, 3), bool)
        auc((np.array([2.0]), np.array([1.0])), (once, once), seed=0)  # (1.0, 1.0, 1.0)
    """
    one, other = values
    above = (one[:, None] > other) + 0.5 * (one[:, None] == other)
    count = present[0].shape[1]
    if count < 2:
        return float(above.mean()), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), AUC_RESAMPLES)
    inside, inside_other = ((each.astype(float) @ drawn.T) > 0 for each in present)
    pairs = inside.sum(axis=0) * inside_other.sum(axis=0)
    sums = (inside * (above @ inside_other)).sum(axis=0)
    found = sums[pairs > 0] / pairs[pairs > 0]
    # About the value itself: a resample misses what was met in few contexts, which moves all of them one way.
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - found.mean() + above.mean()
    return float(above.mean()), float(low), float(high)


def row_of(columns: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """A table's row; what is not a number, as a bound that there is none of, becomes None."""
    return dict(zip(columns, (None if value != value else value for value in values), strict=True))

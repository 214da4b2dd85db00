"""Intervals by bootstrap over texts: what was measured in one context is not independent, so contexts are resampled."""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
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

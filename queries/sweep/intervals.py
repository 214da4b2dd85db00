"""Intervals and tests over prompts × samples.

Samples belong to their prompts: prompts are drawn anew with replacement, and then of each as many of its samples. That
is wider than drawing texts alone (√2 times where prompts do not differ), and honest where they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 4000
LEVEL = 0.95
_AT_ONCE = 1 << 22  # counts in memory


class Interval(NamedTuple):
    """A mean over texts with its interval; None where there is no text, or but one to draw from."""

    n: int  # texts that count
    mean: float | None
    low: float | None
    high: float | None
    p: float | None  # two-sided, of no difference from 0


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    """Mean of `values` [prompts, samples], NaN where missing, and its 95 % bootstrap interval and p.

    p = 2·min(share of draws ≤ 0, share ≥ 0), at least 1/(draws + 1).
    """
    there = np.isfinite(values)
    count = int(there.sum())
    if not count:
        return Interval(0, None, None, None, None)
    mean = float(values[there].mean())
    if count < 2:
        return Interval(count, mean, None, None, None)
    means = _redrawn(np.where(there, values, 0.0), there, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Interval(count, mean, float(low), float(high), min(1.0, 2 * (least + 1) / (len(means) + 1)))


def _redrawn(values: np.ndarray, there: np.ndarray, seed: int) -> np.ndarray:
    """float64 [draws]: the mean with prompts and samples drawn anew; draws that hold no text are left out."""
    generator = np.random.default_rng([abs(seed), 3])
    prompts, samples = values.shape
    parts = []
    at_once = max(1, _AT_ONCE // values.size)
    for start in range(0, DRAWS, at_once):
        drawn = generator.multinomial(prompts, np.full(prompts, 1 / prompts), min(at_once, DRAWS - start))
        # A prompt that is drawn twice has its samples drawn twice, each time anew.
        counts = generator.multinomial(drawn * samples, np.full(samples, 1 / samples))
        weight = (counts * there).sum((1, 2))
        parts.append((counts * values).sum((1, 2))[weight > 0] / weight[weight > 0])
    return np.concatenate(parts)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for their number (Holm 1979): the family's error stays below the level; None stays None.

    Known answer: .01 .04 .03 → .03 .06 .06 (3·.01; 2·.03; then 1·.04, raised to .06 by the order).
    """
    ranked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(ranked):
        largest = max(largest, min(1.0, p * (len(ranked) - rank)))
        adjusted[place] = largest
    return adjusted

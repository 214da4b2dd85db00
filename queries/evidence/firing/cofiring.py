"""Whether two features fire together: co-firing, lift and Pearson's correlation from sparse sums.

    cofire       Σ 1[x>0 and y>0] / Σ 1[y>0]      x the earlier feature, y the later
    lift         cofire / (Σ 1[x>0] / n)          1: as often as independence gives
    correlation  (n Σxy − Σx Σy) / √((n Σx² − (Σx)²)(n Σy² − (Σy)²))

Only sums over positions where both are active are needed: one sparse product a pair of dictionaries, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

SUPPORT = 20  # positions at which a feature must be active; below, figures are null
BLOCK = 32 << 20  # numbers of a dense block of sums

Parts = Callable[[], Iterator[tuple[sp.csr_array, sp.csr_array]]]  # shards of (later, earlier) [positions, d_sae]


@dataclass(frozen=True)
class Alone:
    """Sums of one dictionary's features over the positions of a pair."""

    n: int  # positions
    fires: np.ndarray  # float64 [d_sae], positions at which a feature is active
    total: np.ndarray  # float64 [d_sae], Σx
    squares: np.ndarray  # float64 [d_sae], Σx²


@dataclass(frozen=True)
class Block:
    """Figures of a run of later features with every earlier one."""

    first: int  # index of the first later feature
    cofire: np.ndarray  # float64 [rows, d_earlier]; NaN where the later feature is active too seldom
    lift: np.ndarray  # the same; NaN where either is
    correlation: np.ndarray  # the same


def alone(parts: Iterator[sp.csr_array], size: int) -> Alone:
    """Sums of one dictionary's features, `size` of them."""
    n, sums = 0, np.zeros((3, size))
    for part in parts:
        n += part.shape[0]
        sums += [np.bincount(part.indices, weights=w, minlength=size) for w in (None, part.data, part.data**2)]
    return Alone(n, *sums)


def together(parts: Parts, later: Alone, earlier: Alone) -> Iterator[Block]:
    """Figures of every later with every earlier feature, in blocks of later ones that bound the memory."""
    rows = max(1, BLOCK // len(earlier.fires))
    for first in range(0, len(later.fires), rows):
        size = min(rows, len(later.fires) - first)
        products, counts = (np.zeros((size, len(earlier.fires))) for _ in range(2))
        for y, x in parts():
            y = sp.csr_array(y[:, first : first + size])
            products += (y.T @ x).toarray()
            counts += (_ones(y).T @ _ones(x)).toarray()
        yield _figures(first, products, counts, _cut(later, first, size), earlier)


def _figures(first: int, products: np.ndarray, counts: np.ndarray, later: Alone, earlier: Alone) -> Block:
    n = float(later.n)
    with np.errstate(divide="ignore", invalid="ignore"):
        often = later.fires >= SUPPORT
        cofire = np.where(often[:, None], counts / later.fires[:, None], np.nan)
        both = often[:, None] & (earlier.fires >= SUPPORT)
        lift = np.where(both, cofire * n / earlier.fires, np.nan)
        above = n * products - np.outer(later.total, earlier.total)
        below = np.sqrt(np.outer(_variance(later), _variance(earlier)))
        correlation = np.where(both & (below > 0), above / below, np.nan)
    # Rounding may carry a perfect correlation beyond its bounds.
    return Block(first, cofire, lift, np.clip(correlation, -1, 1))


def _variance(sums: Alone) -> np.ndarray:
    """n² times the variance; 0 where rounding leaves less."""
    found: np.ndarray = np.maximum(sums.n * sums.squares - sums.total**2, 0.0)
    return found


def _cut(sums: Alone, first: int, size: int) -> Alone:
    return Alone(sums.n, *(each[first : first + size] for each in (sums.fires, sums.total, sums.squares)))


def _ones(matrix: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((np.ones(len(matrix.data)), matrix.indices, matrix.indptr), shape=matrix.shape)

"""The noise floor of a pair of dictionaries: how good the best match is where nothing matches but the spectra.

Decoder rows share a spectrum, so the best of n isotropic random directions is too kind a null. This one flips random
signs of the earlier dictionary in the eigenbasis of its second-moment matrix C. A flip R is symmetric and orthogonal,
so x · (R a) = (R x) · a, and it is the few sampled rows of the later dictionary that are flipped:

1. Estimate C's leading eigenvectors, U [d, r], from a sample of the earlier rows, by subspace iteration.
2. Flip each sampled later row x, with its own signs s: along U exactly, x ↦ U (s ⊙ Uᵀx); what remains of x is
   replaced by a random direction, as long, of the remaining space.
3. Take the best cosine of each flipped row among the earlier rows; median and 95 % quantile of these are the floor.

Why not all eigenvectors: at d = 2,304 their computation takes longer than the matching of the pair. Beyond the first
eighth (at least 256) the spectrum is flat enough for a random direction: both quantiles are within 2 % of the full
eigenbasis's in dictionaries of a trained model with d = 576, and on random rows with a falling spectrum and d = 2,304;
the sampling of rows leaves as much open. It costs 7 % of matching 16,384² rows at d = 2,304.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingest.blocks import CPU_BLOCK, Floats, Mask, UnitRows, spans
from ingest.products import Products

SAMPLE = 384  # later rows flipped; of 256 the 95 % quantile is known to 5–8 % only where matches are uneven
_ROWS = 4096  # earlier rows from which C is estimated
_LEADING, _SHARE = 256, 8  # eigenvectors used: d / 8, at least 256
_ITERATIONS = 2  # with one the leading directions mix with the rest, and the floor comes out up to 5 % low


@dataclass(frozen=True)
class Floor:
    """Best cosines of a pair under the null."""

    median: float
    q95: float  # 95 % quantile: the threshold that `floor` stands for


def noise_floor(
    later: Floats,
    earlier: Floats,
    *,
    later_alive: Mask | None = None,
    earlier_alive: Mask | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Floor:
    """The noise floor of the best matches of `later`'s rows in `earlier`.

    This project's threshold for a pair, where the paper has constants (§3.4). Both figures are 0 where either
    dictionary has no living row.

    Args:
        later: unit rows, float32 [n_later, d], possibly memory-mapped.
        earlier: the same, float32 [n_earlier, d].
        later_alive, earlier_alive: bool [n]; rows to leave out are False. Rows that are zero or not finite always are.
        sample: later rows flipped, at most; each is flipped in its own way.
        seed: of the sample and of the signs; the same seed gives the same floor.

    Raises:
        IngestError: rows not of unit length, masks that do not fit.
    """
    rng = np.random.default_rng(seed)
    b, a = UnitRows.of(later, later_alive), UnitRows.of(earlier, earlier_alive)
    if not b.alive.any() or not a.alive.any():
        return Floor(0.0, 0.0)
    basis = leading_directions(_some(a, _ROWS, rng), rng)
    best = np.clip(_best(flipped(_some(b, sample, rng), basis, rng), a), 0, 1)
    median, q95 = np.quantile(best, [0.5, 0.95])
    return Floor(float(median), float(q95))


def leading_directions(rows: Floats, rng: np.random.Generator) -> Floats:
    """Leading eigenvectors [d, r] of the rows' second-moment matrix, rows float32 [m, d]; all where d ≤ 256."""
    d = rows.shape[1]
    r = min(d, max(_LEADING, d // _SHARE))
    if r == d:
        return _eigenvectors(rows)
    basis = rng.standard_normal((d, r), dtype=np.float32)
    for _ in range(_ITERATIONS):
        basis = rows.T @ (rows @ basis)
    basis = np.linalg.qr(basis)[0]
    leading: Floats = basis @ _eigenvectors(rows @ basis)
    return leading


def _eigenvectors(rows: Floats) -> Floats:
    vectors: Floats = np.linalg.eigh(rows.T @ rows)[1]
    return vectors


def flipped(rows: Floats, basis: Floats, rng: np.random.Generator) -> Floats:
    """The rows [m, d] with random signs along `basis` [d, r] and a random direction beyond it; lengths are kept."""
    m, d = rows.shape
    along = rows @ basis
    signs = rng.choice(np.array([-1, 1], np.float32), along.shape)
    turned: Floats = (along * signs) @ basis.T
    if basis.shape[1] == d:
        return turned
    beyond = rng.standard_normal((m, d), dtype=np.float32)
    beyond -= (beyond @ basis) @ basis.T
    length = np.linalg.norm(rows - along @ basis.T, axis=1, keepdims=True)
    turned += beyond * (length / np.linalg.norm(beyond, axis=1, keepdims=True))
    return turned


def _some(rows: UnitRows, n: int, rng: np.random.Generator) -> Floats:
    """At most `n` living rows, drawn without replacement."""
    living = np.flatnonzero(rows.alive)
    return rows.take(np.sort(rng.choice(living, min(n, len(living)), replace=False)))


def _best(directions: Floats, rows: UnitRows) -> Floats:
    """The largest cosine of each direction with a living row, [m]."""
    best = np.full(len(directions), -1, np.float32)
    products = Products(directions)
    for low, high in spans(len(rows), CPU_BLOCK):
        np.maximum(best, products.of(rows.block(low, high)).max(axis=0), out=best)
    return best

"""The noise floor of a pair of dictionaries: how good the best match is where nothing matches but the spectra.

Decoder rows share a spectrum, so the best of n isotropic random directions is too kind a null. This one flips random
signs of the earlier dictionary in the eigenbasis of its second-moment matrix C. A flip R is symmetric and orthogonal,
so x · (R a) = (R x) · a, and it is the few sampled rows of the later dictionary that are flipped, each with its own
signs. All eigenvectors would take longer than the pair's matching; a flip is imitated by what it keeps:

1. Sketch the earlier dictionary's spectrum (`ingest.matching.spectrum`): 6 leading directions U, and random ones
   beyond them.
2. Turn each sampled later row x: its signs along U are flipped, x ↦ U (s ⊙ Uᵀx); what remains of x becomes a random
   direction of the remaining space that is as long and has the same energy xᵀCx, which a flip keeps as well.
3. Take the best cosine of each turned row among the earlier rows; median and 95 % quantile of these are the floor.

Between the pairs of a trained model (d = 576) both quantiles are within 1.5 % of those of the null with all
eigenvectors, in the mean over draws, and on rows with falling spectra and d = 2,304 within 2.5 %
(`python tests/bench_floor.py`). It costs 3 to 5 % of matching 16,384² rows at d = 2,304, or 8,192² at d = 576
(`python tests/bench_matching.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingest.matching.blocks import CPU_BLOCK, Floats, Mask, UnitRows, spans
from ingest.matching.spectrum import Doubles, Spectrum

SAMPLE = 320  # later rows turned: drawn anew, the 95 % quantile moves by 1 to 3 % (standard deviation)
_ROWS = 2048  # earlier rows that stand for C where all of them would take too long
_TINY = 1e-12


@dataclass(frozen=True)
class Floor:
    """Best cosines of a pair under the null."""

    median: float
    q95: float  # 95 % quantile: the threshold that `floor` stands for


def noise_floor(
    later: Floats | UnitRows,
    earlier: Floats | UnitRows,
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
        later: unit rows, float32 [n_later, d], possibly memory-mapped; or checked ones, which saves a pass over them.
        earlier: the same, [n_earlier, d].
        later_alive, earlier_alive: bool [n]; rows to leave out are False. Rows that are zero or not finite always are.
        sample: later rows turned, at most; each is turned in its own way.
        seed: of the sample, signs and directions; the same seed gives the same floor.

    Raises:
        IngestError: rows not of unit length, masks that do not fit.
    """
    rng = np.random.default_rng(seed)
    b, a = UnitRows.of(later, later_alive), UnitRows.of(earlier, earlier_alive)
    if not b.alive.any() or not a.alive.any():
        return Floor(0.0, 0.0)
    some = a.some(_ROWS, rng)
    spectrum = Spectrum.of(a, some, rng)
    images = turned(b.some(sample, rng), some, spectrum, rng) @ spectrum.coefficients.T
    best = np.full(len(images), -1, np.float32)
    for low, high in spans(len(a), CPU_BLOCK):
        np.maximum(best, (images @ spectrum.products[low:high].T).max(axis=1), out=best)
    median, q95 = np.quantile(np.clip(best, 0, 1), [0.5, 0.95])
    return Floor(float(median), float(q95))


def turned(rows: Floats, some: Floats, spectrum: Spectrum, rng: np.random.Generator) -> Floats:
    """Images of later rows under the null, by their coordinates along the spectrum's directions: float32 [m, r + 2s].

    Args:
        rows: later rows, float32 [m, d].
        some: living rows of the earlier dictionary, float32 [k, d].
        spectrum: of the earlier dictionary.
        rng: for signs and directions.
    """
    along = rows @ spectrum.leading
    flipped: Floats = along * rng.choice(np.array([-1, 1], np.float32), along.shape)
    if not spectrum.rest.shape[1]:
        return flipped
    remains = rows - along @ spectrum.leading.T
    lengths = np.linalg.norm(remains, axis=1)
    remains = remains / np.maximum(lengths, _TINY)[:, None]
    theta = _angles(energies(remains, some, spectrum.living), spectrum)[:, None].astype(np.float32)
    random = rng.standard_normal((len(rows), spectrum.rest.shape[1] // 2), dtype=np.float32)
    beyond = np.hstack([random * np.cos(theta), random * np.sin(theta)])
    gram = spectrum.rest.T @ spectrum.rest
    beyond *= (lengths / np.sqrt(np.maximum(((beyond @ gram) * beyond).sum(axis=1), _TINY)))[:, None]
    return np.hstack([flipped, beyond], dtype=np.float32)


def energies(directions: Floats, some: Floats, n: int) -> Doubles:
    """xᵀCx of each direction [m, d], float64 [m], estimated from `some` [k, d] of the n rows that C is the mean of.

    A later row has an ancestor among the earlier ones. Were that one of the few and counted n / k times, as the others
    are, it would weigh much too much: a direction's largest product counts once, and what this leaves out of the sum
    over all directions is shared among them.
    """
    squares = directions @ some.T
    squares *= squares
    largest = squares.max(axis=1).astype(np.float64)
    whole = squares.sum(axis=1, dtype=np.float64)
    k = len(some)
    estimates: Doubles = ((whole - largest) * ((n - 1) / max(1, k - 1)) + largest) / n
    estimates += (whole / k - estimates).mean()
    return estimates


def _angles(energy: Doubles, spectrum: Spectrum) -> Doubles:
    """θ for each energy: (cos θ, sin θ) along E₁ and E₂ has it, as nearly as these two can.

    Its energy is centre + radius · cos(2θ − angle): E₁'s at θ = 0, and around it monotonous up to both extremes.
    """
    one, both, two = spectrum.energies
    centre, radius, angle = (one + two) / 2, np.hypot((one - two) / 2, both), np.arctan2(2 * both, one - two)
    theta: Doubles = (angle - np.arccos(np.clip((energy - centre) / max(radius, _TINY), -1, 1))) / 2
    return theta

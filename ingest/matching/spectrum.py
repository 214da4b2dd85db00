"""A dictionary's spectrum, sketched: its leading directions and a sample of all others.

C = AᵀA / n is the second-moment matrix of the n living rows A; Ω [d, s] are random directions.

1. W = CΩ, in one pass over the rows; B = C applied twice more, as a few of the rows give it.
2. In a second pass the rows' products with W and B. With those of the first they give D = [Ω, W, B] and both its Gram
   matrices, DᵀD and DᵀCD: what follows is done on coefficients of D's 3s columns.
3. The leading eigenvectors U [d, r] of C, by Rayleigh and Ritz in the space of B.
4. Beyond U: of Ω, E₁, random directions; of W, E₂, the same directions weighted by the spectrum, without their part
   along E₁; both of length 1 in the mean. For a random unit γ, cos θ E₁γ + sin θ E₂γ is a random direction beyond U,
   and θ says how much of it lies where the rows have much of their length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.matching.blocks import CPU_BLOCK, Floats, UnitRows, spans

SKETCH = 24  # s; a dictionary no wider is taken whole
LEADING = 6  # r; of more, the last are not found well enough
_ROUNDING = 1e-9  # of squares: what is smaller beside the largest is rounding

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """Directions in the space of a dictionary's rows, the rows' products with them, and moments of the rows.

    Coordinates c [r + 2s] stand for the vector [leading, rest] · c, whose products with all rows are
    products · coefficients · c.
    """

    leading: Floats  # [d, r], orthonormal
    rest: Floats  # [d, 2s], E₁ and E₂, orthogonal to `leading`; [d, 0] where `leading` is a whole basis
    products: Floats  # [n, 3s], the rows' products with D; zero where a row is dead
    coefficients: Floats  # [3s, r + 2s], what the directions are made of
    living: int  # n
    energies: Doubles  # [3], mean over γ of xᵀCx, xᵀCy and yᵀCy for x = E₁γ, y = E₂γ

    @classmethod
    def of(cls, rows: UnitRows, some: Floats, rng: np.random.Generator) -> Spectrum:
        """`some`: living ones of the rows, float32 [m, d], from which C is applied again."""
        n, d = rows.array.shape
        living = int(np.count_nonzero(rows.alive))
        if d <= SKETCH:
            return cls._whole(rows, living)
        random = rng.standard_normal((d, SKETCH), dtype=np.float32)
        products = np.empty((n, 3 * SKETCH), np.float32)
        weighted = _first_pass(rows, random, products) / np.float32(living)
        again = some.T @ (some @ _orthonormal(some.T @ (some @ _orthonormal(weighted))))
        directions = np.hstack([random, weighted, _orthonormal(again)])
        for low, high in spans(n, CPU_BLOCK):
            np.matmul(rows.block(low, high), directions[:, SKETCH:], out=products[low:high, SKETCH:])
        gram, moment = _grams(directions, products[:, SKETCH:], living)
        leading, one, two = _coefficients(gram, moment)
        coefficients = np.hstack([leading, one, two]).astype(np.float32)
        energies = np.array([np.vdot(x, moment @ y) for x, y in ((one, one), (one, two), (two, two))]) / SKETCH
        vectors = directions @ coefficients
        return cls(vectors[:, :LEADING], vectors[:, LEADING:], products, coefficients, living, energies)

    @classmethod
    def _whole(cls, rows: UnitRows, living: int) -> Spectrum:
        """All eigenvectors, where the rows are short."""
        n, d = rows.array.shape
        products = np.ascontiguousarray(rows.block(0, n))
        leading: Floats = np.linalg.eigh(products.T @ products)[1]
        return cls(leading, np.empty((d, 0), np.float32), products, leading, living, np.zeros(3))


def _first_pass(rows: UnitRows, random: Floats, products: Floats) -> Floats:
    """AᵀAΩ; the rows' products with Ω go into the first columns of `products`."""
    weighted = np.zeros_like(random)
    for low, high in spans(len(rows), CPU_BLOCK):
        block = rows.block(low, high)  # read once for both
        along = np.matmul(block, random)
        weighted += block.T @ along
        products[low:high, : random.shape[1]] = along
    return weighted


def _grams(directions: Floats, products: Floats, living: int) -> tuple[Doubles, Doubles]:
    """DᵀD and DᵀCD, [3s, 3s]; `products` are those of W and B, and CΩ = W gives the rest."""
    exact = directions.astype(np.float64)
    gram: Doubles = exact.T @ exact
    moment = np.empty_like(gram)
    moment[:SKETCH] = gram[SKETCH : 2 * SKETCH]
    moment[:, :SKETCH] = moment[:SKETCH].T
    moment[:SKETCH, :SKETCH] = (moment[:SKETCH, :SKETCH] + moment[:SKETCH, :SKETCH].T) / 2
    moment[SKETCH:, SKETCH:] = products.T @ products / np.float32(living)
    return gram, moment


def _coefficients(gram: Doubles, moment: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """U [3s, r], E₁ and E₂ [3s, s], as combinations of D."""
    unit = np.eye(len(gram))
    one, two, basis = unit[:, :SKETCH], unit[:, SKETCH : 2 * SKETCH], unit[:, 2 * SKETCH :]
    ritz = np.linalg.eigh(basis.T @ moment @ basis)[1]  # B is orthonormal
    leading = basis @ ritz[:, -LEADING:]
    one, two = (_scaled(x - leading @ (leading.T @ gram @ x), x, gram) for x in (one, two))
    two = _scaled(two - one * (np.vdot(one, gram @ two) / SKETCH), two, gram)
    return leading, one, two


def _scaled(rest: Doubles, whole: Doubles, gram: Doubles) -> Doubles:
    """What is left of directions, scaled to a mean square length of 1; zero where that is rounding."""
    left, before = np.vdot(rest, gram @ rest), np.vdot(whole, gram @ whole)
    return rest * (np.sqrt(SKETCH / left) if left > _ROUNDING * before else 0.0)


def _orthonormal(directions: Floats) -> Floats:
    """An orthonormal basis of the directions' space, [d, s]; columns are zero where there are fewer.

    By their Gram matrix: a tenth of the time that a QR decomposition takes.
    """
    exact = directions.astype(np.float64)
    values, vectors = np.linalg.eigh(exact.T @ exact)
    scale = np.where(values > _ROUNDING * values[-1], np.maximum(values, np.finfo(float).tiny) ** -0.5, 0)
    basis: Floats = (exact @ (vectors * scale)).astype(np.float32)
    return basis

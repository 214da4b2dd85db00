"""The noise floor, against theory and against the null built in full."""

from __future__ import annotations

import numpy as np
import pytest

from atlas.errors import IngestError
from ingest.matching.blocks import Floats, UnitRows
from ingest.matching.floor import Floor, energies, noise_floor, turned
from ingest.matching.spectrum import LEADING, SKETCH, Spectrum


def dictionary(n: int, scale: Floats, seed: int) -> Floats:
    """Random unit rows whose coordinates have the given scale, float32 [n, d]."""
    rows = np.random.default_rng(seed).standard_normal((n, len(scale)), dtype=np.float32) * scale
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def naive(later: Floats, earlier: Floats, seed: int) -> Floor:
    """The null as it is defined, in float64: 16 flips of the whole earlier dictionary in its full eigenbasis."""
    rng = np.random.default_rng(seed)
    x, a = later.astype(np.float64), earlier.astype(np.float64)
    basis = np.linalg.eigh(a.T @ a)[1]
    best = []
    for some in np.array_split(rng.permutation(len(x))[:1024], 16):
        null = (a @ basis * rng.choice([-1.0, 1.0], len(basis))) @ basis.T
        best.append((x[some] @ null.T).max(axis=1))
    median, q95 = np.quantile(np.concatenate(best), [0.5, 0.95])
    return Floor(float(median), float(q95))


def test_isotropic_rows_follow_theory() -> None:
    # Best of 2,048 random directions in 576 dimensions: median .141, 95 % .168, by simulation. By formula: the
    # median is the quantile 0.5^(1/2048) = 1 − 3.38e-4 of a normal distribution: 3.397 deviations;
    # 3.397 / √576 = .1415.
    flat = np.ones(576, np.float32)
    floor = noise_floor(dictionary(2048, flat, 0), dictionary(2048, flat, 1))
    assert floor.median == pytest.approx(0.141, abs=0.002)
    assert floor.q95 == pytest.approx(0.168, abs=0.005)


@pytest.mark.parametrize("d", [SKETCH, 96, 400])  # all eigenvectors; the leading ones and a sketch of the rest
@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_like_the_null_built_in_full(d: int, slope: float) -> None:
    # Half of the later rows descend from earlier ones, both share a spectrum that falls with `slope`.
    scale = (np.arange(1, d + 1, dtype=np.float32)) ** -slope
    earlier, later = dictionary(1500, scale, 0), dictionary(1500, scale, 1)
    later[:750] += earlier[np.random.default_rng(2).permutation(1500)[:750]]
    later /= np.linalg.norm(later, axis=1, keepdims=True)
    expected = naive(later, earlier, 3)
    floor = noise_floor(later, earlier, sample=1024)
    assert floor.median == pytest.approx(expected.median, rel=0.03)
    assert floor.q95 == pytest.approx(expected.q95, rel=0.05)


def test_real_matches_do_not_raise_it() -> None:
    # A dictionary against itself: every best match is 1. A flipped row still meets itself at Σ ± cᵢ², about
    # √(3 / 128) = .15 either way: one more large draw among 1,000, so the floor rises a little, here by 4 %.
    scale = np.arange(1, 129, dtype=np.float32) ** -0.3
    rows, other = dictionary(1000, scale, 0), dictionary(1000, scale, 1)
    itself, unrelated = (noise_floor(rows, earlier, sample=1000) for earlier in (rows, other))
    assert itself.median == pytest.approx(unrelated.median, rel=0.06)


def test_images_keep_lengths_leading_parts_and_energy() -> None:
    rng = np.random.default_rng(0)
    scale = np.arange(1, 129, dtype=np.float32) ** -0.5
    earlier, later = dictionary(2000, scale, 1), dictionary(500, scale, 2)
    spectrum = Spectrum.of(UnitRows.of(earlier), earlier, rng)
    coordinates = turned(later, earlier, spectrum, rng)
    images = coordinates @ np.hstack([spectrum.leading, spectrum.rest]).T
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    along = later @ spectrum.leading  # only signs of these change
    np.testing.assert_allclose(np.abs(images @ spectrum.leading), np.abs(along), atol=1e-5)
    # The rows' products with an image are what the coordinates say.
    products = coordinates @ spectrum.coefficients.T @ spectrum.products.T
    np.testing.assert_allclose(products, images @ earlier.T, atol=2e-5)
    # Energies xᵀCx beyond the leading directions are met in the mean over random directions, one by one nearly.
    moment = earlier.T @ earlier / 2000
    rest = [rows - (rows @ spectrum.leading) @ spectrum.leading.T for rows in (later, images)]
    before, after = (np.einsum("ij,jk,ik->i", x, moment, x) for x in rest)
    assert after.mean() == pytest.approx(before.mean(), rel=0.03)
    assert np.corrcoef(before, after)[0, 1] > 0.8


def test_leading_directions_are_eigenvectors() -> None:
    scale = np.arange(1, 301, dtype=np.float32) ** -0.5
    rows = dictionary(2000, scale, 1)
    spectrum = Spectrum.of(UnitRows.of(rows), rows, np.random.default_rng(0))
    values = np.linalg.eigvalsh(rows.T.astype(np.float64) @ rows / 2000)[-LEADING:]
    found = np.linalg.norm(rows @ spectrum.leading, axis=0) ** 2 / 2000
    np.testing.assert_allclose(found, values, rtol=0.01)
    np.testing.assert_allclose(spectrum.leading.T @ spectrum.leading, np.eye(LEADING), atol=1e-5)
    np.testing.assert_allclose(spectrum.leading.T @ spectrum.rest, 0, atol=1e-5)


@pytest.mark.slow
def test_energies_from_a_few_rows() -> None:
    # Half of the directions are one of the 4,000 rows: its square of 1 weighs 1 / 4,000 in xᵀCx, as much as the squares
    # of all others, 1 / 4,000 each. Of 1,000 rows drawn, a quarter of these ancestors is among them.
    rng = np.random.default_rng(0)
    rows = dictionary(4000, np.ones(4000, np.float32), 0)
    directions = dictionary(1000, np.ones(4000, np.float32), 1)
    directions[::2] = rows[rng.permutation(4000)[:500]]
    exact = energies(directions, rows, 4000)
    np.testing.assert_allclose(exact, ((directions @ rows.T) ** 2).mean(axis=1), rtol=1e-5)
    few = energies(directions, rows[rng.permutation(4000)[:1000]], 4000)
    assert few.mean() == pytest.approx(exact.mean(), rel=0.05)
    assert few.max() < 1.5 * exact.max()  # 1,000 / 4,000 of all drawn, an ancestor alone would make it 2.5 times


def test_checked_rows_give_the_same() -> None:
    flat = np.ones(64, np.float32)
    later, earlier = dictionary(500, flat, 0), dictionary(400, flat, 1)
    assert noise_floor(UnitRows.of(later), UnitRows.of(earlier)) == noise_floor(later, earlier)


def test_seeded() -> None:
    flat = np.ones(64, np.float32)
    later, earlier = dictionary(500, flat, 0), dictionary(400, flat, 1)
    assert noise_floor(later, earlier, sample=100, seed=1) == noise_floor(later, earlier, sample=100, seed=1)
    assert noise_floor(later, earlier, sample=100, seed=1) != noise_floor(later, earlier, sample=100, seed=2)


def test_dead_rows_have_no_part() -> None:
    flat = np.ones(64, np.float32)
    later, earlier = dictionary(500, flat, 0), dictionary(400, flat, 1)
    alive = np.arange(400) % 2 == 0
    spoilt = earlier.copy()
    spoilt[1::4], spoilt[3::4] = np.nan, 0
    expected = noise_floor(later, earlier, earlier_alive=alive)
    assert noise_floor(later, spoilt) == expected
    assert noise_floor(later, spoilt, earlier_alive=alive) == expected


def test_nothing_alive() -> None:
    rows = dictionary(10, np.ones(8, np.float32), 0)
    assert noise_floor(rows, np.zeros_like(rows)) == Floor(0.0, 0.0)
    assert noise_floor(rows, rows, later_alive=np.zeros(10, bool)) == Floor(0.0, 0.0)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_rows(n: int) -> None:
    rows = dictionary(n, np.ones(300, np.float32), 0)
    floor = noise_floor(rows, rows)
    assert 0 <= floor.median <= floor.q95 <= 1


def test_rows_must_have_unit_length() -> None:
    rows = dictionary(10, np.ones(8, np.float32), 0)
    with pytest.raises(IngestError, match="unit length"):
        noise_floor(rows * 3, rows)

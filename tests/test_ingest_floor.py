"""The noise floor, against theory and against the null built in full."""

from __future__ import annotations

import numpy as np
import pytest

from atlas.errors import IngestError
from ingest.blocks import Floats
from ingest.floor import Floor, flipped, leading_directions, noise_floor


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


@pytest.mark.parametrize("d", [96, 400])  # all eigenvectors; the leading 256
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


def test_flips_keep_lengths_and_the_spectrum() -> None:
    rng = np.random.default_rng(0)
    rows = dictionary(2000, np.arange(1, 65, dtype=np.float32) ** -0.5, 1)
    turned = flipped(rows, leading_directions(rows, rng), rng)
    assert np.allclose(np.linalg.norm(turned, axis=1), 1, atol=1e-5)
    moment = rows.T @ rows / 2000
    # xᵀCx is Σ λᵢ (uᵢ · x)², and a flip changes only signs of uᵢ · x: equal for each row.
    before, after = ((x @ moment * x).sum(axis=1) for x in (rows, turned))
    assert np.allclose(before, after, atol=1e-5)


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


def test_few_rows() -> None:
    rows = dictionary(2, np.ones(300, np.float32), 0)
    floor = noise_floor(rows, rows)
    assert 0 <= floor.median <= floor.q95 <= 1


def test_rows_must_have_unit_length() -> None:
    rows = dictionary(10, np.ones(8, np.float32), 0)
    with pytest.raises(IngestError, match="unit length"):
        noise_floor(rows * 3, rows)

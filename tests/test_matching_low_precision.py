"""Products in bfloat16: the same edges as in float32 and by brute force in float64, whatever rounding hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saes import unit

from ingest.matching import candidates, low_precision
from ingest.matching.blocks import Floats, Ids, UnitRows
from ingest.matching.matching import Matches, match_rows

SEPARATES = low_precision._separates


@pytest.fixture(autouse=True)
def whatever_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of which little is proven are matched so as well: the rows that are not are what is tried here."""
    monkeypatch.setattr(low_precision, "_separates", lambda *_: True)


def by(how: bool, later: UnitRows, earlier: UnitRows, k: int, monkeypatch: pytest.MonkeyPatch, block: int) -> Matches:
    monkeypatch.setattr(low_precision, "pays", lambda *_: how)
    return match_rows(later, earlier, k, block=block)


def rows(n: int, d: int, seed: int, spectrum: float = 0.0) -> Floats:
    """Unit rows whose numbers fall off by a power of their place: 0 for none."""
    drawn = np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** -spectrum
    return unit(drawn).astype(np.float32)


def cases() -> dict[str, tuple[Floats, Floats]]:
    plain, others = rows(300, 96, 0), rows(257, 96, 1)
    related = others.copy()
    related[:100] = unit(0.7 * plain[:100] + 0.7 * others[:100])
    dead = plain.copy()
    dead[[0, 17, 299]] = 0
    twins = others.copy()
    twins[40:90] = twins[7]  # fifty equal rows: more than are kept
    near = np.repeat(plain[:1], 300, axis=0) + np.random.default_rng(2).normal(size=(300, 96)) * 1e-5
    few = np.abs(rows(9, 96, 3))
    return {
        "random": (plain, others),
        "related": (plain, related),
        "falling spectra": (rows(300, 96, 4, 0.7), rows(257, 96, 5, 0.7)),
        "dead rows": (dead, related),
        "many equal": (plain, twins),
        "equal on both sides": (twins, twins),
        "closer than bfloat16 tells": (unit(near).astype(np.float32), others),
        "fewer than are kept": (plain, few),
        "nothing positive": (few, -few),
        "one row": (plain[:1], others),
    }


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("block", [64, 1000])
def test_the_same_edges_as_in_float32(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    later, earlier = (UnitRows.of(each) for each in cases()[name])
    expected = by(False, later, earlier, 5, monkeypatch, block)
    found = by(True, later, earlier, 5, monkeypatch, block)
    for column in ("later", "earlier", "rank", "forward_rank"):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), err_msg=column)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=2e-6)
    assert len(found) or name == "nothing positive"


def test_the_nearest_are_those_of_float64() -> None:
    later, earlier = rows(400, 128, 6, 0.5), rows(500, 128, 7, 0.5)
    found, back = low_precision.nearest(UnitRows.of(later), UnitRows.of(earlier), 8, 96, None)
    exact = later.astype(np.float64) @ earlier.astype(np.float64).T
    for nearest, products in ((found, exact), (back, exact.T)):
        order = np.argsort(-products, axis=1)[:, :8]
        np.testing.assert_array_equal(nearest.ids, order)
        np.testing.assert_allclose(nearest.values, np.take_along_axis(products, order, axis=1), atol=5e-7)


def test_no_product_is_farther_off_than_the_bound() -> None:
    """What the proof rests on, for all products of rows whose large numbers are rounded the most."""
    import torch

    later, earlier = rows(256, 2304, 8, 1.0), rows(512, 2304, 9, 0.3)
    one, other = low_precision.Rounded.of(later), low_precision.Rounded.of(earlier)
    low = torch.mm(one.rows, other.rows.T).float().numpy()
    exact = later.astype(np.float64) @ earlier.astype(np.float64).T
    sums = 2304 * low_precision._SUMMED + low_precision._LAST * np.abs(low)
    bound = one.off[:, None] + (1 + one.off[:, None]) * other.off + sums
    assert (np.abs(low - exact) <= bound).all()
    # It is no idle one: rounding took a per mille of each row, and the products are off by a part of that.
    assert 1e-3 < one.off.mean() < 3e-3 and np.abs(low - exact).max() > bound.min() / 50


def test_what_is_not_proven_is_matched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty equal rows cannot be told apart by twenty-eight kept ones; random rows of few dimensions lie far apart."""
    again: list[int] = []
    own = low_precision._again

    def noting(which: Ids, *rest: Any) -> None:
        again.append(len(which))
        own(which, *rest)

    monkeypatch.setattr(low_precision, "_again", noting)
    twins = rows(300, 32, 10)
    twins[100:150] = twins[0]
    low_precision.nearest(UnitRows.of(rows(40, 32, 11)), UnitRows.of(twins), 8, None, None)
    most = sum(again)
    again.clear()
    low_precision.nearest(UnitRows.of(rows(40, 32, 11)), UnitRows.of(rows(300, 32, 10)), 8, None, None)
    assert sum(again) == 0 < most


def test_rows_that_lie_closer_than_the_bound_are_matched_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isotropic rows: the eighth and the twenty-eighth best are .3 to .7 of 1/√d apart, the bound is about .004."""
    tried: list[int] = []
    own = low_precision._multiply

    def noting(*given: Any) -> Any:
        tried.append(1)
        return own(*given)

    monkeypatch.setattr(low_precision, "_separates", SEPARATES)
    monkeypatch.setattr(low_precision, "_multiply", noting)
    for d, proven in ((256, True), (8192, False)):
        tried.clear()
        later, earlier = (UnitRows.of(rows(400, d, seed)) for seed in (16, 17))
        found = low_precision.nearest(later, earlier, 8, None, None)
        assert bool(tried) is proven, d
        for nearest, expected in zip(found, candidates.nearest(later, earlier, 8, None, None), strict=True):
            np.testing.assert_array_equal(nearest.ids, expected.ids)


def test_a_library_that_rounds_more_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sums kept in bfloat16 while they are made, four times: off by per cents. The pair is matched in float32."""
    import torch

    def coarse(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> None:
        total = torch.zeros(out.shape, dtype=torch.bfloat16)
        for low in range(0, a.shape[1], 4):
            total += a[:, low : low + 4] @ b[low : low + 4]
        out.copy_(total)

    monkeypatch.setattr(torch, "mm", coarse)
    later, earlier = (UnitRows.of(rows(200, 512, seed, 0.3)) for seed in (14, 15))
    found = low_precision.nearest(later, earlier, 8, None, None)
    assert "matched in float32" in caplog.text
    for nearest, expected in zip(found, candidates.nearest(later, earlier, 8, None, None), strict=True):
        np.testing.assert_array_equal(nearest.ids, expected.ids)


def test_progress_counts_every_product() -> None:
    seen: list[int] = []
    low_precision.nearest(UnitRows.of(rows(150, 32, 12)), UnitRows.of(rows(70, 32, 13)), 4, 64, seen.append)
    assert sum(seen) == 150 * 70 and len(seen) == 3 * 2


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 vnni", True),
        ("flags : amx_bf16", True),
        ("flags\t: avx2 avx512f", False),
        ("", False),
    ],
)
def test_units_are_asked_for(flags: str, there: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name : amx_bf16\n{flags}\nbugs : none\n")
    low_precision.has_units.cache_clear()
    monkeypatch.setattr(low_precision, "Path", lambda _: tmp_path / "cpuinfo")
    try:
        assert low_precision.has_units() is there
    finally:
        low_precision.has_units.cache_clear()


def test_small_and_narrow_pairs_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_precision, "has_units", lambda: True)

    def shaped(n: int, d: int) -> UnitRows:
        return UnitRows(np.broadcast_to(np.float32(0), (n, d)), np.zeros(n, bool))

    assert low_precision.pays(shaped(16384, 2304), shaped(16384, 2304))
    assert not low_precision.pays(shaped(2048, 2304), shaped(2048, 2304))  # a third of a second
    assert not low_precision.pays(shaped(262_144, 64), shaped(262_144, 64))

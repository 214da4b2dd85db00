"""Matching: known answers, and the whole edge set against float64 brute force."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from atlas.errors import IngestError
from ingest.matching.blocks import Floats, Mask
from ingest.matching.matching import Matches, match, resolve_device


def unit(n: int, d: int, seed: int) -> Floats:
    """Random unit rows, float32 [n, d]."""
    rows = np.random.default_rng(seed).standard_normal((n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def brute_force(later: Floats, earlier: Floats, k: int, b: Mask, a: Mask) -> dict[tuple[int, int], list[float]]:
    """{(later, earlier): [cosine, rank, forward_rank]} in float64, one row at a time; b and a: living rows.

    Rounding to 12 decimals makes a tie of what differs only by the order of summation.
    """
    x, y = (np.where(alive[:, None], rows, 0).astype(np.float64) for rows, alive in ((later, b), (earlier, a)))
    cosines = np.round(np.stack([(y * row).sum(axis=1) for row in x]), 12)
    cosines[~b], cosines[:, ~a] = -2, -2
    edges: dict[tuple[int, int], list[float]] = {}
    for side, matrix in enumerate((cosines, cosines.T)):
        for row, values in enumerate(matrix):
            for rank, column in enumerate(np.lexsort((np.arange(len(values)), -values))[:k]):
                if values[column] > 0:
                    pair = (row, int(column)) if side == 0 else (int(column), row)
                    edges.setdefault(pair, [values[column], -1, -1])[1 + side] = rank
    return edges


def check(
    later: Floats, earlier: Floats, k: int, *, b: Mask | None = None, a: Mask | None = None, block: int | None = None,
    device: str = "cpu",
) -> Matches:  # fmt: skip
    """Match, compare every edge with brute force, check the order of the result."""
    found = match(later, earlier, k, later_alive=b, earlier_alive=a, block=block, device=device)
    living = [
        np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1) & (True if mask is None else mask)
        for rows, mask in ((later, b), (earlier, a))
    ]
    expected = brute_force(later, earlier, k, *living)
    pairs = list(zip(found.later.tolist(), found.earlier.tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) and set(pairs) == set(expected)
    for pair, similarity, rank, forward in zip(
        pairs, found.similarity, found.rank.tolist(), found.forward_rank.tolist(), strict=True
    ):
        assert [rank, forward] == expected[pair][1:], pair
        assert abs(similarity - expected[pair][0]) <= 2e-6 and 0 < similarity <= 1
    unsigned = [found.later, *(r.view(np.uint32) for r in (found.rank, found.forward_rank)), found.earlier]
    keys = list(zip(*(column.tolist() for column in unsigned), strict=True))
    assert keys == sorted(keys)  # −1 without its sign is the largest: nulls last
    return found


def test_known_answer() -> None:
    # later 0 = (1, 0), later 1 = (0.6, 0.8); earlier 0 = (0.8, 0.6), earlier 1 = (0, 1), earlier 2 = (−1, 0)
    # products: 0.8 0 −1 / 0.48 + 0.48 = 0.96, 0.8, −0.6. k = 1:
    # later 0 → earlier 0 (0.8); later 1 → earlier 0 (0.96); earlier 0 → later 1; earlier 1 → later 1; earlier 2 → none.
    later = np.array([[1, 0], [0.6, 0.8]], np.float32)
    earlier = np.array([[0.8, 0.6], [0, 1], [-1, 0]], np.float32)
    found = match(later, earlier, 1)
    assert found.later.tolist() == [0, 1, 1]
    assert found.earlier.tolist() == [0, 0, 1]
    assert found.similarity == pytest.approx([0.8, 0.96, 0.8], abs=1e-6)
    assert found.rank.tolist() == [0, 0, -1]
    assert found.forward_rank.tolist() == [-1, 0, 0]
    types = [a.dtype.name for a in (found.later, found.earlier, found.similarity, found.rank, found.forward_rank)]
    assert types == ["int32", "int32", "float32", "int32", "int32"]


def test_ties_go_by_index() -> None:
    # All three earlier rows equal: every later row's best are 0 and 1. Later rows 0 and 1 are equal too.
    later, earlier = np.eye(2, dtype=np.float32)[[0, 0, 1]], np.eye(2, dtype=np.float32)[[0, 0, 0]]
    found = match(later, earlier, 2)
    edges = zip(
        found.later.tolist(), found.earlier.tolist(), found.rank.tolist(), found.forward_rank.tolist(), strict=True
    )
    assert list(edges) == [(0, 0, 0, 0), (0, 1, 1, 0), (0, 2, -1, 0), (1, 0, 0, 1), (1, 1, 1, 1), (1, 2, -1, 1)]


@pytest.mark.parametrize("k", [1, 5, 17])
@pytest.mark.parametrize(("n_later", "n_earlier"), [(300, 200), (199, 301), (1, 40), (3, 2)])
@pytest.mark.parametrize("block", [None, 64, 37])
def test_every_edge_is_brute_force(k: int, n_later: int, n_earlier: int, block: int | None) -> None:
    check(unit(n_later, 24, 0), unit(n_earlier, 24, 1), k, block=block)


def test_k_beyond_the_dictionary() -> None:
    found = check(unit(30, 8, 0), unit(40, 8, 1), 100, block=16)
    assert len(found) == (unit(30, 8, 0) @ unit(40, 8, 1).T > 0).sum()


def test_negative_rows_match_nothing() -> None:
    rows = np.abs(unit(50, 8, 0))
    assert len(match(rows, -rows, 5)) == 0


@pytest.mark.parametrize("block", [None, 64])
def test_hundreds_of_duplicates(block: int | None) -> None:
    rows = unit(500, 24, 0)
    rows[np.random.default_rng(1).choice(500, 400, replace=False)] = rows[7]
    check(rows, unit(300, 24, 2), 5, block=block)
    check(unit(300, 24, 2), rows, 5, block=block)
    check(rows, rows, 5, block=block)


def test_nothing_but_duplicates() -> None:
    # Each of 300 later rows takes earlier 0 … 4, each of 200 earlier rows takes later 0 … 4; 25 edges are shared.
    rows = np.repeat(unit(1, 24, 0), 300, axis=0)
    found = check(rows, rows[:200], 5, block=64)
    assert len(found) == 300 * 5 + 200 * 5 - 25


def test_duplicates_a_rounding_apart() -> None:
    # 40 copies of a row, each moved by about 1e-7: beyond float32 products, within float64's.
    rows = unit(200, 24, 0)
    rows[:40] = rows[0] + 1e-7 * unit(40, 24, 3)
    check(unit(100, 24, 1), rows, 5, block=32)


@pytest.mark.parametrize("name", ["identity", "rotation"])
def test_orthonormal_rows(name: str) -> None:
    # Rotated: off the diagonal all cosines are rounding, about 1e-8, and positive for half of the pairs.
    rows = np.eye(40) if name == "identity" else np.linalg.qr(unit(40, 40, 0).astype(np.float64))[0]
    found = check(rows.astype(np.float32), rows.astype(np.float32), 5, block=16)
    if name == "identity":
        assert found.later.tolist() == found.earlier.tolist() == list(range(40))


def test_dead_rows_never_match() -> None:
    later, earlier = unit(200, 16, 0), unit(150, 16, 1)
    later[3], later[5], earlier[7], earlier[8, 2] = 0, np.nan, 0, np.inf
    mask = np.random.default_rng(2).random(200) > 0.3
    found = check(later, earlier, 5, b=mask, block=64)
    assert not np.isin(found.later, [3, 5, *np.flatnonzero(~mask)]).any() and not np.isin(found.earlier, [7, 8]).any()
    assert len(match(later, np.zeros_like(earlier), 5)) == 0
    assert len(match(later[:0], earlier, 5)) == 0


def test_the_block_changes_no_rank() -> None:
    later, earlier = unit(700, 32, 0), unit(500, 32, 1)
    first, second = match(later, earlier, 5, block=64), match(later, earlier, 5)
    for field in ("later", "earlier", "rank", "forward_rank"):
        assert np.array_equal(getattr(first, field), getattr(second, field))
    assert np.abs(first.similarity - second.similarity).max() < 2e-6


def test_the_same_twice() -> None:
    later, earlier = unit(700, 32, 0), unit(500, 32, 1)
    first, second = match(later, earlier, 5), match(later, earlier, 5)
    assert first.similarity.tobytes() == second.similarity.tobytes()


def test_memory_mapped_rows_in_bounded_memory(tmp_path: Path) -> None:
    rows = unit(6000, 16, 0)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    tracemalloc.start()
    found = match(mapped, mapped, 5, block=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000 * 4 / 6  # the product alone would take 144 MB; 24 MB are allowed
    best = found.rank == 0
    assert np.array_equal(found.later[best], found.earlier[best])  # each row's best match is itself


def test_progress_adds_up() -> None:
    seen: list[int] = []
    match(unit(100, 8, 0), unit(70, 8, 1), 5, block=32, progress=seen.append)
    assert sum(seen) == 100 * 70 and len(seen) == 4 * 3


def test_refusals() -> None:
    rows = unit(10, 8, 0)
    with pytest.raises(IngestError, match="row 0 has length 2"):
        match(rows * 2, rows, 5)
    with pytest.raises(IngestError, match="8 and 7 dimensions"):
        match(rows, unit(10, 7, 0), 5)
    with pytest.raises(IngestError, match="k must be at least 1"):
        match(rows, rows, 0)
    with pytest.raises(IngestError, match="does not fit"):
        match(rows, rows, 1, later_alive=np.ones(9, bool))
    with pytest.raises(IngestError, match="matrix"):
        match(rows[0], rows, 1)
    for device in ("gpu", "cuda:99", "cpu:1"):
        with pytest.raises(IngestError, match="use one of auto, cpu"):
            resolve_device(device)


def _gpus() -> int:
    return 0 if resolve_device("auto") == ["cpu"] else len(resolve_device("cuda"))


def test_auto_takes_what_is_there() -> None:
    assert resolve_device("auto") == (["cuda:0"] if _gpus() else ["cpu"])


@pytest.mark.skipif(not _gpus(), reason="torch sees no GPU")
@pytest.mark.parametrize("block", [None, 300])
def test_gpu_gives_the_same_edges(block: int | None) -> None:
    later, earlier = unit(1000, 576, 0), unit(700, 576, 1)
    later[:500] = later[0]
    earlier[3], earlier[4] = 0, np.nan
    check(later, earlier, 5, block=block, device="cuda:0")

"""Matching against FAISS's own exact search: `python tests/bench_matching.py [--quick]`.

Prints, measured in one run, how long the complete matching of a pair takes (both directions, ties, edges) as a multiple
of one direction of `faiss.knn`, of `IndexFlatIP.search` and of `torch.mm` with `topk`, and what its noise floor costs.
The contenders take turns, and each ratio is the median of the rounds' ratios, so that a busy machine weighs on all
alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from bench_record import record

from ingest.matching.blocks import Floats, UnitRows
from ingest.matching.floor import noise_floor
from ingest.matching.matching import match

K = 5
CASES = {(8192, 576): (7, 1.6), (16384, 2304): (3, 1.3)}  # (n, d): rounds, most that matching may cost against knn
QUICK = {(4096, 576): (7, 1.6)}


def dictionary(n: int, d: int, rng: np.random.Generator) -> Floats:
    """Random unit rows, float32 [n, d]."""
    rows = rng.standard_normal((n, d), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def planted(n: int, d: int) -> tuple[Floats, Floats]:
    """Two dictionaries; half of the later one's rows descend from a row of the earlier, at a cosine of about 0.7."""
    rng = np.random.default_rng(0)
    earlier, later = dictionary(n, d, rng), dictionary(n, d, rng)
    half = n // 2
    later[:half] += earlier[rng.permutation(n)[:half]]
    return later / np.linalg.norm(later, axis=1, keepdims=True), earlier


def seconds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return taken


def compare(n: int, d: int, rounds: int, limit: float) -> None:
    """Measure one pair and print its line."""
    import faiss

    later, earlier = planted(n, d)
    index = faiss.IndexFlatIP(d)
    index.add(earlier)
    contenders: dict[str, Callable[[], object]] = {
        "match": partial(match, later, earlier, K),
        "knn": partial(faiss.knn, later, earlier, K, metric=faiss.METRIC_INNER_PRODUCT),
        "flat": partial(index.search, later, K),
        "torch": partial(torch_topk, later, earlier),
    }
    # Matching checks the rows; as in an ingest, the floor takes them as checked.
    checked = UnitRows.of(later), UnitRows.of(earlier)
    floor: dict[str, Callable[[], object]] = {"match": contenders["match"], "floor": partial(noise_floor, *checked)}
    seconds(contenders | floor, 1)  # threads start, memory is mapped
    taken, beside = seconds(contenders, rounds), seconds(floor, rounds)

    def ratio(name: str, base: str, taken: dict[str, list[float]] = taken) -> float:
        return median(x / y for x, y in zip(taken[name], taken[base], strict=True))

    print(
        f"{n:,}² × {d:,}: matching, both directions, {median(taken['match']):.2f} s"
        f" = {ratio('match', 'knn'):.2f} × faiss.knn (at most {limit})"
        f" = {ratio('match', 'flat'):.2f} × IndexFlatIP.search = {ratio('match', 'torch'):.2f} × torch.mm and topk,"
        " one direction each;"
        f" noise floor {ratio('floor', 'match', beside):.1%} of the matching",
        flush=True,
    )

    what = f"matching {n:,}² × {d:,}, both directions, exact"
    peers = {"knn": "faiss.knn", "flat": "IndexFlatIP.search", "torch": "torch.mm and topk"}
    for name, peer in peers.items():
        record("matching", what, f"{peer}, one direction", ratio("match", name), median(taken[name]))
    floor_time = median(beside["match"])
    record("matching", f"noise floor of {n:,}² × {d:,}", "the matching", ratio("floor", "match", beside), floor_time)


def torch_topk(later: Floats, earlier: Floats) -> None:
    """The plain way: a block of products, and the best of each of its rows."""
    import torch

    rows, others = torch.from_numpy(later), torch.from_numpy(earlier).T
    for start in range(0, len(rows), 2048):
        torch.mm(rows[start : start + 2048], others).topk(K, dim=1)


def main() -> None:
    """Read the options, measure each pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small pair only")
    parser.add_argument("--rounds", type=int, help="rounds a pair")
    args = parser.parse_args()

    import faiss

    print(f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} threads, k = {K}")
    for (n, d), (rounds, limit) in (QUICK if args.quick else CASES).items():
        compare(n, d, args.rounds or rounds, limit)


if __name__ == "__main__":
    main()

"""Matching on a GPU: `python tests/bench_gpu.py DIR [--layers 6] [--n 16384] [--d 2304]`.

Plants dictionaries of three sites a layer in DIR/saes, ingests them with `--device cuda` (DIR/gpu) and prints, from one
process: what a pair takes on the GPU alone beside the bare fp32 product of its rows, what the CPU does for a pair
(ties and edges, noise floor), what a pair takes in the staging of all, the whole ingest's seconds by part, and whether
the edges of one pair are those of the CPU.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from saes import planted

from atlas import open_atlas
from atlas.folder.paths import matches_file
from ingest import ingest
from ingest.matching import gpu
from ingest.matching.floor import noise_floor
from ingest.matching.matching import match_rows, open_gpus
from ingest.matching.pairs import plan_pairs
from ingest.matching.stage import Stage, staged_name
from ingest.matching.ties import SPARE

K = 5


def seconds(run: Callable[[], object], rounds: int = 5) -> float:
    """The median of a few runs after the first, the device idle before and after."""
    taken = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def main() -> None:
    """Plant, ingest, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--d", type=int, default=2304)
    args = parser.parse_args()
    saes, atlas = args.folder / "saes", args.folder / "gpu"
    if not saes.exists():
        planted(saes, range(args.layers), args.n, args.d)
    shutil.rmtree(atlas, ignore_errors=True)
    start = time.perf_counter()
    report = ingest([saes], atlas, k=K, device="cuda")
    whole = time.perf_counter() - start

    with open_atlas(atlas) as opened:
        records = dict(opened.dictionaries)
    pairs = {staged_name(pair, records): pair for pair in plan_pairs(records.values(), K)}
    for name in pairs:
        matches_file(atlas, name).unlink()
    stage = Stage(atlas, records, lambda _: None)
    start = time.perf_counter()
    stage.on_gpus(pairs, open_gpus("cuda"))
    staged = time.perf_counter() - start

    pair = next(iter(pairs.values()))
    rows = stage.opened(pair.later)[1], stage.opened(pair.earlier)[1]
    device = open_gpus("cuda:0")[0]
    with torch.inference_mode():
        x, y = (device.block(one, 0, len(one)) for one in rows)
        product = seconds(lambda: x @ y.T)
    alone = seconds(lambda: gpu.nearest(device, *rows, K + SPARE))
    whole_pair = seconds(lambda: match_rows(*rows, K, device))
    floor = seconds(lambda: noise_floor(*rows))

    def from_nothing() -> None:
        device.clear()
        gpu.nearest(device, *rows, K + SPARE)

    cold = seconds(from_nothing)
    on_gpu, on_cpu = match_rows(*rows, K, device), match_rows(*rows, K)
    same = all(
        np.array_equal(getattr(on_gpu, name), getattr(on_cpu, name))
        for name in ("later", "earlier", "rank", "forward_rank")
    )
    print(
        f"{torch.cuda.get_device_name(0)}, {args.n:,}² × {args.d:,}, {len(pairs)} pairs, {report.edges:,} edges\n"
        f"a pair: fp32 product {product * 1e3:.1f} ms; nearest both ways {alone * 1e3:.1f} ms "
        f"(rows not there yet {cold * 1e3:.1f}); with ties and edges {whole_pair * 1e3:.1f} ms; "
        f"noise floor {floor * 1e3:.1f} ms\n"
        f"staging all: {staged / len(pairs) * 1e3:.1f} ms a pair; whole ingest {whole:.1f} s\n"
        f"edges {'equal' if same else 'NOT EQUAL'} to the CPU's, largest difference of a cosine "
        f"{np.abs(on_gpu.similarity - on_cpu.similarity).max():.1e}"
    )


if __name__ == "__main__":
    main()

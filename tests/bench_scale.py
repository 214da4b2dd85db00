"""How long an ingest takes on N machines: the shards' own schedule under a cost model, printed as docs/scale.md has it.

    python tests/bench_scale.py                 # the simulated schedules
    python tests/bench_scale.py FOLDER          # beside it real runs of FOLDER's dictionaries at N = 1 and 2

The model: a shard reads its dictionaries once (bytes / DISK), multiplies its pairs (2 · rows · rows · d_model / FLOPS,
a quarter more for selection), and sends its rows and matches to where parts are joined (bytes / NETWORK, all into one
machine); there the graph is loaded (edges / GRAPH).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from atlas.ids import depth
from ingest.matching.pairs import plan_pairs
from ingest.shards.plan import shards
from ingest.sources.find import find_sources
from ingest.sources.selection import Selection

DISK = 150e6  # bytes a second of rows read, made unit and written (ingest.dry_run)
NETWORK = 1e9  # bytes a second into the machine that joins
GRAPH = 300e3  # edges and features a second into the embedded graph
EDGE = 16  # bytes of a staged edge, compressed
K, SHARE = 5, 0.62  # matches a side; of those on both sides, what is not found twice (7.84 M edges of 77 pairs of 16k)
CPU, GPU = 60e9, 50e12  # FLOP/s: this project's two-core machine (measured), an H100 in float32


@dataclass(frozen=True)
class Model:
    """Dictionaries of one language model."""

    name: str
    layers: int
    width: int  # features of a dictionary
    d_model: int
    sites: tuple[str, ...] = ("res", "mlp", "att")


MODELS = (
    Model("Gemma Scope 2B, 16k", 26, 16_384, 2_304),
    Model("Gemma Scope 2 27B, 262k", 62, 262_144, 5_376),
)


def records(model: Model) -> list[SimpleNamespace]:
    """What the plan of pairs reads of a dictionary."""
    return [
        SimpleNamespace(
            id=f"m/{layer}-{site}", model="m", model_name="m", site=site, layer=layer, depth=depth(site, layer),
            d_sae=model.width, d_model=model.d_model,
        )
        for layer in range(model.layers)
        for site in model.sites
    ]  # fmt: skip


def simulate(made: list[SimpleNamespace], count: int, flops: float) -> dict[str, float]:
    """Makespan, share of the workers' time that is idle, bytes that move, for `count` shards."""
    by_id = {each.id: each for each in made}
    pairs = plan_pairs(made, K)  # type: ignore[arg-type]
    times, moved = [], 0.0
    for part in shards(pairs, {each.id: each.d_sae for each in made}, count):
        needed = {id_ for pair in part for id_ in (pair.later, pair.earlier)}
        read = sum(8.0 * by_id[id_].d_sae * by_id[id_].d_model for id_ in needed)  # decoder and encoder, float32
        products = sum(2.5 * by_id[p.later].d_sae * by_id[p.earlier].d_sae * by_id[p.later].d_model for p in part)
        times.append(read / DISK + products / flops)
        moved += read + EDGE * sum(K * SHARE * (by_id[p.later].d_sae + by_id[p.earlier].d_sae) for p in part)
    matching = max(times)
    edges = sum(K * SHARE * (by_id[p.later].d_sae + by_id[p.earlier].d_sae) for p in pairs)
    # One machine moves nothing: its part is the whole.
    joining = (moved / NETWORK if count > 1 else 0.0) + (edges + sum(each.d_sae for each in made)) / GRAPH
    return {
        "matching": matching,
        "joining": joining,
        "idle": 1 - sum(times) / (count * matching),
        "bytes": moved,
        "edges": edges,
        "pairs": float(len(pairs)),
    }


def table() -> None:
    print(f"{'':<26}{'on':>5}{'workers':>9}{'matching':>11}{'joining':>10}{'idle':>7}{'moved':>10}{'edges':>9}")
    for model in MODELS:
        for where, flops in (("CPU", CPU), ("H100", GPU)):
            for count in (1, 8, 64, 512):
                found = simulate(records(model), count, flops)
                print(
                    f"{model.name:<26}{where:>5}{count:>9}{_time(found['matching']):>11}{_time(found['joining']):>10}"
                    f"{found['idle']:>7.0%}{found['bytes'] / 1e9:>8.0f}GB{found['edges'] / 1e6:>8.1f}M"
                )


def real(folder: Path) -> None:
    """One shard alone with a thread; then two beside each other with a thread each; and what the model says."""
    found = find_sources([str(folder)], Selection())
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            code = "from atlas.cli.main import main; main()"
            running = [
                subprocess.Popen(
                    [sys.executable, "-c", code, "ingest", str(folder), "--shard", f"{n}/{count}", "-a", f"{out}/{n}"],
                    stderr=subprocess.DEVNULL,
                    env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
                    cwd=Path(__file__).parent.parent,
                )
                for n in range(1, count + 1)
            ]
            assert all(each.wait() == 0 for each in running)
            took = time.perf_counter() - start
        made = [SimpleNamespace(**{n: getattr(s, n) for n in _READ}, d_model=s.d_model or 576) for s in found]
        print(f"N = {count}: {took:.1f} s; the model, at {CPU / 2e9:.0f} GFLOP/s a thread: "
              f"{simulate(made, count, CPU / 2)['matching']:.1f} s and the interpreters' start")  # fmt: skip


_READ = ("id", "model", "model_name", "site", "layer", "depth", "d_sae")


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    table()
    if len(sys.argv) > 1:
        real(Path(sys.argv[1]))

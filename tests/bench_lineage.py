"""Time of a lineage on a planted atlas of 26 layers × 3 sites and about a million edges, beside networkx in memory.

python tests/bench_lineage.py [FOLDER]     keeps the atlas in FOLDER and uses it again
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
from bench_record import record
from planted import Planted
from test_drawing import drawing_seconds

from atlas.atlas import Atlas, open_atlas
from queries.lineage.walk import lineage
from queries.questions.questions import QUESTIONS, ask
from queries.search import search

LAYERS, SIZE, SEEDS = 26, 2048, 40
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"min_res": 0.0, "min_module": 0.0},
    {"min_res": "floor", "min_module": "floor"},
    {"k": 3},
)


def main() -> None:
    """Plant the atlas where it is not there yet, then print the times."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "atlas"
        if not folder.exists():
            Planted(range(LAYERS), SIZE, 64, 5).at(folder)
        with open_atlas(folder) as atlas:
            edges = atlas.read("MATCH ()-[r:FROM_RES|FROM_MLP|FROM_ATT]->() RETURN count(*) AS n")[0]["n"]
            print(f"{len(atlas.dictionaries)} dictionaries, {edges:,} edges; milliseconds: median, largest")
            report(atlas)
    for size in (500, 2000):
        print(f"{f'drawing of {size} features':<40} {1000 * drawing_seconds(size):8.1f}")


def report(atlas: Atlas) -> None:
    """One line for each setting of `lineage`, for `search` and for each question."""
    source = random.Random(0)
    seeds = [f"planted/{source.randrange(LAYERS)}-res-{SIZE}/{source.randrange(SIZE - 1)}" for _ in range(SEEDS)]
    for setting in SETTINGS:
        name = "lineage " + " ".join(f"{key}={value}" for key, value in setting.items())
        timed(name, [partial(lineage, atlas, seed, **setting) for seed in seeds])
    in_memory(atlas, seeds)
    timed("search", [partial(search, atlas, "war film")] * 3)
    for question in QUESTIONS.values():
        if question.by_rows:  # which a planted graph has not
            continue
        features = seeds[: len(question.features)]
        timed(f"ask {question.name}", [partial(ask, atlas, question.name, *features)] * 3)


def in_memory(atlas: Atlas, seeds: list[str]) -> None:
    """The walk of the first setting in a networkx graph that holds all edges, and what making that takes."""
    start = time.perf_counter()
    graph = nx.MultiDiGraph()
    cypher = "MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature) "
    cypher += (
        "RETURN b.id AS b, a.id AS a, r.similarity AS s, r.rank AS rank, r.forward_rank AS forward, a.site AS site"
    )
    for row in atlas.read(cypher):
        graph.add_edge(row.pop("b"), row.pop("a"), **row)
    print(f"networkx: {graph.number_of_edges():,} edges read and held in {time.perf_counter() - start:.1f} s")
    least = {"res": 0.5, "mlp": 0.25, "att": 0.25}

    def walk(seed: str) -> set[str]:
        found = {seed}
        for step, rank in (("out_edges", "rank"), ("in_edges", "forward")):
            edge_, at = seed, [seed]
            while at:
                edge_ = at.pop()
                for later, earlier, each in getattr(graph, step)(edge_, data=True):
                    if each[rank] == 0 and each["s"] >= least[each["site"]]:
                        other = earlier if step == "out_edges" else later
                        if other not in found and each["site"] == "res":
                            at.append(other)
                        found.add(other)
        return found

    ours = timed("lineage", [partial(lineage, atlas, seed) for seed in seeds])
    theirs = timed("the same walk in networkx", [partial(walk, seed) for seed in seeds])
    record(
        "graph", "lineage of 1 M edges, embedded, with all properties", "networkx in memory, ids", ours / theirs, theirs
    )


def timed(name: str, calls: list[Callable[[], object]]) -> float:
    """Print the median and the largest time of the calls; returns the median in seconds."""
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    print(f"{name:<40} {statistics.median(times):8.2f} {max(times):8.2f}")
    return statistics.median(times) / 1000


if __name__ == "__main__":
    main()

"""Time of a lineage on a planted atlas of 26 layers × 3 sites and about a million edges.

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
    timed("search", [partial(search, atlas, "war film")] * 3)
    for question in QUESTIONS.values():
        features = seeds[: len(question.features)]
        timed(f"ask {question.name}", [partial(ask, atlas, question.name, *features)] * 3)


def timed(name: str, calls: list[Callable[[], object]]) -> None:
    """Print the median and the largest time of the calls."""
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    print(f"{name:<40} {statistics.median(times):8.1f} {max(times):8.1f}")


if __name__ == "__main__":
    main()

"""An atlas and its copy on a server: are all answers equal, and how long does each side take?

python tests/bench_stores.py ATLAS     ends with 1 where answers differ; the server runs from packages
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from neo4j_server import Neo4jServer

from atlas.atlas import Atlas, open_atlas
from atlas.graph.copying import copy_atlas
from queries.lineage.walk import lineage
from queries.questions.questions import QUESTIONS, ask
from queries.search import search
from queries.show import show

SEEDS = 60
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"min_res": "floor", "min_module": "floor"}, {"k": 3, "min_res": 0.3})
WORDS = ("film", "music war", "the", "New York", "zebra")


def main() -> int:
    """Copy the atlas, ask both sides the same and print medians and largest times in ms."""
    with Neo4jServer(quick=False) as server, open_atlas(sys.argv[1]) as here:
        os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
        start = time.perf_counter()
        copied = copy_atlas(here, server.uri)
        print(f"copied in {time.perf_counter() - start:.1f} s: {copied.digest}")
        with open_atlas(server.uri) as there:
            there.read("MATCH (a:Atlas) RETURN a.id AS id")
            print(f"{'milliseconds: median, largest':<32} {'embedded':>16} {'server':>16}")
            for name, asked in questions(here):
                if not compared(name, asked, here, there):
                    return 1
    return 0


Asked = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]  # a function of an atlas, and what else it is given


def questions(atlas: Atlas) -> Iterator[tuple[str, list[Asked]]]:
    """What is asked, under names."""
    ids = [row["id"] for row in atlas.read("MATCH (f:Feature) WHERE NOT f.dead RETURN f.id AS id ORDER BY id")]
    seeds = random.Random(0).sample(ids, SEEDS)
    for setting in SETTINGS:
        name = " ".join(["lineage", *(f"{key}={value}" for key, value in setting.items())])
        yield name, [(lineage, (seed,), setting) for seed in seeds]
    yield "show", [(show, (seed,), {}) for seed in seeds]
    yield "search", [(search, (word,), {"limit": 100}) for word in WORDS]
    for question in QUESTIONS.values():
        ends = [seeds[i : i + len(question.features)] for i in range(0, 20, 2)] if question.features else [[]]
        yield question.name, [(ask, (question.name, *end), {"limit": 2000}) for end in ends]


def compared(name: str, asked: list[Asked], here: Atlas, there: Atlas) -> bool:
    """Ask both, print their times; False where an answer differs."""
    answers, line = [], f"{name:<32}"
    for atlas in (here, there):
        times, found = [], []
        for function, arguments, options in asked:
            start = time.perf_counter()
            found.append(function(atlas, *arguments, **options))
            times.append(1000 * (time.perf_counter() - start))
        answers.append(found)
        line += f" {statistics.median(times):8.1f} {max(times):7.1f}"
    equal = answers[0] == answers[1]
    print(line if equal else f"{line}  THE ANSWERS DIFFER", flush=True)
    return equal


if __name__ == "__main__":
    sys.exit(main())

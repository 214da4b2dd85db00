"""The page's times on a large atlas, over a socket: milliseconds of the first answer, the median and the largest.

    python tests/bench_page.py ATLAS        e.g. FOLDER/atlas of tests/bench_questions.py

The index of words is made beside, while the page is served already; its search is measured when it is there.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from served import served

from atlas import open_atlas
from queries.search import search

TIMES = 12


def main() -> None:
    """Serve the atlas named and ask it."""
    with open_atlas(sys.argv[1]) as atlas:
        streams = [record for record in atlas.dictionaries.values() if record.site == "res"]
        seeds = [f"{record.id}/{7 * i + 1}" for i, record in enumerate(streams)][-TIMES:]
        told("search", [lambda: search(atlas, "film", limit=100)] * TIMES)
    with served(sys.argv[1], "none") as page, closing(page.client()) as client:
        client.get("/cypher")  # templates
        for name, address in (("feature", "/{}"), ("lineage", "/lineage?feature={}&floor=1")):
            told(name, [partial(client.get, address.format(seed)) for seed in seeds])
        told("home", [lambda: client.get("/")] * TIMES)


def told(name: str, calls: Sequence[Callable[[], object]]) -> None:
    """Print how long the calls took."""
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    first, *rest = times
    print(f"{name:<20} first {first:7.0f}  median {statistics.median(rest):7.1f}  largest {max(rest):7.1f}", flush=True)


if __name__ == "__main__":
    main()

"""The page's times on a large atlas, over a socket: milliseconds of the first answer, the median and the largest.

    python tests/bench_page.py ATLAS        e.g. FOLDER/atlas of tests/bench_questions.py
    python tests/bench_page.py --stream     what streaming adds to a token, on the demo's model

With a Chromium, also the first contentful paint of each page in it, from the click on.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from browser import CHROMIUM, chromium
from served import Served, events, served

from atlas import open_atlas
from ingest import ingest
from queries import SteeringPlan
from queries.search import search

TIMES = 12


MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TOKENS = 128
# Milliseconds; it may still be to come when the page is loaded.
PAINTED = """() => new Promise((found) => new PerformanceObserver((list) => {
  const paint = list.getEntriesByName('first-contentful-paint')[0];
  if (paint) found(paint.startTime);
}).observe({type: 'paint', buffered: true}))"""


def main() -> None:
    """Serve the atlas named and ask it, or measure streams."""
    if sys.argv[1] == "--stream":
        stream()
        return
    with open_atlas(sys.argv[1]) as atlas:
        streams = [record for record in atlas.dictionaries.values() if record.site == "res"]
        seeds = [f"{record.id}/{7 * i + 1}" for i, record in enumerate(streams)][-TIMES:]
        told("search", [lambda: search(atlas, "film", limit=100)] * TIMES)
    with served(sys.argv[1], "none") as page, closing(page.client()) as client:
        client.get("/cypher")  # templates
        for name, address in (("feature", "/{}"), ("lineage", "/lineage?feature={}&floor=1")):
            told(name, [partial(client.get, address.format(seed)) for seed in seeds])
        told("home", [lambda: client.get("/")] * TIMES)
        if CHROMIUM is not None:
            addresses = {"home": "/", "feature": f"/{seeds[0]}", "search": "/search?q=film"}
            painted(page, addresses | {"lineage": f"/lineage?feature={seeds[0]}&floor=1"})


def painted(page: Served, addresses: dict[str, str]) -> None:
    """Print when a browser first shows something of each page."""
    with chromium() as browser:
        tab = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
        tab.goto(page.address)
        for name, address in addresses.items():
            times = []
            for _ in range(5):
                tab.goto(page.base + address)
                times.append(tab.evaluate(PAINTED))
            print(
                f"first paint of {name:<12} median {statistics.median(times):7.0f}  largest {max(times):7.0f}",
                flush=True,
            )


def stream() -> None:
    """Print a token's time over the page's stream and by `generate`, in turns, and the difference."""
    from hooked.load import load_model
    from queries import generate

    bundle = Path(__file__).parent.parent / "ingest" / "bundle" / "smollm2-135m"
    with tempfile.TemporaryDirectory() as temporary:
        atlas = Path(temporary) / "atlas"
        ingest([bundle], atlas, layers=[9], sites=["res"])
        torch.set_num_threads(1)  # as many as the page is given
        model, tokenizer = load_model(MODEL, device="cpu")
        prompt, rounds = "My friend told me that", []
        feature = "smollm2-135m-instruct/9-res-2k/2018"
        form = {"feature": feature, "strength": "0", "prompt": prompt, "tokens": str(TOKENS)}
        with open_atlas(atlas) as opened:
            plan = SteeringPlan.from_features(opened, {feature: 0.0})
        with served(atlas, MODEL) as page, closing(page.client()) as client:
            for _ in range(4):  # the first loads the model there
                with client.stream("POST", "/steer/stream", data=form) as response:
                    done = [event for event in events(response) if event["event"] == "done"]
                start = time.perf_counter()
                (made,) = generate(model, tokenizer, [prompt], plan, max_new_tokens=TOKENS)
                plain = (time.perf_counter() - start) / len(made.tokens)
                (steered,) = [event for event in done if event["side"] == "steered"]
                streamed = float(str(steered["seconds"])) / int(str(steered["tokens"]))
                rounds.append((1000 * streamed, 1000 * plain))
    over, alone = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    print(f"a token streamed {over:.1f} ms, by generate {alone:.1f} ms: streaming adds {over - alone:.1f} ms")


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

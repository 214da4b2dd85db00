"""The named questions on an atlas of the paper's size: seconds and peak memory of each, as its own command.

    python tests/bench_questions.py FOLDER [--neo4j]

makes FOLDER/atlas first, if it is not there: 26 layers × 3 sites × 16,384 features of 128 numbers, planted so that
features persist, are written by modules, or are new (about 7.8 million edges; some minutes). With --neo4j the same
graph is imported into a local server of HEAP and PAGE_CACHE and asked there; peak memory is the command's own.
Beside the questions: `info`, `show`, `lineage` and `search`, which begin by opening the atlas.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from neo4j_server import CURRENT, Neo4jServer
from safetensors.numpy import save_file

from atlas import open_atlas
from atlas.graph.stored import StoredGraph
from atlas.server.export import export_neo4j_admin
from ingest import ingest
from queries.questions.questions import QUESTIONS

LAYERS, SIZE, WIDTH = 26, 16_384, 128
LIMIT = 10.0  # seconds
HEAP, PAGE_CACHE = "3g", "4g"  # of the server: the graph's files take 2.5 GB
MEASURE = """
import resource, subprocess, sys
code = "from atlas.cli.main import main; main()"
done = subprocess.run([sys.executable, "-c", code, *sys.argv[1:]], capture_output=True, text=True)
size = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(done.returncode, size, len(done.stdout.splitlines()), done.stderr[-200:].replace(chr(10), " "))
"""


def plant(folder: Path) -> None:
    """Write the dictionaries: each residual row is an earlier one with noise, or one that a module writes, or new."""
    rng = np.random.default_rng(0)
    before = None
    for layer in range(LAYERS):
        rows = {site: unit(rng.standard_normal((SIZE, WIDTH))) for site in ("attn_out", "mlp_out", "resid_post")}
        if before is not None:
            kept, written = rng.random(SIZE) < 0.6, rng.random(SIZE) < 0.3
            mixed = 0.8 * before + 0.4 * rows["resid_post"]
            rows["resid_post"][kept] = mixed[kept]
            rows["resid_post"][written] += 0.6 * rows["mlp_out"][written]
            rows["resid_post"] = unit(rows["resid_post"])
        before = rows["resid_post"]
        for site, decoder in rows.items():
            place = folder / f"blocks.{layer}.hook_{site}"
            place.mkdir(parents=True)
            metadata = {"model_name": "planted/big", "hook_name": f"blocks.{layer}.hook_{site}"}
            cfg = {"architecture": "standard", "d_in": WIDTH, "d_sae": SIZE, "metadata": metadata}
            (place / "cfg.json").write_text(json.dumps(cfg))
            decoder = decoder.astype(np.float32)
            vectors = {"b_enc": np.zeros(SIZE, np.float32), "b_dec": np.zeros(WIDTH, np.float32)}
            save_file(
                {"W_dec": decoder, "W_enc": np.ascontiguousarray(decoder.T), **vectors},
                place / "sae_weights.safetensors",
            )


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at length 1."""
    result: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


@contextlib.contextmanager
def on_server(folder: Path) -> Iterator[str]:
    """The address of a server that holds FOLDER's atlas, imported by neo4j-admin the first time."""
    home = folder / "neo4j"
    fresh = not home.exists()
    server = Neo4jServer(CURRENT, home=home, heap=HEAP, page_cache=PAGE_CACHE, quick=False)
    with contextlib.closing(server):
        if fresh:
            started = time.perf_counter()
            with open_atlas(folder / "atlas") as atlas:
                exported = export_neo4j_admin(StoredGraph(atlas.store, atlas.manifest), folder / "files")
            print(f"exported in {time.perf_counter() - started:.0f} s", flush=True)
            started = time.perf_counter()
            with contextlib.chdir(exported.folder):
                server.admin(*exported.command[1:])
            print(f"imported in {time.perf_counter() - started:.0f} s", flush=True)
        server.start()
        os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
        started = time.perf_counter()
        with open_atlas(server.uri):
            print(f"opened, indexes made, in {time.perf_counter() - started:.0f} s", flush=True)
        yield server.uri


def ask(address: str) -> None:
    """Run each command and print what it took."""
    with open_atlas(address) as opened:
        edges = sum(row["n"] for row in opened.read("MATCH (:Dictionary)-[m:MATCHED]->() RETURN sum(m.edges) AS n"))
    print(f"{edges:,} edges")
    features = [f"big/{layer}-res-16k/7" for layer in (LAYERS - 1, LAYERS - 3)]
    commands = {"info": ["info"], "show": ["show", features[0]], "lineage": ["lineage", features[0]]}
    commands |= {"search": ["search", "film"]}
    commands |= {name: ["ask", name, *features[: len(each.features)]] for name, each in QUESTIONS.items()}
    print(f"{'command':<20} {'seconds':>8} {'again':>8} {'MiB':>6}  rows")
    for name, words in commands.items():
        command = [sys.executable, "-c", MEASURE, *words, "-a", address, "--format", "json"]
        times = []
        for _ in range(2):
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times.append(time.perf_counter() - started)
        code, size, rows, *message = done.stdout.split(maxsplit=3)
        verdict = "" if code == "0" and times[1] <= LIMIT else f"  {' '.join(message)}"
        print(f"{name:<20} {times[0]:>8.1f} {times[1]:>8.1f} {int(size) / 1024:>6.0f}  {rows}{verdict}", flush=True)


def main(folder: Path, neo4j: bool) -> None:
    """Make the atlas where it is missing, then ask everything."""
    atlas = folder / "atlas"
    if not (atlas / "feature-atlas.json").exists():
        plant(folder / "saes")
        started = time.perf_counter()
        ingest([folder / "saes"], atlas)
        print(f"ingested in {time.perf_counter() - started:.0f} s", flush=True)
    if not neo4j:
        ask(str(atlas))
        return
    with on_server(folder) as address:
        ask(address)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--neo4j" in sys.argv[2:])

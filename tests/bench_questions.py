"""The named questions on an atlas of the paper's size: seconds and peak memory of each, as its own command.

    python tests/bench_questions.py FOLDER

makes FOLDER/atlas first, if it is not there: 26 layers × 3 sites × 16,384 features of 128 numbers, planted so that
features persist, are written by modules, or are new (about 7.8 million edges; some minutes).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from atlas import open_atlas
from ingest import ingest
from queries.questions.questions import QUESTIONS

LAYERS, SIZE, WIDTH = 26, 16_384, 128
LIMIT = 10.0  # seconds
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


def main(folder: Path) -> None:
    """Make the atlas where it is missing, then ask every question."""
    atlas = folder / "atlas"
    if not (atlas / "feature-atlas.json").exists():
        plant(folder / "saes")
        ingest([folder / "saes"], atlas)
    with open_atlas(atlas) as opened:
        edges = sum(row["n"] for row in opened.read("MATCH (:Dictionary)-[m:MATCHED]->() RETURN sum(m.edges) AS n"))
    print(f"{edges:,} edges")
    features = [f"big/{layer}-res-16k/7" for layer in (LAYERS - 1, LAYERS - 3)]
    print(f"{'question':<20} {'seconds':>8} {'MiB':>6}  rows")
    for name, question in QUESTIONS.items():
        words = ["ask", name, *features[: len(question.features)], "-a", str(atlas), "--format", "jsonl"]
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
        code, size, rows, *message = done.stdout.split(maxsplit=3)
        verdict = "" if code == "0" and seconds <= LIMIT else f"  {' '.join(message)}"
        print(f"{name:<20} {seconds:>8.1f} {int(size) / 1024:>6.0f}  {rows}{verdict}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

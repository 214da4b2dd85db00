"""Peak memory of what goes through a whole atlas: `python tests/bench_memory.py FOLDER [STEP…]`, each its own command.

FOLDER/atlas is the one of tests/bench_questions.py, which makes it: 26 × 3 × 16,384 features of 128 numbers, 7.8
million edges. Everything is done to a copy of it beside it, which is removed again. Texts are read by a random model of
its shape: half of all features are active at a token, a hundred times as many as of trained dictionaries, so that the
few tokens of `evidence edges` weigh as much as a shard of theirs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiny_models
import transformers
from bench_questions import LAYERS, MEASURE, SIZE, WIDTH

BOUND = 2 << 10  # MiB, of every step
TOKENS, DENSE = 4_000, 128  # of the text that labels are made from, and evidence


def labels(folder: Path) -> Path:
    """Labels for every feature: three words each, of fifty thousand."""
    words = np.array([f"word{n}" for n in range(50_000)])
    drawn = np.random.default_rng(0).integers(0, len(words), (LAYERS * 3 * SIZE, 3))
    names = [f"big/{layer}-{site}-16k" for layer in range(LAYERS) for site in ("res", "mlp", "att")]
    table = pa.table(
        {
            "dictionary": np.repeat(names, SIZE),
            "index": np.tile(np.arange(SIZE), len(names)),
            "label": [", ".join(row) for row in words[drawn]],
        }
    )
    pq.write_table(table, folder / "labels.parquet")
    return folder / "labels.parquet"


def model(folder: Path) -> Path:
    """A random model with the atlas's layers and width, and a text of its words."""
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    tiny_models.tiny_tokenizer().save_pretrained(folder / "model")
    drawn = np.random.default_rng(0).integers(2, 64, 4 * TOKENS)
    (folder / "text.txt").write_text(" ".join(f"w{n}" for n in drawn))
    return folder / "model"


def main(folder: Path, wanted: list[str]) -> int:
    """Print a line a step; 1 where one failed or took more than BOUND."""
    atlas, copy, out = folder / "atlas", folder / "copy", folder / "out"
    for old in (copy, out):
        shutil.rmtree(old, ignore_errors=True)
    told = ["-a", str(copy), "--model", str(model(folder)), "--text", str(folder / "text.txt")]
    steps: dict[str, list[str]] = {
        "copy": ["copy", "-a", str(atlas), "--to", str(copy)],
        "label --import": ["label", "-a", str(copy), "--import", str(labels(folder))],
        **{
            f"export {kind}": ["export", str(out / kind), "-a", str(copy), "--format", kind]
            for kind in ("parquet", "csv", "neo4j-admin", "graphml")
        },
        "remove": ["remove", f"big/{LAYERS - 1}-att-16k", "-a", str(copy)],
        "label --text": ["label", *told, "--tokens", str(TOKENS)],
        "evidence edges": ["evidence", "edges", *told, "--tokens", str(DENSE)],
    }
    worst = 0
    print(f"{'step':<24} {'seconds':>8} {'MiB':>6}")
    for name, words in steps.items():
        if wanted and name not in wanted and name != "copy":
            continue
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, check=True)
        code, size, _, *message = done.stdout.split(maxsplit=3)
        mebibytes = int(size) / 1024
        worst = max(worst, int(code != "0" or mebibytes > BOUND))
        said = "" if code == "0" else f"  {' '.join(message)}"
        print(f"{name:<24} {time.perf_counter() - started:>8.1f} {mebibytes:>6.0f}{said}", flush=True)
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)
    return worst


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

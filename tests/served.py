"""A page that is really served: a planted atlas with hostile labels, a tiny model, the command in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from flow_graphs import HOSTILE
from saes import planted
from tiny_models import tiny_model, tiny_tokenizer

from atlas.cli.main import _run

CODE = "from atlas.cli.main import main; main()"
SEED = "tiny-1m/2-res-64/3"  # it persists from layer 0 on
PROMPT = "w5 w9 w13"


@dataclass(frozen=True)
class Served:
    """A running page."""

    address: str  # with the token, as it was printed
    process: subprocess.Popen[str]

    @property
    def base(self) -> str:
        """Scheme, host and port."""
        return self.address.partition("/?")[0]

    @property
    def port(self) -> int:
        return urlsplit(self.base).port or 0

    def client(self, *, entered: bool = True, **headers: str) -> httpx.Client:
        """A client with the cookie, unless it is not to have entered."""
        client = httpx.Client(base_url=self.base, headers={"accept": "text/html"} | headers, timeout=120)
        if entered:
            assert client.get(self.address.removeprefix(self.base)).status_code == 303
        return client


def tiny_atlas(folder: Path, layers: range = range(4)) -> Path:
    """An atlas of dictionaries that fit the tiny model, its features labelled, some of them with hostile text."""
    atlas = folder / "atlas <b>"
    assert _run(["ingest", str(planted(folder / "saes", layers, d=32)), "-a", str(atlas)]) == 0
    # No Parquet file holds a lone surrogate.
    texts = ["film, world", "w5", "war and peace", *(text for text in HOSTILE if "\ud800" not in text)]
    names = [f"tiny-1m/{layer}-{site}-64" for layer in layers for site in ("res", "mlp", "att") for _ in range(64)]
    columns: dict[str, list[Any]] = {"dictionary": names, "index": [*range(64)] * (3 * len(layers))}
    table = pa.table(columns | {"label": [texts[i % len(texts)] for i in columns["index"]]})
    pq.write_table(table, folder / "labels.parquet")
    assert _run(["label", "--import", str(folder / "labels.parquet"), "-a", str(atlas)]) == 0
    return atlas


def tiny_folder(folder: Path) -> Path:
    """A tiny model that never ends its text, as a folder."""
    model = tiny_model("llama")
    with torch.no_grad():
        # Greedy text takes a logit above 0 as long as there is one.
        model.lm_head.weight[0] = 0
    model.save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    return folder / "model"


@contextmanager
def served(atlas: Path | str, model: Path | str, *arguments: str) -> Iterator[Served]:
    """Serve it; the process is ended when the block is left."""
    command = [sys.executable, "-c", CODE, "serve", "-a", str(atlas), "--model", str(model), "--port", "0", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(process.communicate()[1])
        yield Served(address, process)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def events(response: httpx.Response) -> Iterator[dict[str, object]]:
    """The events of a stream."""
    for line in response.iter_lines():
        if line:
            assert line.startswith("data: ")
            yield json.loads(line.removeprefix("data: "))

"""A tiny atlas whose model can be run: random dictionaries on a random model, and a text of its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
from folders import configuration, tensors, write_folder

from ingest import ingest

HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "hook_attn_out"}
SIZE = 20  # features of a dictionary


def words(count: int, seed: int = 0) -> str:
    """So many words of the tiny tokenizer."""
    return " ".join(f"w{i}" for i in np.random.default_rng(seed).integers(2, 64, count))


def write_text(path: Path, count: int, seed: int = 0) -> Path:
    path.write_text(words(count, seed))
    return path


def weights_of(cfg: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Random weights whose features are active at some positions and not at others."""
    made = tensors(cfg, seed=seed)
    made["W_enc"] *= 0.3
    made["b_dec"] *= 0.1
    return made


def tiny_atlas(
    folder: Path,
    *,
    family: str = "llama",
    layers: tuple[int, ...] = (0, 1, 2),
    sites: tuple[str, ...] = ("res", "mlp", "att"),
    **fields: Any,
) -> Path:
    """An atlas of random dictionaries at these places of a tiny model; `fields` go into their configurations."""
    tiny_models.tiny_model(family).save_pretrained(folder / "model")
    tiny_models.tiny_tokenizer().save_pretrained(folder / "model")
    sources = []
    for number, (layer, site) in enumerate((layer, site) for layer in layers for site in sites):
        cfg = configuration(f"blocks.{layer}.{HOOKS[site]}", d_in=tiny_models.WIDTH, architecture="jumprelu", **fields)
        sources.append(write_folder(folder / f"{layer}-{site}", cfg, weights_of(cfg, number)))
    ingest(sources, folder / "atlas", model=str(folder / "model"), k=3)
    return folder / "atlas"

"""A tiny atlas whose model can be run: random dictionaries on a random model, and a text of its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
from folders import configuration, tensors, write_folder

from atlas.folder.dictionary import Dictionary, Rows
from hooked.encoder import Encoder
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


def active_by_hand(model: Any, tokens: list[int], d: Dictionary, rows: Rows) -> np.ndarray:
    """bool [tokens, d_sae]: a dictionary's active features behind the start token, from a hook of its own."""
    module = {"res": "model.layers.{}", "mlp": "model.layers.{}.mlp", "att": "model.layers.{}.self_attn"}[d.site]
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(module.format(d.layer)).register_forward_hook(
        lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        model(torch.tensor([[1, *tokens]]))
    handle.remove()
    active: np.ndarray = Encoder.of(d, rows)(seen[0][0, 1:]).values.detach().numpy() > 0
    return active


def idle_atlas(folder: Path, *, both: bool = False) -> Path:
    """An atlas of a model whose blocks 1 and 2 write nothing, so that what is in the stream stays there as it is.

    The residual dictionaries after blocks 0, 1 and 2 are the same 32 orthonormal rows: a feature's best match in the
    dictionary before it is itself, and every other one is at a right angle to it. `both`: the rows with either sign, so
    that they rebuild the stream without a rest.
    """
    model = tiny_models.tiny_model("llama")
    with torch.no_grad():
        for layer in (1, 2):
            block = model.model.layers[layer]
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder / "model")
    tiny_models.tiny_tokenizer().save_pretrained(folder / "model")
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0].astype(np.float32)
    rows = np.concatenate([rows, -rows]) if both else rows
    zeros = np.zeros(len(rows), np.float32)
    weights = {
        "W_dec": rows,
        "W_enc": np.ascontiguousarray(rows.T),
        "b_enc": zeros,
        "threshold": zeros + (0 if both else 0.05),
    }
    for layer in range(3):
        cfg = configuration(f"blocks.{layer}.hook_resid_post", "jumprelu", d_in=32, d_sae=len(rows))
        write_folder(folder / f"{layer}", cfg, {**weights, "b_dec": zeros[:32]})
    ingest([folder / f"{layer}" for layer in range(3)], folder / "atlas", model=str(folder / "model"), k=3)
    return folder / "atlas"

"""SAELens folders for tests: planted decoder rows with known lineages, written as SAELens writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODEL = "acme/Tiny-1M"  # its short name in ids: tiny-1m
_HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "hook_attn_out"}


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def write_sae(
    folder: Path, layer: int, site: str, rows: np.ndarray, *, model: str = MODEL, name: str | None = None
) -> Path:
    """One JumpReLU dictionary with these decoder rows, its encoder their transpose; returns its folder."""
    target = folder / (name or f"blocks.{layer}.{_HOOKS[site]}")
    target.mkdir(parents=True)
    n, d = rows.shape
    config = {
        "architecture": "jumprelu",
        "d_in": d,
        "d_sae": n,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"model_name": model, "hook_name": f"blocks.{layer}.{_HOOKS[site]}", "prepend_bos": True},
    }
    (target / "cfg.json").write_text(json.dumps(config))
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    zeros = np.zeros(n, np.float32)
    tensors = {
        "W_dec": rows,
        "W_enc": np.ascontiguousarray(np.nan_to_num(rows).T),
        "b_enc": zeros,
        "threshold": zeros + 0.01,
        "b_dec": np.zeros(d, np.float32),
    }
    save_file(tensors, target / "sae_weights.safetensors")
    return target


def planted(folder: Path, layers: range, n: int = 64, d: int = 48, seed: int = 0) -> Path:
    """Dictionaries of three sites for each layer, in which the stream mostly persists and modules write a part of it.

    Returns the folder. Residual rows of layer L: the first half noisy copies of layer L−1's, the next quarter noisy
    copies of the mlp's first rows, the rest new.
    """
    generator = np.random.default_rng(seed)
    previous = unit(generator.normal(size=(n, d)))
    for layer in layers:
        mlp, att = (unit(generator.normal(size=(n, d))) for _ in range(2))
        new = unit(generator.normal(size=(n, d)))
        res = np.concatenate([previous[: n // 2], mlp[: n // 4], new[: n - n // 2 - n // 4]])
        res = unit(res + 0.05 * generator.normal(size=(n, d)))
        for site, rows in (("res", res), ("mlp", mlp), ("att", att)):
            write_sae(folder, layer, site, rows)
        previous = res
    return folder

"""SAELens folders for tests, written by hand: any configuration, any tensors, no SAELens needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

D_MODEL, D_SAE = 12, 20


def configuration(
    hook: str = "blocks.3.hook_resid_post", architecture: str = "standard", **fields: Any
) -> dict[str, Any]:
    """A configuration as SAELens 6 writes it; `fields` replace or add, metadata's by name."""
    metadata = {"sae_lens_version": "6.0.0", "model_name": "acme/Tiny-1M", "hook_name": hook, "hook_head_index": None}
    names: tuple[str, ...] = (
        "model_name",
        "hook_name",
        "hook_name_out",
        "hf_hook_name",
        "hf_hook_name_out",
        "hook_head_index",
    )
    names += ("neuronpedia_id", "model_from_pretrained_kwargs", "prepend_bos")
    metadata |= {name: fields.pop(name) for name in names if name in fields}
    cfg = {"architecture": architecture, "d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    cfg |= {"apply_b_dec_to_input": "transcoder" not in architecture, "normalize_activations": "none"}
    return {**cfg, "reshape_activations": "none", **fields, "metadata": metadata}


def tensors(cfg: dict[str, Any], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of the shapes that a configuration says, by SAELens's names."""
    rng = np.random.default_rng(seed)
    n, d_in, d_out = cfg["d_sae"], cfg["d_in"], cfg.get("d_out", cfg["d_in"])
    weights = {"W_enc": (d_in, n), "W_dec": (n, d_out), "b_dec": (d_out,)}
    biases = ("b_gate", "b_mag", "r_mag") if cfg.get("architecture") == "gated" else ("b_enc",)
    weights |= {name: (n,) for name in biases}
    if "jumprelu" in cfg.get("architecture", ""):
        weights["threshold"] = (n,)
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    return made | {name: np.abs(value) for name, value in made.items() if name == "threshold"}


def write_folder(path: Path, cfg: dict[str, Any], weights: dict[str, np.ndarray] | None = None) -> Path:
    """`cfg.json` and `sae_weights.safetensors` in a new folder; returns it."""
    path.mkdir(parents=True)
    (path / "cfg.json").write_text(json.dumps(cfg))
    save_file(tensors(cfg) if weights is None else weights, path / "sae_weights.safetensors")
    return path

"""Dictionaries in memory to steer tiny models with: random rows, records as an ingest writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tiny_models import VOCABULARY

from atlas.folder.dictionary import Dictionary, Rows
from atlas.ids import depth
from hooked.hook_names import site_of
from queries.steer.intervention import Intervention
from queries.steer.plan import SteeringPlan
from queries.steer.strength import Strength

FEATURES = 24


def planted_dictionary(
    hook_name: str, *, d_model: int = 32, d_in: int | None = None, seed: int = 0, **changes: Any
) -> tuple[Dictionary, Rows]:
    """A dictionary at a hook: unit decoder rows, random encoder, norms from 0.5 to 2."""
    site, layer = site_of(hook_name)
    number = int(hook_name.split(".")[1])
    values: dict[str, Any] = {
        "id": f"tiny/{number}-{site}-{FEATURES}",
        "model": "tiny",
        "model_name": "tiny",
        "layer": layer,
        "site": site,
        "depth": depth(site, layer),
        "set": f"{site}-{FEATURES}",
        "hook_name": hook_name,
        "hook_name_in": hook_name,
        "hf_hook_name": None,
        "hf_hook_name_in": None,
        "architecture": "jumprelu",
        "d_sae": FEATURES,
        "d_model": d_model,
        "d_in": d_in or d_model,
        "k": None,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "centred_input": False,
        "mapped": None,
        "dead_rows": 0,
        "release": None,
        "sae_id": None,
        "neuronpedia_id": None,
        "source": "planted",
        "sha256": "0" * 64,
        "rows_sha256": "1" * 64,
    }
    record = Dictionary(**(values | changes))
    random = np.random.default_rng(seed)
    decoder = random.normal(size=(FEATURES, d_model)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    vectors: Mapping[str, np.ndarray] = {
        "norms": random.uniform(0.5, 2.0, FEATURES).astype(np.float32),
        "b_enc": random.uniform(0.4, 0.9, FEATURES).astype(np.float32),  # active at most positions, not at all
        "b_dec": random.normal(size=record.d_in).astype(np.float32) * 0.1,
        "threshold": random.uniform(0.0, 0.3, FEATURES).astype(np.float32),
    }
    encoder = random.normal(size=(FEATURES, record.d_in)).astype(np.float32) * 0.3
    return record, Rows(decoder, encoder, vectors)


def intervention(
    dictionary: tuple[Dictionary, Rows],
    index: int,
    mode: str = "add",
    strength: str | float | None = None,
    positions: str = "all",
) -> Intervention:
    """One intervention on a planted dictionary's feature."""
    record, rows = dictionary
    value = None if strength is None else Strength.of(strength)
    return Intervention(
        f"{record.id}/{index}", record, index, mode, value, positions, None, np.array(rows.decoder[index]), rows
    )


def plan_of(*interventions: Intervention) -> SteeringPlan:
    return SteeringPlan(interventions)


def tokens(batch: int = 1, length: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def hooks_left(model: Any) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._forward_hooks_always_called)
        for module in model.modules()
    )

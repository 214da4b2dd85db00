"""The residual stream as a sweep needs it: each layer's median norm, and differences of means from contrast texts.

Positions with more than SINK times the median norm are attention sinks and left out of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import replacing
from queries.steer.theme import Theme

if TYPE_CHECKING:
    import torch

SINK = 10.0  # times the median norm
PASSAGES, LEAST, LONGEST = 96, 8, 64  # contrast passages of each kind; fewest of them; most tokens of one
STREAMS = "streams.npz"
_BATCH = 32
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Streams:
    """What was measured of the unsteered model."""

    norms: dict[int, float]  # layer -> median norm of the stream after it
    means: dict[int, np.ndarray] = field(default_factory=dict)  # layer -> difference of means, float32 [d_model]

    def save(self, path: Path) -> None:
        """Write to a .npz file, atomically."""
        layers = sorted(self.norms)
        arrays: dict[str, Any] = {
            "layers": np.array(layers),
            "norms": np.array([self.norms[layer] for layer in layers]),
        }
        if self.means:
            arrays["means"] = np.stack([self.means[layer] for layer in layers])

        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Streams:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            layers = [int(layer) for layer in arrays["layers"]]
            means = dict(zip(layers, arrays["means"], strict=True)) if "means" in arrays else {}
            return cls(dict(zip(layers, map(float, arrays["norms"]), strict=True)), means)


def measured(
    model: Any, places: Mapping[int, Dictionary], texts: Sequence[list[int]], contrast: Sequence[list[list[int]]] = ()
) -> Streams:
    """Median norms over `texts`, and differences of means between the two kinds of `contrast`, as token ids.

    places: layer -> a dictionary whose rows are written there.
    """
    norms = {layer: float(np.median(_lengths(rows))) for layer, rows in _states(model, places, texts).items()}
    means = {}
    if contrast:
        with_, without = (_states(model, places, kind) for kind in contrast)
        means = {layer: (with_[layer].mean(0) - without[layer].mean(0)).astype(np.float32) for layer in places}
    return Streams(norms, means)


def contrast_passages(text: str, theme: Theme, seed: int) -> tuple[list[str], list[str]]:
    """Sentences of the text with words of the theme, and as many without, drawn by the seed.

    Raises PlanError where there are fewer than LEAST of either kind.
    """
    sentences = dict.fromkeys(part.strip() for part in _SENTENCES.split(text) if 5 <= len(part.split()) <= LONGEST)
    kinds: tuple[list[str], list[str]] = ([], [])
    for sentence in sentences:
        kinds[not theme.findall(sentence)].append(sentence)
    size = min(PASSAGES, *map(len, kinds))
    if size < LEAST:
        raise PlanError(
            f"the contrast text has {len(kinds[0])} sentences with words of the theme and {len(kinds[1])} without; "
            f"means need {LEAST} of each: give a longer text, or leave the arm `means` out"
        )
    draws = np.random.default_rng([abs(seed), 1])
    with_, without = ([kind[i] for i in draws.permutation(len(kind))[:size]] for kind in kinds)
    return with_, without


def padded(rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [rows, columns], padded on the right."""
    import torch

    columns = max(map(len, rows))
    ids = torch.tensor([row + [0] * (columns - len(row)) for row in rows], device="cpu")
    mask = torch.tensor([[1] * len(row) + [0] * (columns - len(row)) for row in rows], device="cpu")
    return ids, mask


def _states(model: Any, places: Mapping[int, Dictionary], texts: Sequence[list[int]]) -> dict[int, np.ndarray]:
    """float32 [positions, d_model] by layer: the stream at every position that is no sink."""
    kept: dict[int, list[np.ndarray]] = {layer: [] for layer in places}
    for seen in _passes(model, places, texts):
        for layer, rows in seen.items():
            kept[layer].append(rows)
    states = {layer: np.concatenate(parts) for layer, parts in kept.items()}
    found = {layer: _lengths(rows) for layer, rows in states.items()}
    return {layer: rows[found[layer] <= SINK * np.median(found[layer])] for layer, rows in states.items()}


def _passes(
    model: Any, places: Mapping[int, Dictionary], texts: Sequence[list[int]]
) -> Iterator[dict[int, np.ndarray]]:
    """The stream at the real positions of a batch of texts after another, by layer."""
    import torch

    from hooked.capture import captured, run_until
    from hooked.hook_names import place_of
    from hooked.hookpoints import blocks_path, write_point
    from hooked.load import input_device

    points = {layer: write_point(model, record) for layer, record in places.items()}
    last = max(place_of(record.hook_name).layer for record in places.values())
    block = model.get_submodule(f"{blocks_path(model)}.{last}")
    device = input_device(model)
    for start in range(0, len(texts), _BATCH):
        ids, mask = padded(texts[start : start + _BATCH])
        with captured(points) as seen, torch.inference_mode():
            run_until(model, block, input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
        real = mask.bool()
        yield {layer: hidden.float().cpu()[real].numpy() for layer, hidden in seen.items()}


def _lengths(rows: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(rows, axis=1)
    return lengths

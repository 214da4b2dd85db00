"""What a text begins with when a dictionary reads it, and which of its positions say nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import ModelError
from hooked.hook_names import Place, place_of

if TYPE_CHECKING:
    import torch

SINK = 10.0  # times the median length of the stream; SmolLM2's first position has 180 times it from layer 11 on


def start_token(tokenizer: Any) -> int:
    """What contexts begin with: the start token, else the end token, as trainers of dictionaries do.

    Raises ModelError where there is neither.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise ModelError("the tokenizer has neither a start nor an end token to begin contexts with")
    return int(start)


def stream_after(layer: int) -> Place:
    """The stream after a layer's block; before the first one for layer −1."""
    return place_of(f"blocks.{max(layer, 0)}.{'hook_resid_pre' if layer < 0 else 'hook_resid_post'}")


def sinks(stream: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
    """bool [...]: attention sinks among positions, by the stream there, [..., d_model].

    Those at which it is SINK times as long as at the median one. `real`: bool [...], False at padding, none of which is
    one.
    """
    lengths = stream.float().norm(dim=-1)
    counted = lengths if real is None else lengths[real]
    # The median: a mean would be moved by the very positions that are looked for.
    found = lengths > SINK * counted.median()
    return found if real is None else found & real

"""Which positions of a forward pass are real rather than padding, from the mask that the pass was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_MASKED = -1000.0  # a float mask adds this or less where a query must not look; position biases stay far above it


def real_positions(given: Mapping[str, Any], start: int, length: int) -> torch.Tensor | None:
    """bool [batch, length], False at padding, from the arguments of a pass; None where there is no padding.

    A mask is [batch, columns]; or expanded to [batch, 1, queries, columns] or a function of places (FlexAttention),
    alone or one for each kind of layer: then a position is real where it sees itself, which holds for packed documents
    and windows alike. Continuous batching (`generate_batch`) packs requests in one row and fills up its end.
    """
    mask = given.get("attention_mask")
    if is_packed(given):
        filled = int(given["cu_seq_lens_q"][-1])
        real: torch.Tensor | None = torch.arange(length)[None] < filled
    else:
        if isinstance(mask, Mapping):
            mask = mask.get("full_attention", next(iter(mask.values()), None))
        real = _seen(mask, start, length)
    return None if real is None or real.shape[1] != length or bool(real.all()) else real


def is_packed(given: Mapping[str, Any]) -> bool:
    """Whether a pass is one of continuous batching: requests, each with a prompt of its own, in one row."""
    return given.get("cu_seq_lens_q") is not None and "write_index" in given


def _seen(mask: Any, start: int, length: int) -> torch.Tensor | None:
    """bool [batch, length] from one mask; None where it says nothing."""
    if hasattr(mask, "mask_mod"):
        batch, query = torch.arange(mask.shape[0], device=mask.kv_indices.device), torch.arange(length)
        place = query.to(batch.device) + start
        head = torch.zeros_like(batch[:, None])
        seen: torch.Tensor = mask.mask_mod(batch[:, None], head, place[None] - start, place[None])
        return seen.expand(len(batch), length)
    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 4):
        return None
    columns = mask.shape[-1]
    # A sliding window's cache holds the last columns only.
    first = start if columns >= start + length else columns - length
    if first < 0:
        return None
    if mask.ndim == 2:
        return mask[:, first : first + length].bool()
    if mask.shape[2] != length:
        return None
    visible = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] > _MASKED
    return visible.diagonal(first, 1, 2) & ~_opened(visible, first, length)


def _opened(visible: torch.Tensor, first: int, length: int) -> torch.Tensor:
    """bool [batch, length]: padding whose row, wholly masked, was opened for kernels that cannot bear that.

    Such a row sees everything, and no later row sees its column; what a window hides is seen by some row.
    """
    open_ = visible.all(-1)
    if not bool(open_.any()):
        return open_
    closed = ~open_
    seen = (visible & closed[..., None]).any(1)[:, first : first + length]
    before = closed.flip(1).cumsum(1).flip(1) > 0
    return open_ & before & ~seen

"""Sampling that belongs to each text: its random numbers depend on its own seed, not on the batch it is made in.

The same seed gives two conditions the same numbers, so that their texts are pairs; a batch may be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from atlas.errors import ModelError

if TYPE_CHECKING:
    import torch


class Draws:
    """A logits processor of transformers that leaves one token of each row possible: the one drawn there."""

    def __init__(self, seeds: Sequence[Sequence[int]], tokens: int, temperature: float, top_p: float | None) -> None:
        """seeds: of each row, numbers that make its random stream. tokens: most tokens that are drawn.

        temperature: above 0. top_p: draw among the most probable tokens of this mass only.
        """
        if not temperature > 0:
            raise ModelError(f"texts are drawn at a temperature above 0, not {temperature}")
        # One number a token, drawn before the text is made: none depends on what other rows do.
        self._numbers = np.stack([np.random.default_rng(list(seed)).random(tokens) for seed in seeds])
        self._temperature, self._top_p = temperature, top_p
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores `[rows, vocabulary]`: 0 at the token drawn for the row, −infinity elsewhere."""
        import torch

        numbers = torch.from_numpy(self._numbers[:, self._step]).to(scores.device)
        self._step += 1
        tokens = drawn_tokens(scores.float() / self._temperature, numbers, self._top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def drawn_tokens(logits: torch.Tensor, numbers: torch.Tensor, top_p: float | None = None) -> torch.Tensor:
    """int64 [rows]: where the cumulative probability of `logits` [rows, vocabulary] passes `numbers` [rows] in [0, 1).

    With `top_p`, of the most probable tokens whose mass first reaches it, their probabilities scaled to 1.
    """
    import torch

    probabilities = torch.softmax(logits, -1).double()  # a sum over a vocabulary would lose its last digits in float32
    order = None
    if top_p is not None and top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities * (before < top_p)
    mass = probabilities.cumsum(-1)
    place = torch.searchsorted(mass, (numbers.double() * mass[:, -1])[:, None], right=True)
    last = (probabilities > 0).double().cumsum(-1).argmax(-1, keepdim=True)  # what rounding must not pass
    place = torch.minimum(place, last)
    return (place if order is None else order.gather(1, place))[:, 0]

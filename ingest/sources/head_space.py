"""Head-space decoder rows, mapped into the residual stream: an extension of the paper, which had no such rows.

A `hook_z` dictionary writes to all heads side by side, before the output projection W_O and, in Gemma 2 and 3, before
the attention's output norm. What a row d_z adds to the stream is, in direction, exactly

    d_res = (1 + w) ⊙ (W_O d_z)        Gemma 2 and 3; w the norm's weight
    d_res = W_O d_z                     elsewhere

The norm's division by the token's root mean square scales it, token by token, without turning it; a bias adds nothing
to a difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HeadMap:
    """The linear map from one block's head space into the residual stream."""

    projection: np.ndarray  # float32 [d_model, d_heads]: W_O as torch.nn.Linear keeps it
    gain: np.ndarray | None  # float32 [d_model]: 1 + the output norm's weight; None where there is no such norm

    @property
    def name(self) -> str:
        """What `Dictionary.mapped` records."""
        return "o_proj" if self.gain is None else "o_proj+norm"

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows float32 [n, d_heads] in the residual stream, [n, d_model], not normalised."""
        mapped: np.ndarray = rows @ self.projection.T
        return mapped if self.gain is None else mapped * self.gain

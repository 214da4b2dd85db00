"""Activations of a dictionary's features from the hidden states its encoder reads, as SAELens computes them.

1. centre (dictionaries trained on centred weights), 2. normalise, 3. subtract b_dec, 4. encode, 5. activate.
b_dec is folded into the bias; constant factors and TopK's decoder norms were folded into the rows when they were
written, so that most dictionaries need one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary, Rows

ARCHITECTURES = ("standard", "gated", "jumprelu", "topk")
_NOT_RUN = {
    "matching_pursuit": "it searches among its features for each token; they are no function of the hidden state",
    "abstopk": "its features fire with either sign, so what one of them does has no one direction",
}
_NORMALISATIONS = ("none", "layer_norm", "expected_average_only_in", "constant_norm_rescale")


def not_run(record: Dictionary) -> str | None:
    """Why activations of a dictionary that was matched cannot be computed; None where they can."""
    reason = _NOT_RUN.get(record.architecture)
    return None if reason is None else f"activations of {record.id} ({record.architecture}) cannot be had: {reason}"


class Activations(NamedTuple):
    """What features do at each position."""

    values: torch.Tensor  # float32 [..., n_features]: the activations as SAELens gives them
    reach: torch.Tensor  # float32 [n_features] or [..., n_features]: length of what one unit of activation writes


@dataclass(frozen=True)
class Encoder:
    """The encoder of all or some features; feature i contributes `values_i · reach_i · unit row_i` where it writes."""

    architecture: str  # standard, gated, jumprelu or topk
    normalisation: str  # what is done a token: none, layer_norm or constant_norm_rescale
    centred: bool  # the mean over d_in is removed first
    rescaled_output: bool  # whether the token's norm is given back to what features write (not by transcoders)
    k: int  # active features a token (topk)
    weight: torch.Tensor  # float32 [n, d_in]; all features for topk: they compete
    bias: torch.Tensor  # float32 [n]
    norms: torch.Tensor  # float32 [n_features]: what one unit of activation writes, before the token's norm
    threshold: torch.Tensor | None = None  # float32 [n] (jumprelu)
    gate_bias: torch.Tensor | None = None  # float32 [n] (gated)
    gate_scale: torch.Tensor | None = None  # float32 [n], e^{r_mag} (gated)
    chosen: torch.Tensor | None = None  # int64 [n_features]: the features asked for, where weight holds all

    @classmethod
    def of(cls, record: Dictionary, rows: Rows, features: Sequence[int] | None = None) -> Encoder:
        """The encoder of the given features (None: all), on the CPU.

        Raises PlanError for an architecture or normalisation that is not known, or not run.
        """
        if (reason := not_run(record)) is not None:
            raise PlanError(reason)
        if record.architecture not in ARCHITECTURES:
            raise PlanError(
                f"{record.id}: encoder {record.architecture!r} is not known; known: {', '.join(ARCHITECTURES)}"
            )
        if record.normalize_activations not in _NORMALISATIONS:
            raise PlanError(f"{record.id}: normalisation {record.normalize_activations!r} is not known")
        wanted = slice(None) if features is None else np.asarray(features, dtype=np.int64)
        everything = record.architecture == "topk"
        held = slice(None) if everything else wanted
        rows.check(record, slice(None) if everything or features is None else list(features), encoder=True)

        def vector(name: str) -> torch.Tensor | None:
            return _tensor(rows.vectors[name][held]) if name in rows.vectors else None

        weight = _tensor(rows.encoder[held])
        shift = weight @ _tensor(rows.vectors["b_dec"]) if record.apply_b_dec_to_input else torch.zeros(len(weight))
        bias = (zeros if (zeros := vector("b_enc")) is not None else torch.zeros(len(weight))) - shift
        scale = gate = None
        if record.architecture == "gated":
            scale = _tensor(rows.vectors["r_mag"][held]).exp()
            gate = _tensor(rows.vectors["b_gate"][held]) - shift
            # The magnitude path shares W, so b_dec goes through its scale as well: (x·W − shift)·e^r + b_mag.
            bias = _tensor(rows.vectors["b_mag"][held]) - shift * scale
        return cls(
            architecture=record.architecture,
            normalisation=record.normalize_activations,
            centred=record.centred_input,
            rescaled_output=record.hook_name_in == record.hook_name,
            k=record.k or 0,
            weight=weight,
            bias=bias,
            norms=_tensor(rows.vectors["norms"][wanted]),
            threshold=vector("threshold") if record.architecture == "jumprelu" else None,
            gate_bias=gate,
            gate_scale=scale,
            chosen=torch.from_numpy(np.asarray(features, dtype=np.int64))
            if everything and features is not None
            else None,
        )

    def to(self, device: torch.device | str) -> Encoder:
        """The same encoder on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)

    def __call__(self, hidden: torch.Tensor) -> Activations:
        """Activations at hidden states `[..., d_in]` of any dtype, computed in float32."""
        # In bfloat16 an activation near its threshold could fall on either side of it.
        hidden, scale = self._normalised(hidden.float())
        values = self._activated(hidden)
        return Activations(values, self.norms if scale is None else self.norms * scale)

    def before(self, hidden: torch.Tensor) -> torch.Tensor:
        """Pre-activations `[..., n]` at hidden states `[..., d_in]`, in float32, of all rows that the encoder holds.

        What is activated where it is positive, above its threshold, among the k largest; gated: where the gate is open.
        """
        hidden, _ = self._normalised(hidden.float())
        product = torch.nn.functional.linear(hidden, self.weight)
        return (product if self.gate_scale is None else product * self.gate_scale) + self.bias

    def affine(self, hidden: torch.Tensor, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pre-activations as an affine function of one hidden state `[d_in]`: float64 weights [n, d_in], bias [n].

        `before(hidden)[rows] = weights @ hidden + bias`. Where the encoder scales what it reads by token, that scale is
        held at what it is here; otherwise it is the same function everywhere.
        """
        place = torch.as_tensor(list(rows), device=self.weight.device)
        weights, bias = self.weight[place].double(), self.bias[place].double()
        if self.gate_scale is not None:
            weights = weights * self.gate_scale[place].double()[:, None]
        if self.centred or self.normalisation == "layer_norm":
            weights = weights - weights.mean(dim=1, keepdim=True)
        return weights / self._token_scale(hidden.double()), bias

    def removed(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one hidden state `[d_in]`: the mean and the factor that are taken from it before it is encoded, float64.

        What the features and b_dec amount to is in units without them: `x ≈ (Σ a·row + b_dec) · factor + mean`.
        """
        wide = hidden.double()
        mean = wide.mean() if self.centred or self.normalisation == "layer_norm" else wide.new_zeros(())
        scale = self._token_scale(wide)
        # SAELens gives back the deviation itself, without the constant that keeps the division safe.
        return mean, scale - 1e-5 if self.normalisation == "layer_norm" else scale

    def _token_scale(self, hidden: torch.Tensor) -> torch.Tensor:
        """What `_normalised` divides one hidden state `[d_in]` by."""
        if self.centred or self.normalisation == "layer_norm":
            hidden = hidden - hidden.mean()
        if self.normalisation == "layer_norm":
            return hidden.std() + 1e-5
        if self.normalisation == "constant_norm_rescale":
            return hidden.square().mean().sqrt()
        return hidden.new_ones(())

    def _normalised(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the weights see, and the token's scale `[..., 1]` that is given back to the output, if any."""
        if self.centred:
            hidden = hidden - hidden.mean(-1, keepdim=True)
        if self.normalisation == "layer_norm":
            hidden = hidden - hidden.mean(-1, keepdim=True)
            # SAELens's way and not LayerNorm's: unbiased, and the constant is added to it, not to the variance.
            scale = hidden.std(-1, keepdim=True)
            hidden = hidden / (scale + 1e-5)
        elif self.normalisation == "constant_norm_rescale":
            scale = hidden.norm(dim=-1, keepdim=True) / hidden.shape[-1] ** 0.5
            hidden = hidden / scale
        else:
            return hidden, None
        return hidden, scale if self.rescaled_output else None

    def _activated(self, hidden: torch.Tensor) -> torch.Tensor:
        """Activations `[..., n_features]` of normalised hidden states."""
        if self.gate_scale is not None and self.gate_bias is not None:
            # One product for both paths, which share their weights.
            product = hidden @ self.weight.T
            return (product * self.gate_scale + self.bias).relu() * (product + self.gate_bias > 0)
        before = torch.nn.functional.linear(hidden, self.weight, self.bias)
        if self.architecture == "topk":
            # The choice comes before the ReLU: where fewer than k are positive, fewer than k fire.
            top = torch.topk(before, self.k, dim=-1, sorted=False)
            values = torch.zeros_like(before).scatter_(-1, top.indices, top.values.relu())
            return values if self.chosen is None else values[..., self.chosen]
        values = before.relu()
        return values if self.threshold is None else values * (before > self.threshold)


def _tensor(values: np.ndarray) -> torch.Tensor:
    # A copy: mapped rows cannot be written to, and torch has no such tensors.
    return torch.from_numpy(np.array(values, dtype=np.float32))

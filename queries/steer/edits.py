"""What a plan does to the hidden states at one module: tensors in, the change out.

1. Gather the interventions at a module by what they need: a constant vector, a share of the norm, a span to remove, or
   activations from an encoder.
2. Take all of them from what the hook sees, before any change there; norms, projections and activations in float32.
3. Add their sum, in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any

import numpy as np
import torch

from hooked.encoder import Encoder
from hooked.hookpoints import HookPoint
from queries.steer.intervention import ABLATE, ADD, SUPPRESS, Intervention
from queries.steer.running.positions import Key

Read = Callable[[Key], torch.Tensor]  # the hidden states that an encoder reads, in the columns under way


@dataclass(frozen=True)
class Measured:
    """Features of one dictionary whose change depends on their activation: suppress and clamp."""

    features: tuple[str, ...]  # their ids
    encoder: Encoder
    source: Key  # where the encoder reads
    rms_eps: float | None  # mapped through an output norm: its epsilon; the contribution carries the token's 1/rms
    factor: torch.Tensor  # float32 [n]: r − 1 for suppress, −1 for clamp
    held: torch.Tensor | None  # float32 [n]: the activation to hold for clamp, 0 for suppress; None: nothing clamped
    directions: torch.Tensor  # float32 [n, d_model], unit rows

    def change(self, read: Read, module_input: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [batch, columns, d_model]: Σ (factor·a + held)·reach·d; and a, [batch, columns, n]."""
        values, reach = self.encoder(read(self.source))
        amount = values * self.factor
        amount = (amount if self.held is None else amount + self.held) * reach
        if self.rms_eps is not None and module_input is not None:
            # The row was mapped through the output norm's gain; its division differs by token, and is made here.
            amount = amount * (module_input.float().pow(2).mean(-1, keepdim=True) + self.rms_eps).rsqrt()
        return amount @ self.directions, values


@dataclass(frozen=True)
class Edit:
    """Everything that happens at one module, at prompt or at generated positions."""

    constant: torch.Tensor | None  # float32 [d_model]: Σ s·d
    share: torch.Tensor | None  # float32 [d_model]: Σ p·d, times ‖h‖
    span: torch.Tensor | None  # float32 [m, d_model]: orthonormal rows, the components to remove
    measured: tuple[Measured, ...]
    ready: torch.Tensor | None = None  # `constant` in the model's dtype, where it is all there is
    length: float | None = None  # of `ready`

    def change(
        self, hidden: torch.Tensor, read: Read, module_input: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What to add to hidden states `[batch, columns, d_model]`, broadcastable to them, in their dtype.

        And the activations of what `measured` holds, `[batch, columns, n]` each.
        """
        if self.ready is not None:
            # What most plans are: one addition a module, with nothing cast or computed for a token.
            return self.ready, []
        device = hidden.device.type
        if torch.is_autocast_enabled(device):  # it would do the products below in half precision
            with torch.autocast(device, enabled=False):
                return self._change(hidden, read, module_input)
        return self._change(hidden, read, module_input)

    def _change(
        self, hidden: torch.Tensor, read: Read, module_input: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        parts = [] if self.constant is None else [self.constant]
        # In half precision a norm over thousands of numbers and small differences of large ones are rounded away.
        seen = hidden.float()
        if self.share is not None:
            parts.append(torch.linalg.vector_norm(seen, dim=-1, keepdim=True) * self.share)
        if self.span is not None:
            # Of orthonormal rows, so that directions which overlap are not removed twice.
            parts.append(-(seen @ self.span.T) @ self.span)
        measured = [part.change(read, module_input) for part in self.measured]
        parts += [change for change, _ in measured]
        # One addition to the state: the order in which a plan names its features changes no bit of more than this sum.
        return reduce(torch.add, parts).to(hidden.dtype), [values for _, values in measured]

    def on(self, device: torch.device, dtype: torch.dtype) -> Edit:
        """The same edit with its tensors on the device of the hidden states."""
        with torch.inference_mode(False):  # a tensor made in inference mode could not be used in training afterwards
            moved: Edit = _moved(self, device)
            if self.share is not None or self.span is not None or self.measured or moved.constant is None:
                return moved
            ready = moved.constant.to(dtype)
            return replace(moved, ready=ready, length=float(torch.linalg.vector_norm(ready.float())))


def make_edit(
    interventions: Sequence[Intervention], source: Callable[[Intervention], HookPoint], rms_eps: float | None
) -> Edit | None:
    """The edit of the interventions at one module; None where there is none.

    source: where the encoder of an intervention reads. rms_eps: epsilon of the module, where it is an output norm.
    """
    if not interventions:
        return None
    adds = [each for each in interventions if each.mode == ADD and each.strength is not None]
    fixed = [each for each in adds if each.strength is not None and not each.strength.percent]
    shares = [each for each in adds if each.strength is not None and each.strength.percent]
    ablated = [each.direction for each in interventions if each.mode == ABLATE]
    groups: dict[str, list[Intervention]] = {}
    # By dictionary, so that its encoder reads the state once for all of them.
    for each in interventions:
        if each.mode not in (ADD, ABLATE):
            groups.setdefault(each.dictionary.id, []).append(each)
    return Edit(
        constant=_weighted(fixed, 1.0),
        share=_weighted(shares, 0.01),
        span=_orthonormal(np.stack(ablated)) if ablated else None,
        measured=tuple(_measured(group, source(group[0]), rms_eps) for group in groups.values()),
    )


def _measured(group: list[Intervention], point: HookPoint, rms_eps: float | None) -> Measured:
    """Suppressed and clamped features of one dictionary."""
    record, rows = group[0].dictionary, group[0].rows
    if rows is None:
        raise ValueError(f"an intervention of mode {group[0].mode} carries its dictionary's rows")
    values = [0.0 if each.strength is None else each.strength.value for each in group]
    suppress = [each.mode == SUPPRESS for each in group]
    return Measured(
        features=tuple(each.feature for each in group),
        encoder=Encoder.of(record, rows, [each.index for each in group]),
        source=(point.name, point.side),
        rms_eps=rms_eps if record.mapped == "o_proj+norm" else None,
        factor=torch.tensor([r - 1 if s else -1.0 for r, s in zip(values, suppress, strict=True)]),
        held=None if all(suppress) else torch.tensor([0.0 if s else v for v, s in zip(values, suppress, strict=True)]),
        directions=torch.from_numpy(np.stack([each.direction for each in group])),
    )


def _weighted(interventions: list[Intervention], unit: float) -> torch.Tensor | None:
    """float32 [d_model]: the sum of direction times strength; None where there is none."""
    if not interventions:
        return None
    values = [each.strength.value * unit for each in interventions if each.strength is not None]
    # In float64: vectors that nearly cancel are a plan too.
    total = np.asarray(values) @ np.stack([each.direction for each in interventions]).astype(np.float64)
    with np.errstate(over="ignore"):  # a strength beyond float32 is noticed when it is applied
        return torch.from_numpy(total.astype(np.float32))


def _orthonormal(directions: np.ndarray) -> torch.Tensor:
    """float32 [m, d_model]: orthonormal rows with the same span; m is smaller where directions depend on each other."""
    _, sizes, rows = np.linalg.svd(directions.astype(np.float64), full_matrices=False)
    return torch.from_numpy(rows[sizes > 1e-6 * sizes[0]].astype(np.float32))


def _moved(value: Any, device: torch.device) -> Any:
    """A dataclass with every tensor in it on the device."""
    changed: dict[str, Any] = {}
    for field in fields(value):
        held = getattr(value, field.name)
        if isinstance(held, (torch.Tensor, Encoder)):
            changed[field.name] = held.to(device)
        elif isinstance(held, tuple) and held and isinstance(held[0], Measured):
            changed[field.name] = tuple(_moved(part, device) for part in held)
    return replace(value, **changed)

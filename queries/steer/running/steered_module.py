"""One module that is steered: its hook, the edits there, and the count of what was done."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from atlas.errors import ModelError
from hooked.hookpoints import HookPoint
from queries.steer.edits import Edit
from queries.steer.running.positions import Attached, Key, Pass, Passes


@dataclass
class SteeredModule(Attached):
    """A module that is steered, and what happened there."""

    point: HookPoint
    prompt: Edit | None  # at the prompt's positions, those of its last turn aside where `turn` is another
    turn: Edit | None  # at the prompt's last turn
    generated: Edit | None  # at generated positions
    split: bool  # whether they differ
    calls: int = 0  # times its hook ran
    positions: int = 0  # positions that were steered, padding not counted
    lengths: float | torch.Tensor = 0.0  # of what was added: each pass's median, summed over its positions
    activity: dict[tuple[str, ...], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)  # see `features`
    _moved: dict[tuple[str, torch.device, torch.dtype], Edit] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def features(self) -> list[dict[str, Any]]:
        """Of each suppressed or clamped feature, at how many of these positions it was active, and its largest."""
        return [
            {"feature": feature, "active": active, "largest": largest}
            for features, (counts, peaks) in self.activity.items()
            for feature, active, largest in zip(features, counts.tolist(), peaks.tolist(), strict=True)
        ]

    @property
    def added(self) -> float | None:
        """The length of what was added to a position: the median of each pass, and their mean by positions.

        None where none was steered. Not the mean of all: a share of the norm adds a hundred times as much at a
        sequence's first position, an attention sink, as elsewhere.
        """
        return float(self.lengths) / self.positions if self.positions else None

    def attach(self, passes: Passes) -> RemovableHandle:
        """Register the hook; returns its handle."""
        return self.point.register(partial(self.steer, passes))

    def steer(self, passes: Passes, hidden: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor | None:
        """Hidden states `[batch, columns, d_model]` with the edit at the positions it is for.

        before: the module's input, where `hidden` is its output.
        """
        if passes.foreign:
            return None
        now = passes.current or self._alone(passes, hidden)
        # A block that runs again in a backward pass is steered again, and was counted before.
        if not now.again:
            with self._lock:
                self.calls += 1
        if hidden.shape[1] != now.length:
            raise ModelError(
                f"{self.point.name} saw {hidden.shape[1]} positions in a pass of {now.length}: they cannot be counted"
            )
        cut = now.cut if self.split else now.length
        # Nearly every pass is all prompt or all generated: no tensor is cut and joined for it.
        if cut in (0, now.length):
            steered = self._part(slice(0, now.length), cut == 0, hidden, before, now, passes.read)
        else:
            parts = (
                self._part(columns, bool(generated), hidden[:, columns], before, now, passes.read)
                for generated, columns in enumerate((slice(0, cut), slice(cut, now.length)))
            )
            steered = torch.cat(tuple(parts), dim=1)
        self._measure(steered.detach(), now)
        if passes.current is None:
            passes.on_end(now, None)
        return steered

    def _part(
        self,
        columns: slice,
        generated: bool,
        hidden: torch.Tensor,
        before: torch.Tensor | None,
        now: Pass,
        read: dict[Key, torch.Tensor],
    ) -> torch.Tensor:
        """Some columns of the hidden states, all of them prompt or all generated, steered."""
        real = None if now.real is None else now.real[:, columns].to(hidden.device)
        if (rows := now.rows) is not None:
            # As padding is: the rows of other plans in the batch stay what they are.
            chosen = rows.to(hidden.device).expand(hidden.shape[:2])
            real = chosen if real is None else real & chosen
        whole = [("generated", self.generated, real)] if generated else [("prompt", self.prompt, real)]
        if not generated and self.turn is not self.prompt:
            turn = self._turn(now)[:, columns].to(hidden.device)
            whole = [
                (name, edit, where if real is None else where & real)
                for name, edit, where in (("prompt", self.prompt, ~turn), ("turn", self.turn, turn))
            ]
        own = (self.point.name, self.point.side)

        def seen(source: Key) -> torch.Tensor:
            return hidden if source == own else read[source][:, columns]

        steered = hidden
        for name, edit, where in whole:
            if edit is None:
                continue
            key = (name, hidden.device, hidden.dtype)
            # Blocks of one model may lie on several devices, and a hook is told only by what passes through it.
            if key not in self._moved:
                self._moved[key] = edit.on(hidden.device, hidden.dtype)
            moved = self._moved[key]
            change, values = moved.change(hidden, seen, None if before is None else before[:, columns])
            if not now.again:
                self._count(moved, change.detach(), values, where, hidden.shape[0] * hidden.shape[1])
            if where is not None:
                # Filled, not multiplied: a change that is not finite at padding would come through as NaN.
                change = change.expand_as(hidden).masked_fill(~where[..., None], 0)
            steered = steered + change
        return steered

    def _turn(self, now: Pass) -> torch.Tensor:
        """bool [batch, columns]: the prompt's last turn; raises ModelError where it is not known."""
        if now.turn is None:
            raise ModelError("positions turn: the last turn is known of chat prompts only: give messages, or --chat")
        return now.turn

    def _count(
        self, edit: Edit, change: torch.Tensor, values: list[torch.Tensor], where: torch.Tensor | None, places: int
    ) -> None:
        """Note positions that were steered, how long the change there was, and where measured features were active."""
        count = places if where is None else int(where.sum())
        lengths: float | torch.Tensor
        if edit.length is not None:
            lengths = edit.length * count
        else:
            each = torch.linalg.vector_norm(change.float(), dim=-1)
            # One vector for all positions, or one each.
            each = each if where is None or each.ndim == 0 else each[where]
            lengths = each.median() * count if each.numel() else 0.0
        with self._lock:
            self.positions += count
            self.lengths = self.lengths + lengths
            for part, activations in zip(edit.measured, values, strict=True):
                found = activations.detach()
                if where is not None:
                    found = found.masked_fill(~where[..., None], 0)
                active, largest = (found > 0).sum((0, 1)), found.amax((0, 1))
                if (before := self.activity.get(part.features)) is not None:
                    active, largest = active + before[0], torch.maximum(largest, before[1])
                self.activity[part.features] = active, largest

    def _measure(self, steered: torch.Tensor, now: Pass) -> None:
        """Note Σ h² over real positions: what is not finite there is no state that a model can go on from."""
        if now.real is not None:
            steered = steered.masked_fill(~now.real[..., None].to(steered.device), 0)
        # A dot product is one pass without an array of squares; what it sums to is looked at once the model is done.
        flat = steered.float().reshape(-1)
        now.sizes.append((self.point.name, torch.dot(flat, flat)))

    def _alone(self, passes: Passes, hidden: torch.Tensor) -> Pass:
        """A pass of a module called on its own, outside the model; raises ModelError where its positions matter."""
        if passes.inside:
            raise ModelError("the model was called without input_ids and inputs_embeds: positions cannot be counted")
        if torch._C._current_graph_task_id() != -1:
            raise ModelError(
                f"{self.point.name} ran again in a backward pass, by checkpointing that is not the model's own: use "
                "model.gradient_checkpointing_enable()"
            )
        if self.split:
            raise ModelError(
                f"{self.point.name} was called outside the model: prompt and generated positions are unknown"
            )
        batch, length = hidden.shape[:2]
        return Pass(batch, length, length, None, rows=passes.chosen(batch))

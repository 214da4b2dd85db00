"""One module that is steered: its hook, the edits there, and the count of what was done."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.utils.hooks import RemovableHandle

from atlas.errors import ModelError
from hooked.hookpoints import HookPoint
from queries.steer.edits import Edit, Key
from queries.steer.positions import Pass, Passes

Read = dict[Key, torch.Tensor]  # what passed through the places that encoders read, in this pass


@dataclass
class SteeredModule:
    """A module that is steered, and what happened there."""

    point: HookPoint
    prompt: Edit | None  # at the prompt's positions
    generated: Edit | None  # at generated positions
    split: bool  # whether the two differ
    calls: int = 0  # times its hook ran
    positions: int = 0  # positions that were steered, padding not counted
    _moved: dict[tuple[bool, torch.device, torch.dtype], Edit] = field(default_factory=dict)

    def attach(self, passes: Passes, read: Read) -> RemovableHandle:
        """Register the hook; returns its handle."""
        return self.point.register(lambda hidden, before: self.steer(hidden, before, passes, read))

    def steer(self, hidden: torch.Tensor, before: torch.Tensor | None, passes: Passes, read: Read) -> torch.Tensor:
        """Hidden states `[batch, columns, d_model]` with the edit at the positions it is for.

        before: the module's input, where `hidden` is its output.
        """
        self.calls += 1
        now = passes.current or self._alone(hidden)
        if hidden.shape[1] != now.length:
            raise ModelError(
                f"{self.point.name} saw {hidden.shape[1]} positions in a pass of {now.length}: they cannot be counted"
            )
        cut = now.cut if self.split else now.length
        if cut in (0, now.length):
            return self._part(slice(0, now.length), cut == 0, hidden, before, now, read)
        parts = (
            self._part(columns, bool(generated), hidden[:, columns], before, now, read)
            for generated, columns in enumerate((slice(0, cut), slice(cut, now.length)))
        )
        return torch.cat(tuple(parts), dim=1)

    def _part(
        self, columns: slice, generated: bool, hidden: torch.Tensor, before: torch.Tensor | None, now: Pass, read: Read
    ) -> torch.Tensor:
        """Some columns of the hidden states, all of them prompt or all generated, steered."""
        edit = self.generated if generated else self.prompt
        if edit is None:
            return hidden
        key = (generated, hidden.device, hidden.dtype)
        if key not in self._moved:
            self._moved[key] = edit.on(hidden.device, hidden.dtype)
        own = (self.point.name, self.point.side)

        def seen(source: Key) -> torch.Tensor:
            return hidden if source == own else read[source][:, columns]

        change = self._moved[key].change(hidden, seen, None if before is None else before[:, columns])
        self.positions += now.count(columns.start, columns.stop)
        if now.real is not None:
            padding = ~now.real[:, columns, None].to(hidden.device)
            change = change.expand_as(hidden).masked_fill(padding, 0)
        return hidden + change

    def _alone(self, hidden: torch.Tensor) -> Pass:
        """A pass of a module called on its own, outside the model; raises ModelError where its positions matter."""
        if self.split:
            raise ModelError(
                f"{self.point.name} was called outside the model: prompt and generated positions are unknown"
            )
        return Pass(hidden.shape[0], hidden.shape[1], hidden.shape[1], None)

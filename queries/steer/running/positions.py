"""Follow a model's forward passes: which columns each covers, which of them are prompt, and which are real.

Every thread has passes of its own, so that several may call one steered model at once.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from atlas.errors import ModelError
from queries.steer.running.padding import is_packed, real_positions
from queries.steer.running.sequences import Call, Sequences

Key = tuple[str, str]  # module path and side


@dataclass
class Pass:
    """What one forward pass covers, and what was seen in it."""

    batch: int
    length: int  # columns in this pass
    cut: int  # columns before this one are prompt, from it on generated
    real: torch.Tensor | None  # bool [batch, length]: not padding; None: no padding in this pass
    turn: torch.Tensor | None = None  # bool [batch, length]: in the prompt's last turn; None: not known
    rows: torch.Tensor | None = None  # bool [batch, 1]: the rows that are steered; None: all
    read: dict[Key, torch.Tensor] = field(default_factory=dict)  # what passed where encoders read
    sizes: list[tuple[str, torch.Tensor]] = field(default_factory=list)  # steered modules, Σ h² after steering
    again: bool = False  # whether it is being run again, in a backward pass

    def count(self, start: int, stop: int) -> int:
        """Positions in these columns that are not padding."""
        if self.real is None:
            return self.batch * (stop - start)
        return int(self.real[:, start:stop].sum())


class _Own(threading.local):
    """What one thread is doing."""

    def __init__(self, sequences: Sequences) -> None:
        self.current: Pass | None = None
        self.open: list[Any] = []  # modules of the model under way, outermost first
        self.sequences = sequences
        self.alone: dict[Key, torch.Tensor] = {}  # what passed where encoders read, outside a pass


class Attached:
    """What hooks hold on to: it belongs to one model, so that a copy made of that model in the meantime is refused."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Raises ModelError: the copy would stay steered for good."""
        raise ModelError("a steered model cannot be copied or pickled: do it outside steered()")


class Passes(Attached):
    """Follows the forward passes of a model; `current` describes the one under way in this thread."""

    def __init__(
        self,
        *,
        split: bool,
        prompt_length: int | None = None,
        turns: list[int] | None = None,
        thread: int | None = None,
        rows: Sequence[int] | None = None,
        on_end: Callable[[Pass, Any], None] = lambda ended, output: None,
    ) -> None:
        """Follow passes, none yet.

        Args:
            split: whether prompt and generated positions are told apart.
            prompt_length: columns of the prompt, where known.
            turns: real positions from the start of each prompt's last turn to the prompt's end.
            thread: the only thread whose passes count; None: all.
            rows: the only rows of a batch that are steered; None: all.
            on_end: called with a pass that ended and the model's output.
        """
        self.seen = 0  # passes begun
        self.refusal: ModelError | None = None  # raised in another thread, where nobody may have heard of it
        self._owner = threading.get_ident()
        self.split = split
        self._turns = turns
        self._prompt_length = prompt_length
        self._thread = thread
        self._rows = None if rows is None else torch.tensor(sorted(rows))
        self.on_end = on_end
        self._own = _Own(Sequences(prompt_length))
        self._names: dict[type, list[str]] = {}

    @property
    def current(self) -> Pass | None:
        """The pass under way in this thread."""
        return self._own.current

    @property
    def read(self) -> dict[Key, torch.Tensor]:
        """What passed through the places that encoders read, in this thread's pass."""
        return self._own.alone if self._own.current is None else self._own.current.read

    @property
    def foreign(self) -> bool:
        """Whether this thread's passes are none of ours."""
        return self._thread is not None and self._thread != threading.get_ident()

    def chosen(self, batch: int) -> torch.Tensor | None:
        """bool [batch, 1]: the rows that are steered; None: all. Raises ModelError where the batch has other rows."""
        if self._rows is None:
            return None
        if int(self._rows[-1]) >= batch:
            raise self.refused(f"row {int(self._rows[-1])} is to be steered, and the batch has {batch} rows")
        found = torch.zeros(batch, 1, dtype=torch.bool)
        found[self._rows] = True
        return found

    @property
    def inside(self) -> bool:
        """Whether the model is under way in this thread."""
        return bool(self._own.open)

    def refused(self, message: str) -> ModelError:
        """An error to raise; also at the end of the block, where this is a thread that the user does not see."""
        error = ModelError(message)
        # A data loader's or a server's worker would take the error with it.
        if threading.get_ident() != self._owner:
            self.refusal = error
        return error

    def keep(self, key: Key, hidden: torch.Tensor, _module_input: torch.Tensor | None) -> None:
        """Hook of a place that an encoder reads."""
        self.read[key] = hidden

    @contextmanager
    def replayed(self, current: Pass) -> Iterator[None]:
        """A part of an earlier pass, run again in this thread."""
        before, self._own.current = self._own.current, current
        current.again = True
        try:
            yield
        finally:
            self._own.current = before

    @contextmanager
    def generating(self, call: Call) -> Iterator[None]:
        """A call of `generate` in this thread: its input is the prompt."""
        before, self._own.sequences = self._own.sequences, Sequences(self._prompt_length, call)
        try:
            yield
        finally:
            self._own.sequences = before

    def enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook of the model and of those of its modules that hold the blocks; the outermost counts."""
        if self.foreign:
            return
        own = self._own
        if module in own.open:  # an interrupt ended the pass before: nothing was told that it left
            del own.open[own.open.index(module) :]
        own.open.append(module)
        given = self._arguments(module, args, kwargs)
        tokens = given.get("input_ids")
        tokens = given.get("inputs_embeds") if tokens is None else tokens
        if len(own.open) == 1:
            # Left by a pass that was interrupted, this one would read what that one saw.
            own.current = None
            self.seen += 1
        # Prompt tuning, for one, puts columns before those that the outermost module was given.
        now = own.current
        if tokens is not None and (now is None or (now.batch, now.length) != tuple(tokens.shape[:2])):
            own.current = self._begin(given, tokens)

    def leave(self, module: Any, _arguments: Any, output: Any) -> None:
        """Forward hook of the same modules, called also where they raise."""
        if self.foreign:
            return
        own = self._own
        if own.open and own.open[-1] is module:
            own.open.pop()
        if not own.open:
            # Only with the outermost module: the model's head comes after its blocks.
            ended, own.current = own.current, None
            if ended is not None and output is not None:
                self.on_end(ended, output)

    def _arguments(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """The call's arguments by name."""
        if not args:
            return kwargs
        # Once a class: inspecting a signature takes longer than a small model's pass.
        if type(module) not in self._names:
            self._names[type(module)] = list(inspect.signature(module.forward).parameters)
        return dict(zip(self._names[type(module)], args, strict=False)) | kwargs

    def _begin(self, given: Mapping[str, Any], tokens: torch.Tensor) -> Pass:
        batch, length = tokens.shape[:2]
        if is_packed(given):
            if self._rows is not None:
                raise self.refused("continuous batching packs requests in one row: plans for some rows cannot be kept")
            if self.split:
                raise self.refused(
                    "continuous batching packs requests in one row, where prompt and generated positions cannot be "
                    "told apart: steer all positions, or use generate()"
                )
            return Pass(batch, length, length, real_positions(given, 0, length))
        cache = _cache(given)
        start = 0 if cache is None else int(cache.get_seq_length())
        real = real_positions(given, start, length)
        cut = self._own.sequences.cut(tokens, start, cache) if self.split else length
        return Pass(batch, length, cut, real, self._turn(start, length), self.chosen(batch))

    def _turn(self, start: int, length: int) -> torch.Tensor | None:
        """bool [batch, length]: the prompt's last turn, where prompts are padded on the left."""
        if self._turns is None or self._prompt_length is None:
            return None
        # Counted from the prompt's end, which is where rows of different lengths meet.
        place = torch.arange(start, start + length)[None]
        first = self._prompt_length - torch.tensor(self._turns)[:, None]
        return (place >= first) & (place < self._prompt_length)


def _cache(given: Mapping[str, Any]) -> Any:
    """The KV cache among a call's arguments; None without one.

    Known by what it can do: the argument's name changed in transformers 5.24.
    """
    return next((each for each in given.values() if hasattr(each, "get_seq_length")), None)

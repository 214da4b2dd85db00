"""Which positions a forward pass covers: counted from the sequence's start, without padding.

Under KV-cache decoding a pass sees one token, without a cache the whole sequence again; steering must be the same.
Unless the prompt's length is given:

- A pass that starts a sequence is its prompt.
- Later passes of one token are generated; of several tokens (a prompt in chunks, a next turn), they are prompt again.
- Without a cache, a pass that repeats the prompt and is one token longer than the pass before continues it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from atlas.errors import ModelError


@dataclass(frozen=True)
class Pass:
    """What one forward pass covers."""

    batch: int
    length: int  # columns in this pass
    cut: int  # columns before this one are prompt, from it on generated
    real: torch.Tensor | None  # bool [batch, length]: not padding; None: no padding in this pass

    def count(self, start: int, stop: int) -> int:
        """Positions in these columns that are not padding."""
        if self.real is None:
            return self.batch * (stop - start)
        return int(self.real[:, start:stop].sum())


class Passes:
    """Follows the forward passes of a model; `current` describes the one under way."""

    def __init__(self, *, split: bool, prompt_length: int | None = None) -> None:
        """split: whether prompt and generated positions are told apart; prompt_length: columns of the prompt."""
        self.current: Pass | None = None
        self.seen = 0  # passes begun
        self._split = split
        self._prompt_length = prompt_length
        self._prompt = 0  # columns of the sequence under way that are prompt
        self._end = 0  # its columns so far
        self._tokens: torch.Tensor | None = None  # the prompt itself, to recognise it without a cache
        self._open: list[Any] = []  # modules of the model under way, outermost first
        self._names: dict[type, list[str]] = {}

    def enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook of the model and of those of its modules that hold the blocks; the outermost counts."""
        if module in self._open:  # an interrupt ended the pass before: nothing was told that it left
            del self._open[self._open.index(module) :]
        self._open.append(module)
        if len(self._open) == 1:
            self.current = None
            self.current = self._begin(self._arguments(module, args, kwargs))
            self.seen += 1

    def leave(self, module: Any, *_: Any) -> None:
        """Forward hook of the same modules, called also where they raise."""
        if self._open and self._open[-1] is module:
            self._open.pop()
        if not self._open:
            self.current = None

    def _arguments(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """The call's arguments by name."""
        if not args:
            return kwargs
        if type(module) not in self._names:
            self._names[type(module)] = list(inspect.signature(module.forward).parameters)
        return dict(zip(self._names[type(module)], args, strict=False)) | kwargs

    def _begin(self, given: Mapping[str, Any]) -> Pass:
        tokens = given.get("input_ids")
        if tokens is None:
            tokens = given.get("inputs_embeds")
        if tokens is None:
            raise ModelError("the model was called without input_ids and inputs_embeds: positions cannot be counted")
        batch, length = tokens.shape[:2]
        start = cached_length(given)
        cut = self._cut(tokens, start, length) if self._split else length
        return Pass(batch, length, cut, real_positions(given.get("attention_mask"), start, length))

    def _cut(self, tokens: torch.Tensor, start: int, length: int) -> int:
        """Columns of this pass that are prompt; keeps what the next pass is compared with."""
        stop = start + length
        if self._prompt_length is not None:
            self._prompt = self._prompt_length
        elif start:
            if not self._prompt <= start <= self._end or length > 1:
                self._prompt = stop
        elif not self._continues(tokens, length):
            self._prompt, self._tokens = stop, tokens
        self._end = stop
        return min(max(self._prompt - start, 0), length)

    def _continues(self, tokens: torch.Tensor, length: int) -> bool:
        """Whether a pass without a cache is the last one and a token more."""
        before = self._tokens
        return (
            before is not None
            and length == self._end + 1
            and tokens.shape[0] == before.shape[0]
            and torch.equal(tokens[:, : before.shape[1]], before)
        )


def cached_length(given: Mapping[str, Any]) -> int:
    """Columns that the KV cache among a call's arguments holds; 0 without one.

    Known by what it can do: the argument's name changed in transformers 5.24.
    """
    cache = next((each for each in given.values() if hasattr(each, "get_seq_length")), None)
    return 0 if cache is None else int(cache.get_seq_length())


def real_positions(mask: Any, start: int, length: int) -> torch.Tensor | None:
    """bool [batch, length], False at padding, from the attention mask of a pass; None where there is no padding.

    A mask is [batch, columns], or already expanded to [batch, 1, queries, columns], alone or one for each kind of
    layer: then a column is padding where the last query cannot see it.
    """
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not isinstance(mask, torch.Tensor) or mask.ndim not in (2, 4):
        return None
    if mask.ndim == 4:
        mask = mask[:, 0, -1]
        mask = mask if mask.dtype == torch.bool else mask == 0
    columns = mask[:, start : start + length] if mask.shape[1] >= start + length else mask[:, -length:]
    real = columns.bool()
    return None if real.shape[1] != length or bool(real.all()) else real

"""Which columns of the sequences that a model works on are prompt, the rest being generated.

Under KV-cache decoding a pass sees one token, without a cache the whole sequence again; several sequences may take
turns (guidance). Inside a call of `generate` its input is the prompt, whatever passes it is read in (chunks, candidates
of a draft model) and a second sequence's first pass is that one's prompt. In other code, unless the length is given:

- A pass that starts a sequence is its prompt.
- Later passes of one token are generated; of several tokens (a prompt in chunks, a next turn), they are prompt again.
- Without a cache, a pass that repeats a prompt and is one token longer than the pass before continues it.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from atlas.errors import ModelError

_REMEMBERED = 64  # sequences that may take turns


@dataclass
class Call:
    """A call of the model's `generate` under way."""

    length: int | None  # columns of its input; None: not known
    candidates: bool  # whether several tokens may be tried at once (a draft model, prompt lookup)
    begun: bool = False  # whether the sequence that its input starts was seen

    @classmethod
    def of(cls, model: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call from its arguments; raises ModelError where prompt and generated positions cannot be told apart."""
        given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        # What the call says counts before its configuration, and that before the model's own, as in transformers.
        configs = (given, vars(given.get("generation_config") or object.__new__(_Empty)), vars(model.generation_config))

        def chosen(name: str) -> Any:
            return next((each[name] for each in configs if each.get(name) is not None), None)

        for name in ("token_healing", "custom_generate", "assistant_early_exit", "use_mtp"):
            if chosen(name):
                raise ModelError(
                    f"prompt and generated positions cannot be told apart with {name}: steer all positions, or leave it"
                )
        # The names under which a prompt can come; without any, its length is known from the first pass alone.
        tokens = next((given[n] for n in ("inputs", "input_ids", "inputs_embeds") if given.get(n) is not None), None)
        candidates = any(chosen(name) is not None for name in ("assistant_model", "prompt_lookup_num_tokens"))
        return cls(None if tokens is None else tokens.shape[1], candidates)


class _Empty:
    """No configuration."""


@dataclass
class Sequence:
    """One sequence under way, or a batch of them."""

    prompt: int  # its columns that are prompt
    end: int  # its columns so far
    tokens: torch.Tensor | None  # those of the pass that started it, to recognise it while there is no cache
    cache: weakref.ref[Any] | None  # the cache it grows in, once that was seen


class Sequences:
    """Those under way in any thread, or those of one call of `generate`."""

    def __init__(self, prompt_length: int | None, call: Call | None = None) -> None:
        """prompt_length: columns of the prompt, where they were given."""
        self._given = prompt_length
        self._call = call
        self._known: list[Sequence] = []
        self._lock = threading.Lock()

    def cut(self, tokens: torch.Tensor, start: int, cache: Any) -> int:
        """Columns of a pass that are prompt; keeps what the next pass is compared with.

        tokens: ids or embeddings `[batch, columns, …]`; start: columns that the cache holds already.
        """
        length = tokens.shape[1]
        # Threads that share one model may share this too, where all passes count.
        with self._lock:
            found = self._followed(tokens, start, length, cache)
        return min(max(found.prompt - start, 0), length)

    def _followed(self, tokens: torch.Tensor, start: int, length: int, cache: Any) -> Sequence:
        """The sequence of a pass, as it stands after it."""
        stop = start + length
        found = self._find(tokens, start, cache)
        if found is None:
            # Weakly: a cache is gigabytes, and its user decides when it goes.
            held = None if cache is None else weakref.ref(cache)
            found = Sequence(self._prompt(tokens, stop), stop, tokens if held is None else None, held)
            if self._call is not None:
                self._call.begun = True
            self._known = [*self._known[1 - _REMEMBERED :], found]
        elif (
            self._call is None
            and self._given is None
            and start
            and (length > 1 or not found.prompt <= start <= found.end)
        ):
            # A chat's next turn on the cache of the last one: nobody generated it.
            found.prompt = stop
        found.end = stop
        return found

    def _prompt(self, tokens: torch.Tensor, stop: int) -> int:
        """Columns of prompt of a sequence that begins, whose first pass ends at `stop`."""
        call = self._call
        if call is not None and call.begun:
            return stop  # the sequence that guidance turns away from
        if self._given is not None:
            return self._given
        if call is None or call.length is None:
            return stop
        if tokens.ndim == 3 and stop != call.length:  # prompt tuning puts columns before the prompt
            if call.candidates:
                raise ModelError("prompt tuning with a draft model: which positions are generated is not known")
            return stop
        return call.length

    def _find(self, tokens: torch.Tensor, start: int, cache: Any) -> Sequence | None:
        """The sequence that a pass continues; None where it starts one."""
        if cache is None:
            return next((each for each in self._known if _continues(each, tokens)), None)
        if not start:  # a new cache, or one that was emptied
            self._known = [each for each in self._known if each.cache is None or each.cache() is not cache]
            return None
        for each in reversed(self._known):
            if each.cache is None and each.end == start:
                # Its first pass made the cache that it was not given.
                each.cache, each.tokens = weakref.ref(cache), None
            if each.cache is not None and each.cache() is cache:
                return each
        return None


def _continues(sequence: Sequence, tokens: torch.Tensor) -> bool:
    """Whether a pass without a cache is a sequence's last one and a token more."""
    before = sequence.tokens
    return (
        before is not None
        and tokens.shape[1] == sequence.end + 1
        and tokens.shape[0] == before.shape[0]
        and tokens.dtype == before.dtype
        and torch.equal(tokens[:, : before.shape[1]], before)
    )

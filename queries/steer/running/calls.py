"""Around calls of a steered model: `generate`, whose input is the prompt, and compiled code, which knows no hook."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from types import MethodType
from typing import Any

from queries.steer.running.positions import Attached, Passes
from queries.steer.running.sequences import Call


class Followed(Attached):
    """A model's `generate` that says what its prompt is."""

    def __init__(self, model: Any, own: Callable[..., Any], passes: Passes) -> None:
        """own: the model's `generate` without this."""
        self._model = model
        self._own = own
        self._passes = passes
        update_wrapper(self, own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate; raises ModelError where prompt and generated positions cannot be told apart."""
        if self._passes.foreign:
            return self._own(*args, **kwargs)
        with self._passes.generating(Call.of(self._model, self._own, args, kwargs)):
            return self._own(*args, **kwargs)

    def on(self, model: Any) -> Followed:
        """The same of a model that shares this one's modules."""
        own = self._own.on(model) if isinstance(self._own, Followed) else MethodType(type(model).generate, model)
        return Followed(model, own, self._passes)


@contextmanager
def followed(modules: list[Any], passes: Passes) -> Iterator[None]:
    """Inside, calls of the modules' `generate` say what their prompt is."""
    before: list[tuple[Any, Any]] = []
    try:
        for module in modules:
            if hasattr(type(module), "generate"):
                before.append((module, vars(module).get("generate")))
                module.generate = Followed(module, module.generate, passes)
        yield
    finally:
        for module, own in reversed(before):
            del module.generate
            if own is not None:
                module.generate = own


class _Eager:
    """How many blocks in this process want compiled code to run eagerly, and what gives it back."""

    lock = threading.Lock()
    blocks = 0
    stance: Any = None


@contextmanager
def eager() -> Iterator[None]:
    """Inside, what torch compiled runs as it was written: compiled code would not call hooks that came later."""
    import torch

    # Not imported for this: it takes a second, and where nothing did, nothing was compiled.
    wanted = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    if not wanted:
        yield
        return
    with _Eager.lock:
        if not _Eager.blocks:
            _Eager.stance = torch.compiler.set_stance("force_eager")
        _Eager.blocks += 1
    try:
        yield
    finally:
        with _Eager.lock:
            _Eager.blocks -= 1
            if not _Eager.blocks:
                _Eager.stance.__exit__(None, None, None)

"""Around calls of a steered model: `generate`, whose input is the prompt, and compiled code, which knows no hook."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from queries.steer.running.positions import Passes


@contextmanager
def followed(modules: list[Any], passes: Passes) -> Iterator[None]:
    """Inside, calls of the modules' `generate` say what their prompt is."""
    from queries.steer.running.sequences import Call

    before: list[tuple[Any, Any]] = []

    def follow(module: Any) -> None:
        own = module.generate

        @wraps(own)
        def generate(*args: Any, **kwargs: Any) -> Any:
            if passes.foreign:
                return own(*args, **kwargs)
            with passes.generating(Call.of(module, own, args, kwargs)):
                return own(*args, **kwargs)

        before.append((module, vars(module).get("generate")))
        module.generate = generate

    try:
        for module in modules:
            if hasattr(type(module), "generate"):
                follow(module)
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

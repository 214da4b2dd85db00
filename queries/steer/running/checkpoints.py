"""Gradient checkpointing: blocks that run a second time in the backward pass, then steered as they were the first time.

The model's own checkpointing function is wrapped while it is steered. What it ran in a pass remembers that pass; run
again, perhaps after the `with` block, it gets that pass back and, where they are gone, the hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from queries.steer.running.positions import Attached, Pass, Passes

_NAME = "_gradient_checkpointing_func"


class Checkpoints(Attached):
    """The checkpointed modules of a model that is steered."""

    def __init__(self, modules: list[Any], passes: Passes, attach: Callable[[], list[Any]]) -> None:
        """modules: those that may checkpoint; attach: registers the steering hooks, returns their handles."""
        self._modules = modules
        self._passes = passes
        self._attach = attach
        self._wrapped: dict[Any, tuple[Any, Any]] = {}  # module -> its function, and ours
        self._closed = False

    def follow(self, module: Any, _arguments: Any) -> None:
        """Pre-hook of the model: checkpointing may be switched on at any time."""
        if not module.training:
            return
        for each in self._modules:
            present = vars(each).get(_NAME)
            if present is not None and self._wrapped.get(each, (None, None))[1] is not present:
                ours = self._remembering(present)
                self._wrapped[each] = present, ours
                setattr(each, _NAME, ours)

    def close(self) -> None:
        """Give the modules their functions back; what runs again from now on brings its hooks along."""
        for module, (own, ours) in self._wrapped.items():
            if vars(module).get(_NAME) is ours:
                setattr(module, _NAME, own)
        self._closed = True

    def _remembering(self, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(checkpoint)
        def checkpointed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            current = self._passes.current
            if current is None or self._passes.foreign:
                return checkpoint(function, *args, **kwargs)
            ran = False

            def run(*inner: Any, **options: Any) -> Any:
                nonlocal ran
                if not ran:
                    ran = True
                    return function(*inner, **options)
                return self._again(current, lambda: function(*inner, **options))

            return checkpoint(run, *args, **kwargs)

        return checkpointed

    def _again(self, current: Pass, run: Callable[[], Any]) -> Any:
        handles = self._attach() if self._closed else []
        try:
            with self._passes.replayed(current):
                return run()
        finally:
            for handle in handles:
                handle.remove()

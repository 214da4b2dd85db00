"""See what passes through hook points during forward passes, without changing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hooked.hookpoints import HookPoint

if TYPE_CHECKING:
    import torch


@contextmanager
def captured(points: Mapping[str, HookPoint]) -> Iterator[dict[str, torch.Tensor]]:
    """The hidden states `[batch, positions, width]` of the last pass made inside, by the names given to the points.

    The tensors are the model's own, not copies. The hooks are gone afterwards, also after an exception.
    """
    seen: dict[str, torch.Tensor] = {}
    handles = []
    try:
        for name, point in points.items():
            if point.side == "input":
                handles.append(point.module.register_forward_pre_hook(_before(seen, name), with_kwargs=True))
            else:
                handles.append(point.module.register_forward_hook(_after(seen, name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _before(seen: dict[str, torch.Tensor], name: str) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen[name] = arguments[0] if arguments else keywords["hidden_states"]

    return hook


def _after(seen: dict[str, torch.Tensor], name: str) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, _arguments: Any, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output

    return hook

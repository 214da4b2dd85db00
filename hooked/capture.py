"""See what passes through hook points during forward passes, without changing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hooked.hookpoints import HookPoint

if TYPE_CHECKING:
    import torch

    from hooked.hookpoints import OnHidden

K = TypeVar("K")


@contextmanager
def captured(points: Mapping[K, HookPoint]) -> Iterator[dict[K, torch.Tensor]]:
    """The hidden states `[batch, positions, width]` of the last pass made inside, by the keys given to the points.

    The tensors are the model's own, not copies. The hooks are gone afterwards, also after an exception.

    Example:
        dictionary, _ = atlas.locate("smollm2-135m-instruct/9-res-2k/2018")
        with captured({"stream": write_point(model, dictionary)}) as seen:
            model(**tokenizer("I think ", return_tensors="pt"))
        print(seen["stream"].shape)
    """
    seen: dict[K, torch.Tensor] = {}
    handles = []
    try:
        # Within the try: a point that cannot be hooked must not leave the earlier hooks behind.
        for name, point in points.items():
            handles.append(point.register(_keeping(seen, name)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Enough(Exception):
    """Ends a forward pass whose rest is not needed."""


def run_until(model: Any, block: Any, **inputs: Any) -> None:
    """A forward pass that ends after `block`: what later blocks would do is not computed."""

    def stop(_module: Any, _arguments: Any, _output: Any) -> None:
        raise _Enough

    # Hooks run in the order in which they were put there: those that watch this block see its output first.
    handle = block.register_forward_hook(stop)
    try:
        model(**inputs)
    except _Enough:
        pass
    finally:
        handle.remove()


def _keeping(seen: dict[K, torch.Tensor], name: K) -> OnHidden:
    def keep(hidden: torch.Tensor, _module_input: torch.Tensor | None) -> None:
        seen[name] = hidden

    return keep

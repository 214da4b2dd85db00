"""Apply a plan to a Hugging Face model: `with steered(model, plan): …`. Hooks are gone afterwards, whatever happens.

1. Resolve every intervention to a module of this model.
2. Follow the model's passes, so that positions count from the sequence's start and padding is known.
3. At each module, add the change that the edit there computes.
4. At the end, see that every hook fired.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas.errors import HookNotFired, ModelError
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    from hooked.hookpoints import HookPoint
    from queries.steer.positions import Passes
    from queries.steer.steered_module import SteeredModule


@dataclass(frozen=True)
class Record:
    """What steering did; complete when the `with` block has ended."""

    modules: tuple[SteeredModule, ...]
    passes: Passes

    @property
    def hooks(self) -> list[dict[str, Any]]:
        """`{"module", "calls", "positions"}` of every steered module, in the order of the forward pass."""
        return [{"module": each.point.name, "calls": each.calls, "positions": each.positions} for each in self.modules]

    def check(self) -> None:
        """Raises HookNotFired where the model ran and a hook did not; warns where the model did not run."""
        if not self.passes.seen:
            warnings.warn("the model was not called inside steered(): nothing was steered", stacklevel=4)
            return
        silent = [each.point.name for each in self.modules if not each.calls]
        if silent:
            fired = ", ".join(each.point.name for each in self.modules if each.calls) or "none"
            raise HookNotFired(
                f"nothing was steered at {', '.join(silent)}: it ran {self.passes.seen} times without calling it "
                f"(hooks that fired: {fired}); is it the model whose dictionary this is?"
            )


@contextmanager
def steered(model: Any, plan: SteeringPlan, *, prompt_length: int | None = None) -> Iterator[Record]:
    """Steer every call of `model` inside the block; nesting adds up, inner plans see what outer ones did.

    Args:
        model: a Hugging Face causal language model, on any device, in any dtype, also wrapped or with a device map.
        prompt_length: columns of the prompt, padding included, for plans that tell prompt from generated positions;
            None: the first pass of a sequence is its prompt (see queries.steer.positions).
    Raises ModelError where a module is not found, HookNotFired at the end where a hook never ran.

    Example:
        with steered(model, plan) as record:
            model.generate(**tokenizer("I think ", return_tensors="pt"), max_new_tokens=8)
        print(record.hooks)
    """
    from hooked.capture import captured
    from hooked.hookpoints import blocks_path
    from queries.steer.positions import Passes

    modules, sources = _modules(model, plan)
    passes = Passes(split=any(each.split for each in modules), prompt_length=prompt_length)
    record = Record(tuple(modules), passes)
    handles: list[Any] = []
    with captured({(source.name, source.side): source for source in sources}) as read:
        try:
            for holder in _holders(model, blocks_path(model)):
                handles.append(holder.register_forward_pre_hook(passes.enter, with_kwargs=True))
                handles.append(holder.register_forward_hook(passes.leave, always_call=True))
            for each in modules:
                handles.append(each.attach(passes, read))
            yield record
            record.check()
        finally:
            for handle in handles:
                handle.remove()


def _holders(model: Any, blocks: str) -> list[Any]:
    """The model and those of its modules that lead to the blocks: whichever is called, the pass is followed."""
    names = blocks.split(".")
    return [model.get_submodule(".".join(names[:depth])) for depth in range(len(names))]


def _modules(model: Any, plan: SteeringPlan) -> tuple[list[SteeredModule], list[HookPoint]]:
    """The modules to steer with their edits, and the places elsewhere that encoders read."""
    from hooked.hookpoints import read_point, write_point
    from queries.steer.edits import make_edit
    from queries.steer.steered_module import SteeredModule

    _check_width(model, plan)
    grouped: dict[tuple[str, str], tuple[HookPoint, list[Any]]] = {}
    sources: dict[tuple[str, str], HookPoint] = {}
    for each in plan.interventions:
        point = write_point(model, each.dictionary)
        grouped.setdefault((point.name, point.side), (point, []))[1].append(each)
        if each.rows is not None:
            source = read_point(model, each.dictionary)
            if (source.name, source.side) != (point.name, point.side):
                sources[source.name, source.side] = source
    modules = []
    for point, group in grouped.values():
        eps = getattr(point.module, "eps", getattr(point.module, "variance_epsilon", 0.0))
        edits = [
            make_edit(
                [each for each in group if each.positions in ("all", phase)],
                lambda each: read_point(model, each.dictionary),
                float(eps),
            )
            for phase in ("prompt", "generated")
        ]
        split = any(each.positions != "all" for each in group)
        modules.append(SteeredModule(point, edits[0], edits[1] if split else edits[0], split))
    return modules, list(sources.values())


def _check_width(model: Any, plan: SteeringPlan) -> None:
    """Raises ModelError where the plan's directions do not fit the model's residual stream."""
    config = getattr(model, "config", None)
    width = getattr(config.get_text_config(), "hidden_size", None) if config is not None else None
    wanted = plan.interventions[0].dictionary.d_model
    if width is not None and width != wanted:
        raise ModelError(
            f"the plan is for {plan.model_name} (d_model {wanted}); this model's residual stream has width {width}"
        )

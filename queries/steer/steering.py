"""Apply a plan to a Hugging Face model: `with steered(model, plan): …`. Hooks are gone afterwards, whatever happens.

1. Resolve every intervention to a module of this model.
2. Follow the model's passes, so that positions count from the sequence's start and padding is known.
3. At each module, add the change that the edit there computes.
4. At the end, see that every hook fired.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from atlas.errors import HookNotFired, ModelError
from queries.steer.intervention import SUPPRESS, Intervention
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    import torch

    from hooked.hookpoints import HookPoint
    from queries.steer.running.positions import Pass, Passes
    from queries.steer.running.steered_module import SteeredModule


class NothingSteered(UserWarning):
    """A plan, or a part of it, that changed nothing."""


@dataclass(frozen=True)
class Record:
    """What steering did; complete when the `with` block has ended."""

    plan: SteeringPlan
    modules: tuple[SteeredModule, ...]
    passes: Passes

    @property
    def hooks(self) -> list[dict[str, Any]]:
        """`{"module", "calls", "positions"}` of every steered module, in the order of the forward pass."""
        return [{"module": each.point.name, "calls": each.calls, "positions": each.positions} for each in self.modules]

    @property
    def added(self) -> list[float | None]:
        """Of every steered module the length of what was added to a position (its median); None where none was."""
        return [each.added for each in self.modules]

    @property
    def detailed(self) -> list[dict[str, Any]]:
        """`hooks`, and where features are suppressed or clamped `"features": [{"feature", "active", "largest"}]`.

        That is at how many of these positions each was active of itself, and its largest activation there.
        """
        return [
            hook | ({"features": each.features} if each.activity else {})
            for hook, each in zip(self.hooks, self.modules, strict=True)
        ]

    def check(self) -> None:
        """Raises HookNotFired where the model ran and a hook did not, and what was raised in a thread of the model's.

        Warns where nothing was steered.
        """
        if self.passes.refusal is not None:
            raise self.passes.refusal
        if not self.passes.seen:
            warnings.warn(
                "the model was not called inside steered(): nothing was steered", NothingSteered, stacklevel=4
            )
            return
        silent = [each.point.name for each in self.modules if not each.calls]
        if silent:
            fired = ", ".join(each.point.name for each in self.modules if each.calls) or "none"
            raise HookNotFired(
                f"nothing was steered at {', '.join(silent)}: it ran {self.passes.seen} times without calling it "
                f"(hooks that fired: {fired}); is it the model whose dictionary this is?"
            )
        for line in without_effect(self.plan, self.detailed):
            warnings.warn(line, NothingSteered, stacklevel=4)

    def check_finite(self, ended: Pass, output: Any) -> None:
        """Called with each pass; raises ModelError that names the strength where it left no finite state or logits."""
        name = next((name for name, size in ended.sizes if not math.isfinite(float(size))), None)
        if name is None and _finite(output, ended.real):
            return
        where = "the logits" if name is None else f"the hidden states at {name}"
        strongest = max(self.plan.interventions, key=_force)
        strength = f"strength {strongest.strength} of " if strongest.strength is not None else f"{strongest.mode} of "
        raise self.passes.refused(
            f"{where} are not finite with {strength}{strongest.feature}: give a smaller strength, or see whether the "
            "model is sound without steering"
        )


def without_effect(plan: SteeringPlan, hooks: list[dict[str, Any]]) -> list[str]:
    """What of a plan changed nothing, a line each: modules steered at no position, features that were never active."""
    lines = [f"{hook['module']} was steered at 0 positions" for hook in hooks if not hook["positions"]]
    suppressed = {each.feature for each in plan.interventions if each.mode == SUPPRESS}
    return lines + [
        f"{each['feature']} was active at none of {hook['positions']} positions: there was nothing to suppress"
        for hook in hooks
        for each in hook.get("features", ())
        if hook["positions"] and not each["active"] and each["feature"] in suppressed
    ]


def _force(intervention: Intervention) -> float:
    return 0.0 if intervention.strength is None else abs(intervention.strength.value)


def _finite(output: Any, real: torch.Tensor | None) -> bool:
    """Whether the last position's logits are no NaN and not infinite upwards; tokens may be ruled out by −infinity."""
    import torch

    values = getattr(output, "logits", None)
    if values is None:
        values = output[0] if isinstance(output, tuple | Mapping) and output else output
    if not isinstance(values, torch.Tensor) or values.ndim != 3 or not values.numel():
        return True
    last = values.detach()[:, -1]
    if real is not None:
        last = last[real[:, -1].to(last.device)]
    return bool((last < math.inf).all())


@contextmanager
def steered(
    model: Any,
    plan: SteeringPlan,
    *,
    prompt_length: int | None = None,
    turns: list[int] | None = None,
    thread: int | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[Record]:
    """Steer every call of `model` inside the block, from any thread; nesting adds up, inner plans see what outer did.

    Args:
        model: a Hugging Face causal language model, on any device, in any dtype, also wrapped or with a device map.
        prompt_length: columns of the prompt, padding included, for plans that tell prompt from generated positions;
            None: the input of `model.generate`, or the first pass of a sequence (see queries.steer.running.sequences).
        turns: for plans at positions `turn`, with `prompt_length`: of each prompt, padded on the left, its positions
            from the start of its last turn.
        thread: steer calls from the thread of this identity alone.
        rows: steer these rows of each batch alone, from 0; plans for other rows nest outside or inside.
    Raises ModelError where a module is not found or what was steered is not finite, HookNotFired at the end where a
    hook never ran. Compiled models run eagerly inside the block.

    Example:
        with steered(model, plan) as record:
            model.generate(**tokenizer("I think ", return_tensors="pt"), max_new_tokens=8)
        print(record.hooks)
    """
    import torch

    from hooked.hookpoints import blocks_path
    from queries.steer.running.calls import eager, followed
    from queries.steer.running.checkpoints import Checkpoints
    from queries.steer.running.positions import Passes

    # Whatever the default device and autocast are: hooks move what they need, and measure in float32.
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):
        modules, sources = _modules(model, plan)
    split = any(each.split for each in modules)
    passes = Passes(split=split, prompt_length=prompt_length, turns=turns, thread=thread, rows=rows)
    record = Record(plan, tuple(modules), passes)
    passes.on_end = record.check_finite
    blocks = blocks_path(model)
    holders = _holders(model, blocks)

    def attach() -> list[Any]:
        places = [source.register(partial(passes.keep, (source.name, source.side))) for source in sources]
        return places + [each.attach(passes) for each in modules]

    checkpoints = Checkpoints([*holders, *model.get_submodule(blocks).children()], passes, attach)
    with ExitStack() as stack:
        for holder in holders:
            entered = holder.register_forward_pre_hook(passes.enter, with_kwargs=True)
            stack.callback(entered.remove)
            stack.callback(holder.register_forward_hook(passes.leave, always_call=True).remove)
            stack.callback(holder.register_forward_pre_hook(checkpoints.follow).remove)
        for handle in attach():
            stack.callback(handle.remove)
        stack.callback(checkpoints.close)
        if passes.split:
            stack.enter_context(followed(holders, passes))
        stack.enter_context(eager())
        yield record
        record.check()


def _holders(model: Any, blocks: str) -> list[Any]:
    """The model and those of its modules that lead to the blocks: whichever is called, the pass is followed."""
    names = blocks.split(".")
    return [model.get_submodule(".".join(names[:depth])) for depth in range(len(names))]


def _modules(model: Any, plan: SteeringPlan) -> tuple[list[SteeredModule], list[HookPoint]]:
    """The modules to steer with their edits, and the places elsewhere that encoders read."""
    from hooked.hookpoints import read_point, write_point
    from queries.steer.edits import make_edit
    from queries.steer.running.steered_module import SteeredModule

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
        kinds = {each.positions for each in group}
        prompt, turn, generated = (
            make_edit(
                [each for each in group if each.positions in ("all", *phases)],
                lambda each: read_point(model, each.dictionary),
                float(eps),
            )
            for phases in (("prompt",), ("prompt", "turn"), ("generated",))
        )
        split = kinds != {"all"}
        modules.append(
            SteeredModule(point, prompt, turn if "turn" in kinds else prompt, generated if split else prompt, split)
        )
    return modules, list(sources.values())


def _check_width(model: Any, plan: SteeringPlan) -> None:
    """Raises ModelError where the plan's directions do not fit the model's residual stream."""
    from hooked.hookpoints import model_family

    model_family(model)
    config = model.config
    width = getattr(config.get_text_config(), "hidden_size", None)
    wanted = plan.interventions[0].dictionary.d_model
    if width is not None and width != wanted:
        raise ModelError(
            f"the plan is for {plan.model_name} (d_model {wanted}); this model's residual stream has width {width}"
        )

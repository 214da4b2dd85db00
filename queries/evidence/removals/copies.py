"""Many interventions at one token in one forward pass.

The pass reads the tokens up to that one, and behind them one copy of it for each intervention. A copy has the token's
position and attends to what the token attends to and to itself, so that without a change it computes what the token
computes; each is changed in its own way, and none sees another. Nothing is replaced by a reconstruction: a vector is
added to the hidden state where a dictionary writes, and what follows is the model's own.

A change at the token before takes two copies, of that token and of this one, which attends to the first.

Blocks before the first change compute the same with and without it: they are passed over, and the stream that entered
the next one in a plain pass (`Context`) takes their place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from atlas.errors import ModelError
from atlas.folder.dictionary import Dictionary
from hooked.capture import captured, run_until
from hooked.hook_names import place_of, writes_at
from hooked.hookpoints import HookPoint, blocks_path, read_point, write_point
from queries.evidence.removals.layout import Change, Layout

if TYPE_CHECKING:
    from hooked.hookpoints import OnHidden

MOST = 512  # copies in one pass: beyond, their attention costs more than the tokens before them


@dataclass(frozen=True)
class Context:
    """Tokens of a context, and the stream that enters some blocks in a plain pass over them."""

    tokens: tuple[int, ...]
    streams: Mapping[int, torch.Tensor]  # by block [n_tokens, d_model]
    outputs: Mapping[int, type]  # by block, of the blocks before: what they return, tuple or Tensor

    @classmethod
    def read(cls, model: Any, tokens: Sequence[int], blocks: Collection[int]) -> Context:
        """Run the model over the tokens once, keeping what enters these blocks; raises ModelError."""
        _check_window(model, len(tokens))
        path = blocks_path(model)
        found = {n: model.get_submodule(f"{path}.{n}") for n in range(max(blocks) + 1)}
        outputs: dict[int, type] = {}
        handles = [
            block.register_forward_hook(lambda _m, _a, output, n=n: outputs.__setitem__(n, type(output)))
            for n, block in found.items()
        ]
        points = {n: HookPoint(f"{path}.{n}", "input", found[n]) for n in blocks}
        try:
            with torch.inference_mode(), captured(points) as seen:
                ids = torch.tensor([tokens], device=model.device)
                run_until(model, found[max(blocks)], input_ids=ids, use_cache=False)
                return cls(tuple(tokens), {n: hidden[0] for n, hidden in seen.items()}, outputs)
        finally:
            for handle in handles:
                handle.remove()


def first_block(record: Dictionary) -> int:
    """Number of the first block that a change where this dictionary writes goes through."""
    place = writes_at(record.hook_name)
    return place.layer + (place.attribute == "" and place.side == "output")


def run_changed(
    model: Any,
    context: Context,
    last: int,
    changes: Sequence[Change],
    written: Mapping[str, Dictionary],
    read: Mapping[str, Dictionary],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What encoders read at one token, without any change and with each.

    Args:
        context: which holds the stream that enters the first block that a change goes through.
        last: place of the token in the context.
        changes: interventions, each in a pass of its own as it were.
        written: records of the dictionaries that changes name.
        read: records of the dictionaries whose encoders' inputs are wanted.

    Returns:
        Two mappings by id of `read`: the input without a change `[d_in]`, and with each change `[n_changes, d_in]`.
    """
    plain: dict[str, torch.Tensor] = {}
    changed: dict[str, list[torch.Tensor]] = {id_: [] for id_ in read}
    for first in range(0, max(1, len(changes)), MOST):
        part = changes[first : first + MOST]
        layout = Layout.of(context.tokens[: last + 1], part)
        seen = _pass(model, context, layout, part, written, read)
        for id_, hidden in seen.items():
            plain.setdefault(id_, hidden[layout.unchanged])
            changed[id_].append(hidden[layout.places])
    return plain, {id_: torch.cat(parts) for id_, parts in changed.items()}


def losses(
    model: Any,
    context: Context,
    last: int,
    following: int,
    changes: Sequence[Change],
    written: Mapping[str, Dictionary],
) -> tuple[float, list[float]]:
    """Loss of the token that follows, in nats, without any change at the token and with each; as `run_changed`."""
    plain, found = 0.0, []
    for first in range(0, len(changes), MOST):
        part = changes[first : first + MOST]
        layout = Layout.of(context.tokens[: last + 1], part)
        with _changed(model, context, layout, part, written) as inputs:
            # Copies stand last; only their logits are made.
            logits = model(**inputs, logits_to_keep=len(layout.ids) - last - 1).logits[0].float()
        loss = -logits.log_softmax(dim=-1)[:, following].cpu()
        plain = float(loss[0])
        found += [float(loss[place - last - 1]) for place in layout.places]
    return plain, found


def _pass(
    model: Any,
    context: Context,
    layout: Layout,
    changes: Sequence[Change],
    written: Mapping[str, Dictionary],
    read: Mapping[str, Dictionary],
) -> dict[str, torch.Tensor]:
    """What each encoder reads, `[n, d_in]`, at every token and copy."""
    last = max(*(place_of(d.hook_name_in).layer for d in read.values()), *map(first_block, written.values()))
    end = model.get_submodule(f"{blocks_path(model)}.{last}")
    # Within: an encoder that reads where a change is made sees it.
    with _changed(model, context, layout, changes, written) as inputs:
        with captured({id_: read_point(model, d) for id_, d in read.items()}) as seen:
            run_until(model, end, **inputs)
        return {id_: hidden[0] for id_, hidden in seen.items()}


@contextmanager
def _changed(
    model: Any, context: Context, layout: Layout, changes: Sequence[Change], written: Mapping[str, Dictionary]
) -> Iterator[dict[str, Any]]:
    """The model with hooks that change the copies, and without the blocks before; gives what to call it with."""
    dtype, device, path = model.dtype, model.device, blocks_path(model)
    mask = torch.zeros(layout.visible.shape, dtype=dtype).masked_fill(~layout.visible, torch.finfo(dtype).min)
    first = min(map(first_block, written.values()))
    entry = HookPoint(f"{path}.{first}", "input", model.get_submodule(f"{path}.{first}"))
    stream = context.streams[first][layout.positions][None]
    handles = []
    try:
        # First, so that changes at the same place are made to it.
        handles.append(entry.register(lambda _hidden, _module_input: stream))
        for id_ in {change.dictionary for change in changes}:
            rows = [(place, c) for place, c in zip(layout.edited, changes, strict=True) if c.dictionary == id_]
            where = torch.tensor([place for place, _ in rows], device=device)
            vectors = torch.stack([change.vector for _, change in rows]).to(device, dtype)
            point = _at_entry(write_point(model, written[id_]), entry, path, first)
            handles.append(point.register(_adding(where, vectors)))
        with torch.inference_mode(), _passed_over(model, path, {n: context.outputs[n] for n in range(first)}):
            yield {
                "input_ids": layout.ids[None].to(device),
                "position_ids": layout.positions[None].to(device),
                "attention_mask": mask[None, None].to(device),
                "use_cache": False,
            }
    finally:
        for handle in handles:
            handle.remove()


def _at_entry(point: HookPoint, entry: HookPoint, path: str, first: int) -> HookPoint:
    """The point itself; where it is the output of the last block passed over, the next block's input."""
    return entry if (point.name, point.side) == (f"{path}.{first - 1}", "output") else point


@contextmanager
def _passed_over(model: Any, path: str, outputs: Mapping[int, type]) -> Iterator[None]:
    """These blocks give back what they are given."""
    blocks = [model.get_submodule(f"{path}.{n}") for n in outputs]
    try:
        for block, output in zip(blocks, outputs.values(), strict=True):
            block.forward = _as_is_in_a_tuple if issubclass(output, tuple) else _as_is
        yield
    finally:
        for block in blocks:
            # What an instance has of its own hides the class's.
            vars(block).pop("forward", None)


def _as_is(hidden_states: torch.Tensor, *_others: Any, **_named: Any) -> torch.Tensor:
    return hidden_states


def _as_is_in_a_tuple(hidden_states: torch.Tensor, *_others: Any, **_named: Any) -> tuple[torch.Tensor]:
    return (hidden_states,)


def _check_window(model: Any, length: int) -> None:
    """Raise ModelError where attention reaches less far back than the context: a copy's would not be cut."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True) and length > window:
        raise ModelError(
            f"attention of this model reaches {window} tokens back, less than a context of {length}: removals cannot "
            "be tried on it"
        )


def _adding(where: torch.Tensor, vectors: torch.Tensor) -> OnHidden:
    def add(hidden: torch.Tensor, _module_input: torch.Tensor | None) -> torch.Tensor:
        # One place has one change at most, so that none overwrites another.
        return hidden.index_add(1, where, vectors[None])

    return add

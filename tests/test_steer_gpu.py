"""Steering on a GPU against the same model hooked by hand there; left out where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import planted_steering as planted
import pytest
import tiny_models as tiny
import torch
from planted_steering import hooks_left, plan_of, tokens

from queries.steer.plan import SteeringPlan
from queries.steer.steering import steered

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
DICTIONARY = planted.planted_dictionary("blocks.1.hook_resid_post")
DIRECTION = torch.from_numpy(DICTIONARY[1].decoder[7])


def plan(mode: str) -> SteeringPlan:
    return plan_of(planted.intervention(DICTIONARY, 7, mode, {"add": 4.0, "suppress": -1.0, "clamp": 3.0}.get(mode)))


@contextmanager
def by_hand(model: Any, mode: str) -> Iterator[None]:
    """The same edit written down again, in float32: h + 4d, h − (h·d)d, h + (−1 − 1)·a·norm·d, h + (3 − a)·norm·d."""
    rows = DICTIONARY[1]
    weight, norm = torch.from_numpy(rows.encoder[7]), float(rows.vectors["norms"][7])
    bias, shift = float(rows.vectors["b_enc"][7]), torch.from_numpy(rows.vectors["b_dec"])

    def edit(_module: Any, _args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        wide, unit = states.float(), DIRECTION.to(states.device)
        before = (wide - shift.to(states.device)) @ weight.to(states.device) + bias
        active = before.relu() * (before > float(rows.vectors["threshold"][7]))
        amount = {"add": torch.full_like(active, 4), "ablate": -(wide @ unit), "suppress": -2 * active * norm}
        change = amount.get(mode, (3 - active) * norm)[..., None] * unit
        changed = (wide + change).to(states.dtype) if mode != "add" else states + change.to(states.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    block = next(module for name, module in model.named_modules() if name.endswith(("layers.1", "h.1")))
    handle = block.register_forward_hook(edit)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["add", "suppress", "clamp", "ablate"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_hooks_by_hand(family: str, mode: str, dtype: torch.dtype) -> None:
    model = tiny.tiny_model(family, dtype=dtype).to("cuda")
    ids, mask = tokens(3).to("cuda"), torch.ones(3, 7, dtype=torch.int64).to("cuda")
    mask[0, :2] = 0
    with torch.no_grad():
        with by_hand(model, mode):
            expected = model(input_ids=ids, attention_mask=mask).logits
        with steered(model, plan(mode)) as record:
            found = model(input_ids=ids, attention_mask=mask).logits
    assert record.hooks[0]["positions"] == 19  # 3 · 7 without two of padding
    where = mask.bool()
    limit = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found[where], expected[where], rtol=limit, atol=limit)
    assert hooks_left(model) == 0


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("mode", ["add", "suppress"])
def test_generates_what_hooks_by_hand_do(mode: str, cache: str | None) -> None:
    model = tiny.tiny_model("llama").to("cuda")
    model.generation_config.eos_token_id = None
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "pad_token_id": 0}
    options |= {"cache_implementation": cache} if cache else {}
    ids = tokens(2).to("cuda")
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with by_hand(model, mode):
        expected = model.generate(**given, **options).tolist()
    with steered(model, plan(mode)):
        found = model.generate(**given, **options).tolist()
    assert found == expected != model.generate(**given, **options).tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["add", "suppress"])
def test_compiled_models_are_steered(mode: str) -> None:
    model, ids = tiny.tiny_model("llama").to("cuda"), tokens(2).to("cuda")
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with by_hand(model, mode):
            expected = model(input_ids=ids).logits
        compiled: Any = torch.compile(model)
        torch.testing.assert_close(compiled(input_ids=ids).logits, plain, rtol=1e-3, atol=1e-3)
        with steered(model, plan(mode)):
            torch.testing.assert_close(compiled(input_ids=ids).logits, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(compiled(input_ids=ids).logits, plain, rtol=1e-3, atol=1e-3)

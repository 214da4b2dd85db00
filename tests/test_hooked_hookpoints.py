"""Places of dictionaries on actual models, checked by what passes there in the models' own forward."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch

from atlas.errors import ModelError
from hooked.capture import captured
from hooked.hook_names import place_of
from hooked.hookpoints import HookPoint, model_family, resolve


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_passes_at_each_hook_adds_up(family: str) -> None:
    """resid_post = resid_pre + attn_out + mlp_out: true in every family, for the right modules only."""
    model = tiny.tiny_model(family)
    seen: dict[str, torch.Tensor] = {}
    handles = []
    hooks = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"]
    hooks += [] if model_family(model).mid is None else ["hook_resid_mid"]
    for hook in hooks:
        point = resolve(model, place_of(f"blocks.2.{hook}"))

        def keep(module: Any, args: Any, output: Any, hook: str = hook, side: str = point.side) -> None:
            output = output[0] if isinstance(output, tuple) else output
            seen[hook] = args[0] if side == "input" else output

        handles.append(point.module.register_forward_hook(keep))
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 9, 11, 30]]))
    for handle in handles:
        handle.remove()
    if "hook_resid_mid" in seen:
        torch.testing.assert_close(seen["hook_resid_mid"], seen["hook_resid_pre"] + seen["hook_attn_out"])
    total = seen["hook_resid_pre"] + seen["hook_attn_out"] + seen["hook_mlp_out"]
    torch.testing.assert_close(seen["hook_resid_post"], total, atol=1e-5, rtol=1e-5)


def test_the_metadatas_own_module_comes_first() -> None:
    model = tiny.tiny_model("gemma3_text")
    place = place_of("blocks.2.hook_mlp_out")
    for name, expected, side in (
        ("model.layers.2.mlp", "model.layers.2.mlp", "output"),
        ("model.layers.2.mlp.input", "model.layers.2.mlp", "input"),
        ("model.layers.2.post_feedforward_layernorm.output", "model.layers.2.post_feedforward_layernorm", "output"),
        ("model.layers.2.gone", "model.layers.2.post_feedforward_layernorm", "output"),  # not there: by family
        (None, "model.layers.2.post_feedforward_layernorm", "output"),
    ):
        point = resolve(model, place, name)
        assert (point.name, point.side) == (expected, side)


def test_multimodal_models_keep_their_language_model_deeper() -> None:
    model = tiny.tiny_multimodal()
    for name in (None, "model.layers.2.output"):
        assert resolve(model, place_of("blocks.2.hook_resid_post"), name).name == "model.language_model.layers.2"


def test_base_models_without_a_head_are_resolved() -> None:
    assert resolve(tiny.tiny_model("llama").model, place_of("blocks.2.hook_mlp_out")).name == "layers.2.mlp"


def test_a_parallel_block_has_no_stream_between() -> None:
    with pytest.raises(ModelError, match=r"gpt_neox have no hook_resid_mid.*parallel"):
        resolve(tiny.tiny_model("gpt_neox"), place_of("blocks.2.hook_resid_mid"))


def test_errors_name_what_the_model_has() -> None:
    model = tiny.tiny_model("llama")
    with pytest.raises(ModelError, match="layer 7, but the model has layers 0 to 3"):
        resolve(model, place_of("blocks.7.hook_mlp_out"))
    model.config.model_type = "mamba"
    with pytest.raises(ModelError, match="'mamba' are not known; known: gemma"):
        resolve(model, place_of("blocks.1.hook_mlp_out"))
    with pytest.raises(ModelError, match="not a Hugging Face model"):
        resolve(torch.nn.Linear(2, 2), place_of("blocks.1.hook_mlp_out"))


class _Block(torch.nn.Module):
    """Doubles what it is given; with a second result, as attention has, where it is asked for one."""

    def forward(self, hidden_states: torch.Tensor, several: bool = False) -> Any:
        return (2 * hidden_states, "weights") if several else 2 * hidden_states


@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_hook_sees_and_changes_the_hidden_states_however_they_are_passed(
    side: str, several: bool, keyword: bool
) -> None:
    block, ones = _Block(), torch.ones(1, 2, 3)
    point = HookPoint("block", side, block)
    seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def passed() -> torch.Tensor:
        output = block(hidden_states=ones, several=several) if keyword else block(ones, several)
        assert isinstance(output, tuple) == several
        return torch.as_tensor(output[0] if several else output)

    def add(hidden: torch.Tensor, module_input: torch.Tensor | None) -> torch.Tensor:
        seen.append((hidden, module_input))
        return hidden + 3

    handle = point.register(add)
    assert torch.equal(passed(), torch.full((1, 2, 3), 8.0 if side == "input" else 5.0))  # 2·(1 + 3), 2·1 + 3
    handle.remove()
    ((hidden, module_input),) = seen
    assert torch.equal(hidden, ones if side == "input" else 2 * ones)
    assert module_input is (None if side == "input" or keyword else ones)
    # A function that returns nothing leaves them as they are, to the very tensor.
    with captured({"here": point}) as kept:
        result = passed()
    assert torch.equal(result, 2 * ones) and torch.equal(kept["here"], ones if side == "input" else 2 * ones)
    assert kept["here"] is (ones if side == "input" else result)
    assert torch.equal(passed(), 2 * ones) and len(seen) == 1

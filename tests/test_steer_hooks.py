"""Where steering hooks a model, that it leaves no hook there, and what it says where it cannot."""

from __future__ import annotations

from typing import Any

import planted_steering as planted
import pytest
import tiny_models as tiny
import torch
from planted_steering import hooks_left, plan_of, tokens

from atlas.errors import HookNotFired, ModelError
from queries.steer.steering import steered


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny.tiny_model("llama")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_hook_is_left_and_the_error_is_the_users(llama: Any, error: type[BaseException]) -> None:
    each = planted.intervention(
        planted.planted_dictionary("blocks.1.attn.hook_z", d_in=48, mapped="o_proj"), 1, "clamp", 1
    )
    with pytest.raises(error, match="mine"), steered(llama, plan_of(each)):
        assert hooks_left(llama) > 0
        llama(input_ids=tokens())
        raise error("mine")
    assert hooks_left(llama) == 0


def test_an_interrupt_in_the_middle_of_a_pass_leaves_the_next_pass_right(llama: Any) -> None:
    each = planted.intervention(planted.planted_dictionary("blocks.1.hook_resid_post"), 1, "add", 1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with torch.no_grad(), steered(llama, plan_of(each)) as record:
        handle = llama.model.layers[2].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            llama(input_ids=tokens(length=4))
        handle.remove()
        llama(input_ids=tokens(length=6))
    assert record.hooks == [{"module": "model.layers.1", "calls": 2, "positions": 10}]
    assert hooks_left(llama) == 0


def test_a_hook_that_never_fires_is_an_error(llama: Any) -> None:
    each = planted.intervention(planted.planted_dictionary("blocks.1.hook_resid_post"), 1, "add", 1)
    other = tiny.tiny_model("llama")
    blocks = other.model.layers
    expected = pytest.raises(HookNotFired, match=r"nothing was steered at model\.layers\.1")
    with expected, torch.no_grad(), steered(other, plan_of(each)):
        other.model.layers = torch.nn.ModuleList([blocks[0], blocks[2]])  # the model no longer runs block 1
        other(input_ids=tokens(), use_cache=False)
    assert hooks_left(other) == 0
    with pytest.warns(UserWarning, match="not called"), steered(llama, plan_of(each)):
        pass


def test_errors_name_the_modules_that_there_are(llama: Any) -> None:
    deep = planted.intervention(planted.planted_dictionary("blocks.9.hook_resid_post"), 1, "add", 1)
    with pytest.raises(ModelError, match="layer 9, but the model has layers 0 to 3"), steered(llama, plan_of(deep)):
        pass
    wide = planted.intervention(planted.planted_dictionary("blocks.1.hook_resid_post", d_model=40), 1, "add", 1)
    with pytest.raises(ModelError, match=r"d_model 40.*width 32"), steered(llama, plan_of(wide)):
        pass
    with pytest.raises(ModelError, match="not a Hugging Face model"), steered("llama", plan_of(deep)):
        pass


def test_a_block_called_on_its_own_is_steered(llama: Any) -> None:
    dictionary = planted.planted_dictionary("blocks.1.hook_mlp_out")
    hidden = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), steered(llama, plan_of(planted.intervention(dictionary, 0, "add", 2))):
        steered_out = llama.model.layers[1].mlp(hidden)
        llama(input_ids=tokens())
    with torch.no_grad():
        torch.testing.assert_close(
            steered_out, llama.model.layers[1].mlp(hidden) + 2 * torch.from_numpy(dictionary[1].decoder[0])
        )
    part = planted.intervention(dictionary, 0, "add", 2, "prompt")
    with pytest.raises(ModelError, match="outside the model"), steered(llama, plan_of(part)):
        llama.model.layers[1].mlp(hidden)


def test_multimodal_and_wrapped_models_are_steered() -> None:
    each = planted.intervention(planted.planted_dictionary("blocks.1.hook_mlp_out"), 5, "add", 3)
    model = tiny.tiny_multimodal()
    with torch.no_grad(), steered(model, plan_of(each)) as record:
        model(input_ids=tokens(), attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1, 1]]))
    name = "model.language_model.layers.1.post_feedforward_layernorm"
    assert record.hooks == [{"module": name, "calls": 1, "positions": 6}]

    class Wrapper(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config = inner, inner.config

    wrapped = Wrapper(tiny.tiny_model("qwen3"))
    each = planted.intervention(
        planted.planted_dictionary("blocks.1.hook_mlp_out", hf_hook_name="model.layers.1.mlp.output"), 5, "add", 3
    )
    with torch.no_grad(), steered(wrapped, plan_of(each)) as record:
        wrapped.inner(input_ids=tokens())
    assert record.hooks == [{"module": "inner.model.layers.1.mlp", "calls": 1, "positions": 7}]

"""Generation: the same text with and without a cache, alone and in a batch, and steered as by hooks by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import planted_steering as planted
import pytest
import tiny_models as tiny
import torch
from transformers import AutoModelForCausalLM

from atlas.errors import ModelError
from queries.steer.generation import generate
from queries.steer.plan import SteeringPlan
from queries.steer.steering import steered

PROMPTS = ["w5 w9 w11 w30", "w40", "w7 w8 w21"]
BLOCK = {"gpt2": "transformer.h.1", "gpt_neox": "gpt_neox.layers.1"}


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.tiny_model(request.param)


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny.tiny_model("llama")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tiny_tokenizer()


def plan(positions: str = "all", mode: str = "add", strength: Any = 4) -> SteeringPlan:
    res = planted.planted_dictionary("blocks.1.hook_resid_post")
    mlp = planted.planted_dictionary("blocks.2.hook_mlp_out", seed=1)
    return SteeringPlan(
        (
            planted.intervention(res, 7, mode, strength, positions),
            planted.intervention(mlp, 3, mode, strength, positions),
        )
    )


def test_cache_batch_and_beams_do_not_change_the_text(model: Any, tokenizer: Any) -> None:
    _same_text(model, tokenizer, plan("all", "clamp", 3))


@pytest.mark.parametrize("positions", ["prompt", "generated"])
def test_prompt_and_generated_positions_do_not_depend_on_them_either(
    llama: Any, tokenizer: Any, positions: str
) -> None:
    _same_text(llama, tokenizer, plan(positions, "add", "60%"))


def _same_text(model: Any, tokenizer: Any, chosen: SteeringPlan) -> None:
    cached = generate(model, tokenizer, PROMPTS, chosen, max_new_tokens=6)
    uncached = generate(model, tokenizer, PROMPTS, chosen, max_new_tokens=6, use_cache=False)
    alone = [generate(model, tokenizer, [prompt], chosen, max_new_tokens=6)[0] for prompt in PROMPTS]
    assert [g.tokens for g in cached] == [g.tokens for g in uncached] == [g.tokens for g in alone]
    beams = [
        generate(model, tokenizer, PROMPTS, chosen, max_new_tokens=5, num_beams=2, use_cache=cache)
        for cache in (True, False)
    ]
    assert [g.tokens for g in beams[0]] == [g.tokens for g in beams[1]]


def test_tokens_equal_a_loop_with_a_hook_by_hand(model: Any, tokenizer: Any) -> None:
    dictionary = planted.planted_dictionary("blocks.1.hook_resid_post")
    vector = 4 * torch.from_numpy(dictionary[1].decoder[7])

    def add(module: Any, args: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    ids = torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])
    handle = tiny.module_of(model, BLOCK.get(model.config.model_type, "model.layers.1")).register_forward_hook(add)
    expected: list[int] = []
    with torch.no_grad():
        while len(expected) < 10 and expected[-1:] != [0]:
            expected.append(
                int(model(input_ids=torch.cat([ids, torch.tensor([expected])], 1).long()).logits[0, -1].argmax())
            )
    handle.remove()
    made = SteeringPlan((planted.intervention(dictionary, 7, "add", 4),))
    assert generate(model, tokenizer, [PROMPTS[0]], made, max_new_tokens=10)[0].tokens == expected


def test_hooks_are_counted_from_the_sequences_start(llama: Any, tokenizer: Any) -> None:
    # Prompts of 4, 1 and 3 tokens and 5 new ones: the first pass sees 8 real positions, 4 more passes see 3 each.
    llama.generation_config.eos_token_id = None
    expected = {"all": 8 + 4 * 3, "prompt": 8, "generated": 4 * 3}
    for positions, count in expected.items():
        (first, *_) = generate(llama, _endless(), PROMPTS, plan(positions), max_new_tokens=5)
        assert first.hooks == [
            {"module": "model.layers.1", "calls": 5, "positions": count},
            {"module": "model.layers.2.mlp", "calls": 5, "positions": count},
        ]
    # Without a cache every pass sees everything again: 8, 11, 14, 17, 20.
    (first, *_) = generate(llama, _endless(), PROMPTS, plan("all"), max_new_tokens=5, use_cache=False)
    assert first.hooks[0]["positions"] == 8 + 11 + 14 + 17 + 20
    llama.generation_config.eos_token_id = 0


def _endless() -> Any:
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


@pytest.mark.parametrize("mode", ["add", "suppress", "ablate"])
def test_a_device_map_with_weights_on_disk(llama: Any, tokenizer: Any, mode: str, tmp_path: Path) -> None:
    """Also the token embeddings and two steered blocks, whose weights are not there between calls."""
    strength = {"add": 4, "suppress": -1, "ablate": None}[mode]
    chosen = plan("all", mode, strength)
    expected = generate(llama, tokenizer, PROMPTS, chosen, max_new_tokens=6)
    llama.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(["model.layers.0", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
    places |= dict.fromkeys(["model.embed_tokens", "model.layers.1", "model.layers.2", "model.layers.3"], "disk")
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    assert spread.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    assert generate(spread, tokenizer, PROMPTS, chosen, max_new_tokens=6) == expected


@pytest.mark.parametrize("use_cache", [True, False])
def test_steered_alone_tells_prompt_from_generated(llama: Any, tokenizer: Any, use_cache: bool) -> None:
    """Any code that calls the model: the prompt's length is not given there."""
    ids = torch.tensor([[5, 9, 11, 30]])
    options = {"max_new_tokens": 6, "do_sample": False, "use_cache": use_cache, "pad_token_id": 0}
    for positions in ("prompt", "generated"):
        expected = generate(llama, tokenizer, [PROMPTS[0]], plan(positions), max_new_tokens=6)[0]
        with steered(llama, plan(positions)):
            for _ in range(2):  # a second sequence starts anew
                output = llama.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
                assert output[0, 4:].tolist() == expected.tokens


def test_a_prompt_in_chunks_is_still_the_prompt(llama: Any) -> None:
    ids = torch.tensor([[5, 9, 11, 30, 12]])
    with torch.no_grad(), steered(llama, plan("generated")) as record:
        cache = llama(input_ids=ids[:, :3], use_cache=True).past_key_values
        cache = llama(input_ids=ids[:, 3:], past_key_values=cache, use_cache=True).past_key_values
        llama(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
    assert record.hooks[0] == {"module": "model.layers.1", "calls": 3, "positions": 1}


def test_seeds_sampling_and_the_users_random_state(llama: Any, tokenizer: Any) -> None:
    def sample(seed: int, chosen: SteeringPlan | None = None) -> list[int]:
        made = generate(llama, tokenizer, PROMPTS, chosen, max_new_tokens=8, seed=seed, temperature=1.27, top_p=0.7)
        return [token for each in made for token in each.tokens]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert sample(1, plan()) == sample(1, plan()) != sample(1)
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_of_the_users_is_changed(llama: Any, tokenizer: Any) -> None:
    before = llama.generation_config.to_dict(), tokenizer.padding_side, tokenizer.pad_token
    generate(llama, tokenizer, PROMPTS, plan(), max_new_tokens=2)
    assert (llama.generation_config.to_dict(), tokenizer.padding_side, tokenizer.pad_token) == before


def test_a_models_own_generation_defaults_do_not_matter(llama: Any, tokenizer: Any) -> None:
    expected = generate(llama, tokenizer, PROMPTS, max_new_tokens=8)
    other = tiny.tiny_model("llama")
    other.generation_config.update(do_sample=True, temperature=3.0, top_k=5, repetition_penalty=2.0, max_length=3)
    assert generate(other, tokenizer, PROMPTS, max_new_tokens=8) == expected


def test_text_is_what_was_added_and_ends_at_the_end(llama: Any, tokenizer: Any) -> None:
    for each in generate(llama, tokenizer, PROMPTS, max_new_tokens=12):
        words = [f"w{token}" for token in each.tokens if token > 1]
        assert each.text.split() == words
        assert 0 not in each.tokens[:-1]
        assert each.hooks == []
    assert generate(llama, tokenizer, [], max_new_tokens=3) == []


def test_a_batch_of_other_plans_is_each_of_them_alone(model: Any, tokenizer: Any) -> None:
    """Prompts of several lengths, every mode, positions told apart, a row without a plan: tokens as alone."""
    prompts = ["w5 w9 w13 w4", "w7", "w11 w3", "w5 w9", "w8 w2 w6", "w7 w7"]
    plans = [plan(), None, plan("generated", "ablate", None), plan("prompt"), plan(mode="suppress", strength=-1), None]
    made = generate(model, tokenizer, prompts, plans, max_new_tokens=7)
    for prompt, own, found in zip(prompts, plans, made, strict=True):
        (alone,) = generate(model, tokenizer, [prompt], own, max_new_tokens=7)
        assert found.tokens == alone.tokens, (prompt, own)
        # Every row here ends at its own time; a batch goes on until the last one, and positions with it.
        assert [hook["module"] for hook in found.hooks] == [hook["module"] for hook in alone.hooks]


def test_one_plan_for_several_rows_is_hooked_once(llama: Any, tokenizer: Any) -> None:
    """The same plan for rows 0 and 2 of three: the positions of their prompts, then two at each of three tokens."""
    own = plan()
    first, none, last = generate(llama, tokenizer, ["w5 w9", "w7 w7", "w1 w2"], [own, None, own], max_new_tokens=4)
    assert first.hooks == last.hooks and none.hooks == []
    prompt = len(first.prompt_tokens) + len(last.prompt_tokens)
    assert first.hooks[0]["positions"] == prompt + 2 * 3


def test_plans_that_are_not_one_each_are_refused(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="2 plans for 1 prompts"):
        generate(llama, tokenizer, ["w5"], [plan(), plan()])
    with pytest.raises(ModelError, match="beam search mixes"):
        generate(llama, tokenizer, ["w5", "w6"], [plan(), None], num_beams=2)
    with pytest.raises(ModelError, match="the batch has 1 rows"), steered(llama, plan(), rows=[1]):
        llama(torch.tensor([[1, 2]]))

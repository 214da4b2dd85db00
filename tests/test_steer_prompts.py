"""Prompts as text, chats and ids; a model's own defaults; lengths and seeds that cannot be."""

from __future__ import annotations

from typing import Any

import planted_steering as planted
import pytest
import tiny_models as tiny
import torch
from planted_steering import plan_of
from tokenizers.processors import TemplateProcessing

from atlas.errors import ModelError
from queries.steer.generation import generate
from queries.steer.plan import SteeringPlan
from queries.steer.running.prompts import prompt_of
from queries.steer.score import nats_per_token
from queries.steer.steering import steered

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %} w3 {{ m['content'] }} w4{% endfor %}"
    "{% if add_generation_prompt %} w6{% endif %}"
)
CHAT = [{"role": "system", "content": "w20 w21"}, {"role": "user", "content": "w9 w11"}]
DICTIONARY = planted.planted_dictionary("blocks.1.hook_resid_post")


@pytest.fixture(scope="module")
def llama() -> Any:
    model = tiny.tiny_model("llama")
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One that puts BOS before text, as those of Llama, Gemma and Mistral do, with a template that begins with BOS."""
    made = tiny.tiny_tokenizer()
    made._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.chat_template = TEMPLATE
    made.eos_token = None
    return made


def plan(positions: str = "all") -> SteeringPlan:
    return plan_of(planted.intervention(DICTIONARY, 7, "add", 4, positions))


def test_a_templates_text_gets_no_second_bos(llama: Any, tokenizer: Any) -> None:
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert ids == [1, 3, 20, 21, 4, 3, 9, 11, 4, 6]
    text = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    forms: list[Any] = [text, CHAT, ids, torch.tensor(ids)]
    for form in forms:
        assert prompt_of(tokenizer, form).tokens == ids
    made = [generate(llama, tokenizer, [form], plan(), max_new_tokens=4)[0] for form in forms]
    assert len({tuple(each.tokens) for each in made}) == 1
    assert made[0].hooks[0]["positions"] == 10 + 3
    assert len(set(nats_per_token(llama, tokenizer, made))) == 1
    assert prompt_of(tokenizer, "w5").tokens == [1, 5]


def test_the_last_turn_is_steered_alone(llama: Any, tokenizer: Any) -> None:
    """Also in a batch, where turns begin at columns of their own."""
    chats = [CHAT, [*CHAT, {"role": "assistant", "content": "w7"}, {"role": "user", "content": "w8 w8 w8"}]]
    made = generate(llama, tokenizer, chats, plan("turn"), max_new_tokens=6)
    vector = 4 * torch.from_numpy(DICTIONARY[1].decoder[7])
    for each, turn in zip(made, (5, 6), strict=True):  # w3 w9 w11 w4 w6, and w3 w8 w8 w8 w4 w6
        length = len(each.prompt_tokens)

        def add(_module: Any, _args: Any, output: Any, first: int = length - turn, last: int = length) -> Any:
            changed = output.clone()
            changed[:, first:last] += vector
            return changed

        handle = llama.model.layers[1].register_forward_hook(add)
        ids = list(each.prompt_tokens)
        with torch.no_grad():
            for _ in range(6):
                ids.append(int(llama(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        handle.remove()
        assert each.tokens == ids[length:]
    assert made[0].hooks[0]["positions"] == 5 + 6
    with pytest.raises(ModelError, match="last turn is known of chat prompts only"):
        generate(llama, tokenizer, ["w5"], plan("turn"))


def test_one_message_and_an_answer_begun(tokenizer: Any) -> None:
    (only,) = [prompt_of(tokenizer, CHAT[1:])]
    assert (only.tokens, only.turn) == ([1, 3, 9, 11, 4, 6], 5)
    begun = prompt_of(tokenizer, [*CHAT[1:], {"role": "assistant", "content": "w7"}])
    assert begun.tokens == [1, 3, 9, 11, 4, 3, 7]


def test_what_is_no_prompt_is_refused(llama: Any, tokenizer: Any) -> None:
    wrongs: list[Any] = [[], [1.5], [CHAT[0], "w5"]]
    for wrong in wrongs:
        with pytest.raises(ModelError, match="a prompt is text"):
            prompt_of(tokenizer, wrong)
    with pytest.raises(ModelError, match="no chat template"):
        prompt_of(tiny.tiny_tokenizer(), CHAT)


OWN: list[dict[str, Any]] = [
    {"return_dict_in_generate": True, "output_scores": True},
    {"num_return_sequences": 2},
    {"suppress_tokens": [2]},
    {"begin_suppress_tokens": [2]},
    {"bad_words_ids": [[2]]},
    {"forced_eos_token_id": 0},
    {"guidance_scale": 1.5},
    {"sequence_bias": [[[2], -50.0]]},
    {"exponential_decay_length_penalty": [1, 3.0]},
    {"prompt_lookup_num_tokens": 2},
    {"stop_strings": ["w5"]},
    {"max_time": 0.0001},
    {"min_length": 40},
    {"token_healing": True},
    {"encoder_repetition_penalty": 3.0},
    {"watermarking_config": {"bias": 5.0}},
    {"is_assistant": True},
    {"prefill_chunk_size": 2},
    {"cache_implementation": "static"},
]


@pytest.mark.parametrize("own", OWN, ids=lambda own: next(iter(own)))
def test_a_models_own_generation_config_decides_nothing(own: dict[str, Any]) -> None:
    prompts = ["w5 w9 w11 w30", "w40", "w7 w8 w21"]
    model = tiny.tiny_model("llama")
    options: dict[str, Any] = {"plan": plan("generated"), "max_new_tokens": 6}
    expected = generate(model, tiny.tiny_tokenizer(), prompts, **options)
    for name, value in own.items():
        setattr(model.generation_config, name, value)
    before = model.generation_config.to_dict()
    assert generate(model, tiny.tiny_tokenizer(), prompts, **options) == expected
    assert model.generation_config.to_dict() == before


def test_nor_does_it_inside_steered() -> None:
    tokenizer, model = tiny.tiny_tokenizer(), tiny.tiny_model("llama")
    expected = generate(model, tokenizer, ["w5 w9 w11 w30"], plan("generated"), max_new_tokens=6)
    model.generation_config.suppress_tokens = [expected[0].tokens[1]]
    with steered(model, plan("generated")):
        made = generate(model, tokenizer, ["w5 w9 w11 w30"], max_new_tokens=6)
    assert made[0].tokens == expected[0].tokens
    assert "generate" not in vars(model)


def test_learned_positions_have_an_end() -> None:
    model, tokenizer = tiny.tiny_model("gpt2"), tiny.tiny_tokenizer()
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="140 tokens and 2 new ones do not fit this model's 128 positions"):
        generate(model, tokenizer, ["w5 " * 140], max_new_tokens=2)
    with pytest.raises(ModelError, match=r"126 tokens and 10 new ones .* add at most 3"):
        generate(model, tokenizer, ["w5 " * 126], max_new_tokens=10)
    assert len(generate(model, tokenizer, ["w5 " * 126], max_new_tokens=3)[0].tokens) == 3
    assert len(generate(tiny.tiny_model("llama"), tokenizer, ["w5 " * 140], max_new_tokens=2)[0].tokens) == 2


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**20])
def test_a_seed_has_64_bits(llama: Any, tokenizer: Any, seed: int) -> None:
    with pytest.raises(ModelError, match="more than 64 bits"):
        generate(llama, tokenizer, ["w5"], seed=seed)

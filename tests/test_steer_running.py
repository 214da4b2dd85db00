"""Ways to run a model, each against the same model hooked by hand: masks, caches, packing, threads, helpers."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import planted_steering as planted
import pytest
import tiny_models as tiny
import torch
import transformers
from planted_steering import hooks_left, plan_of, tokens

from atlas.errors import ModelError
from queries.steer.generation import generate
from queries.steer.plan import SteeringPlan
from queries.steer.running.padding import real_positions
from queries.steer.steering import steered

DICTIONARY = planted.planted_dictionary("blocks.1.hook_resid_post")
VECTOR = 4 * torch.from_numpy(DICTIONARY[1].decoder[7])


def plan(positions: str = "all", strength: Any = 4, mode: str = "add", hook: str | None = None) -> SteeringPlan:
    dictionary = DICTIONARY if hook is None else planted.planted_dictionary(hook)
    return plan_of(planted.intervention(dictionary, 7, mode, strength, positions))


@pytest.fixture
def llama() -> Any:
    model = tiny.tiny_model("llama")
    model.generation_config.eos_token_id = None
    return model


@contextmanager
def by_hand(model: Any, start: int = 0, stop: int | None = None) -> Iterator[None]:
    """4 of the direction added to block 1's output, in these columns of each pass."""

    def add(_module: Any, _args: Any, output: Any) -> Any:
        changed = output.clone()
        changed[:, start:stop] += VECTOR
        return changed

    handle = model.model.layers[1].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def continued(model: Any, ids: torch.Tensor, new: int = 8, **options: Any) -> list[int]:
    options = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": new} | options
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    return list(made[0, ids.shape[1] :].tolist())


def _packed() -> torch.Tensor:
    document = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    return (document[:, None] == document[None]) & torch.ones(8, 8, dtype=torch.bool).tril()


def _window() -> torch.Tensor:
    return torch.ones(8, 8, dtype=torch.bool).tril() & ~torch.ones(8, 8, dtype=torch.bool).tril(-3)


@pytest.mark.parametrize("allowed", [_packed(), _window()], ids=["packed", "window"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks_of_packed_rows_and_windows_are_no_padding(llama: Any, allowed: torch.Tensor, kind: str) -> None:
    mask = allowed[None, None]
    if kind == "float":
        mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        with by_hand(llama):
            expected = llama(input_ids=tokens(1, 8), attention_mask=mask).logits
        with steered(llama, plan()) as record:
            actual = llama(input_ids=tokens(1, 8), attention_mask=mask).logits
    torch.testing.assert_close(actual, expected)
    assert record.hooks[0]["positions"] == 8


def test_padding_is_read_off_every_form_of_mask() -> None:
    padding = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    full = torch.ones(5, 5, dtype=torch.bool).tril() & padding[:, None]
    opened = full | ~full.any(-1, keepdim=True)  # as transformers does for kernels that cannot bear an empty row
    additive = torch.where(full, 0.0, -1e4)

    class Block:
        shape, kv_indices = (2, 1, 5, 5), torch.zeros(1)

        @staticmethod
        def mask_mod(batch: Any, _head: Any, query: Any, key: Any) -> Any:
            return (query >= key) & padding[batch, key]

    for mask in (
        padding.long(),
        full[:, None],
        opened[:, None],
        additive[:, None],
        {"sliding": full[:, None]},
        Block(),
    ):
        found = real_positions({"attention_mask": mask}, 0, 5)
        assert found is not None
        assert torch.equal(found, padding)
    # A later pass of one token, with a cache of 4 columns that has room for 8, and one whose window is 3.
    room = torch.nn.functional.pad(full[:, None, 4:], (0, 3))
    assert real_positions({"attention_mask": room}, 4, 1) is None
    assert real_positions({"attention_mask": full[:, None, 4:, 2:]}, 4, 1) is None


def test_a_static_cache_with_a_sliding_window_gives_the_same_text() -> None:
    config = transformers.MistralConfig(**(tiny._GROUPED | {"sliding_window": 6}))
    model = tiny._randomised(transformers.AutoModelForCausalLM.from_config(config), 0)
    model.generation_config.eos_token_id = None
    for seed in range(4):
        ids = tokens(1, 14, seed=seed)
        with by_hand(model):
            expected = continued(model, ids)
        with steered(model, plan()) as record:
            assert continued(model, ids, cache_implementation="static") == expected
        assert record.hooks[0]["positions"] == 21


@pytest.mark.slow
def test_continuous_batching_steers_every_request_or_says_why_not(llama: Any) -> None:
    prompts = [[5, 9, 11, 30], [40], [7, 8, 21]]
    options = transformers.GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=99, pad_token_id=0)
    small = transformers.ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64, use_cuda_graph=False)

    def batch() -> list[list[int]]:
        made = llama.generate_batch(
            inputs=prompts, generation_config=options, continuous_batching_config=small, progress_bar=False
        )
        return [each.generated_tokens for each in made.values()]

    with by_hand(llama):
        expected = batch()
    with steered(llama, plan()) as record:
        assert batch() == expected
    assert record.hooks[0]["positions"] == 8 + 3 * 3
    with pytest.raises(ModelError, match="continuous batching packs requests"), steered(llama, plan("generated")):
        batch()


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("way", ["prompt lookup", "draft model", "chunks", "own draft"])
def test_helpers_of_generation_give_greedys_own_text(llama: Any, positions: str, way: str) -> None:
    ids = torch.tensor([[5, 9, 11, 30, 5, 9, 11, 30, 5, 9]])
    options: dict[str, Any] = {
        "prompt lookup": {"prompt_lookup_num_tokens": 3},
        "draft model": {"assistant_model": tiny.tiny_model("llama", seed=0)},
        "own draft": {"assistant_model": llama},
        "chunks": {"prefill_chunk_size": 3},
    }[way]
    expected = _greedy(llama, ids, positions, 10)
    with steered(llama, plan(positions)):
        assert continued(llama, ids, 10, **options) == expected
    assert "generate" not in vars(llama)


def _greedy(model: Any, ids: torch.Tensor, positions: str, new: int) -> list[int]:
    made: list[int] = []
    prompt = ids.shape[1]
    columns = {"all": (0, None), "prompt": (0, prompt), "generated": (prompt, None)}[positions]
    for _ in range(new):
        with torch.no_grad(), by_hand(model, *columns):
            made.append(int(model(input_ids=torch.cat([ids, torch.tensor([made]).long()], 1)).logits[0, -1].argmax()))
    return made


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_guidance_counts_each_of_its_sequences(llama: Any, positions: str, use_cache: bool) -> None:
    ids, other = tokens(1, 7), tokens(1, 5, seed=3)
    expected: list[int] = []
    for _ in range(8):
        scores = []
        for start in (ids, other):
            length = start.shape[1]
            columns = {"all": (0, None), "prompt": (0, length), "generated": (length, None)}[positions]
            with torch.no_grad(), by_hand(llama, *columns):
                whole = torch.cat([start, torch.tensor([expected]).long()], 1)
                scores.append(llama(input_ids=whole).logits[0, -1].log_softmax(-1))
        expected.append(int((1.5 * (scores[0] - scores[1]) + scores[1]).argmax()))
    with steered(llama, plan(positions)):
        made = continued(llama, ids, guidance_scale=1.5, negative_prompt_ids=other, use_cache=use_cache)
    assert made == expected


def test_a_next_turn_of_one_token_is_prompt(llama: Any) -> None:
    ids = tokens(1, 6)
    with torch.no_grad():
        cache = llama(input_ids=ids[:, :5], use_cache=True).past_key_values
    with torch.no_grad(), steered(llama, plan("prompt")) as record:
        continued(llama, ids, 3, past_key_values=cache)
    assert record.hooks[0]["positions"] == 1


def test_what_hides_the_prompt_is_refused(llama: Any) -> None:
    with pytest.raises(ModelError, match="told apart with token_healing"), steered(llama, plan("generated")):
        continued(llama, tokens(), token_healing=True)


def test_threads_do_not_mix_their_passes(llama: Any) -> None:
    inputs = [(tokens(2, 7), torch.tensor([[1] * 7, [0] * 4 + [1] * 3])), (tokens(2, 7, 1), torch.ones(2, 7).long())]
    inputs.append((tokens(1, 4), torch.ones(1, 4).long()))
    chosen = plan("all", -1, "suppress")
    with torch.no_grad(), steered(llama, chosen):
        expected = [llama(input_ids=ids, attention_mask=mask).logits for ids, mask in inputs]
    wrong: list[str] = []

    def work(index: int) -> None:
        ids, mask = inputs[index]
        try:
            with torch.no_grad():
                for _ in range(40):
                    made = llama(input_ids=ids, attention_mask=mask).logits
                    if not torch.allclose(made[mask.bool()], expected[index][mask.bool()], atol=1e-4):
                        wrong.append(f"logits {index}")
        except Exception as error:
            wrong.append(repr(error))

    with _switching(), steered(llama, chosen) as record:
        _run_together([lambda index=index: work(index) for index in range(3)])
    assert not wrong
    assert record.hooks[0] == {"module": "model.layers.1", "calls": 120, "positions": 40 * (10 + 14 + 4)}


@pytest.mark.parametrize("temperature", [None, 1.2])
def test_texts_made_in_several_threads_are_their_own(llama: Any, temperature: float | None) -> None:
    tokenizer = tiny.tiny_tokenizer()
    plans: list[SteeringPlan | None] = [None, plan(), plan("generated", 6)]
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": temperature}

    def make(index: int) -> list[int]:
        return generate(llama, tokenizer, ["w5 w9 w11"], plans[index], seed=index, **options)[0].tokens

    expected = [make(index) for index in range(3)]
    found: list[list[list[int]]] = [[], [], []]
    jobs = [lambda index=index: found[index].extend(make(index) for _ in range(6)) for index in range(3)]
    plain = continued(llama, tokens(), 4)
    own: list[list[int]] = []
    with _switching():
        _run_together([*jobs, lambda: own.extend(continued(llama, tokens(), 4) for _ in range(6))])
    assert found == [[each] * 6 for each in expected]
    assert own == [plain] * 6


@contextmanager
def _switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _run_together(jobs: list[Any]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward after"])
@pytest.mark.parametrize(
    ("mode", "strength", "positions"), [("add", "40%", "all"), ("suppress", -1, "all"), ("add", 4, "generated")]
)
@pytest.mark.parametrize("hook", ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"])
@pytest.mark.filterwarnings("ignore")
def test_gradient_checkpointing_gives_the_same_gradients(
    hook: str, mode: str, strength: Any, positions: str, inside: bool, reentrant: bool
) -> None:
    chosen = plan(positions, strength, mode, hook)
    plain, checkpointed = (_gradients(chosen, inside, each) for each in (None, reentrant))
    torch.testing.assert_close(checkpointed[0], plain[0])
    assert checkpointed[1] == plain[1]


def _gradients(chosen: SteeringPlan, inside: bool, reentrant: bool | None) -> tuple[torch.Tensor, Any]:
    model = tiny.tiny_model("llama").train()
    ids, mask = tokens(2), torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    with steered(model, chosen) as record:
        if reentrant is not None:  # also where it is switched on inside, as a trainer does
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids.masked_fill(mask == 0, -100)[:, 1:].flatten()
        )
        if inside:
            loss.backward()  # type: ignore[no-untyped-call]
    if not inside:
        loss.backward()  # type: ignore[no-untyped-call]
    assert not any(module._forward_hooks for module in model.model.layers.modules())
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), record.hooks


def test_checkpointing_that_is_not_the_models_own_is_refused(llama: Any) -> None:
    block = llama.model.layers[1].mlp
    hidden = torch.randn(1, 3, 32, requires_grad=True)
    with steered(llama, plan("all", "40%", hook="blocks.1.hook_mlp_out")):
        out = torch.utils.checkpoint.checkpoint(block, hidden, use_reentrant=False)
        with pytest.raises(ModelError, match="gradient_checkpointing_enable"):
            out.sum().backward()
        llama(input_ids=tokens())


@pytest.mark.parametrize(("mode", "strength"), [("ablate", None), ("suppress", 0), ("clamp", 4), ("add", "40%")])
def test_autocast_leaves_float32_what_is_measured(llama: Any, mode: str, strength: Any) -> None:
    each = planted.intervention(DICTIONARY, 5, mode, strength)
    seen: dict[str, torch.Tensor] = {}
    first = llama.model.layers[1].register_forward_hook(lambda m, a, o: seen.__setitem__("before", o))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), steered(llama, plan_of(each)):
        last = llama.model.layers[1].register_forward_hook(lambda m, a, o: seen.__setitem__("after", o))
        llama(input_ids=tokens(2))
    first.remove()
    last.remove()
    from test_steer_steering import by_hand as exact

    expected = exact(each, seen["before"], seen["before"], None)
    change = (expected - seen["before"].double()).norm()
    assert (seen["after"].double() - expected).norm() < 1e-6 * change


@pytest.mark.parametrize("strength", [1e30, 1e300, "1e30%"])
def test_states_that_are_not_finite_name_the_strength(llama: Any, strength: Any) -> None:
    said = pytest.raises(ModelError, match=r"not finite with strength 1e\+300?%? of tiny/1-res-24/7")
    with said:
        generate(
            llama, tiny.tiny_tokenizer(), ["w5 w9", "w3"], plan("all", strength), max_new_tokens=4, temperature=1.0
        )
    half = tiny.tiny_model("llama", dtype=torch.float16)
    with (
        pytest.raises(ModelError, match="not finite with strength 1000000"),
        torch.no_grad(),
        steered(half, plan("all", 1e6)),
    ):
        half(input_ids=tokens())
    assert hooks_left(llama) == hooks_left(half) == 0


def test_a_copy_made_inside_is_refused(llama: Any) -> None:
    with torch.no_grad(), steered(llama, plan()):
        llama(input_ids=tokens())
        for copied in (llama, llama.model.layers[1]):
            with pytest.raises(ModelError, match="outside steered"):
                copy.deepcopy(copied)
            with pytest.raises(ModelError, match="outside steered"):
                pickle.dumps(copied)
    assert hooks_left(copy.deepcopy(llama)) == 0


def test_what_changed_nothing_is_said(llama: Any) -> None:
    with pytest.warns(UserWarning, match=r"model\.layers\.1 was steered at 0 positions"):
        generate(llama, tiny.tiny_tokenizer(), ["w5 w9"], plan("generated"), max_new_tokens=1)
    record, rows = planted.planted_dictionary("blocks.1.hook_resid_post")
    rows.vectors["b_enc"][7] = -1e4
    silent = plan_of(planted.intervention((record, rows), 7, "suppress", -1))
    with pytest.warns(UserWarning, match=r"tiny/1-res-24/7 was active at none of 3 positions"):
        (made,) = generate(llama, tiny.tiny_tokenizer(), ["w5 w9"], silent, max_new_tokens=2)
    assert made.hooks[0]["features"] == [{"feature": "tiny/1-res-24/7", "active": 0, "largest": 0.0}]


def test_how_often_and_how_strongly_a_feature_was_active(llama: Any) -> None:
    ids, mask = tokens(2), torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    each = planted.intervention(DICTIONARY, 5, "clamp", 4)
    seen: dict[str, torch.Tensor] = {}
    handle = llama.model.layers[1].register_forward_hook(lambda m, a, o: seen.__setitem__("h", o))
    with torch.no_grad(), steered(llama, plan_of(each)) as record:
        llama(input_ids=ids, attention_mask=mask)
    handle.remove()
    rows = DICTIONARY[1]
    before = (seen["h"] - torch.from_numpy(rows.vectors["b_dec"])) @ torch.from_numpy(rows.encoder[5])
    before = before + float(rows.vectors["b_enc"][5])
    active = before.where(before > float(rows.vectors["threshold"][5]), torch.tensor(0.0))[mask.bool()].clamp(min=0)
    (found,) = record.detailed[0]["features"]
    assert found["active"] == int((active > 0).sum()) > 0
    assert found["largest"] == pytest.approx(float(active.max()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrapped", "model", "blocks"])
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_compiled_models_are_steered(llama: Any, how: str, warm: bool) -> None:
    ids = tokens(2)
    with torch.no_grad():
        plain = llama(input_ids=ids).logits
        with by_hand(llama):
            expected = llama(input_ids=ids).logits
        model = torch.compile(llama, backend="eager") if how == "wrapped" else llama
        for each in {"wrapped": [], "model": [llama], "blocks": llama.model.layers}[how]:
            each.compile(backend="eager")
        if warm:
            model(input_ids=ids)
        with steered(model, plan()):
            torch.testing.assert_close(model(input_ids=ids).logits, expected)
        torch.testing.assert_close(model(input_ids=ids).logits, plain)


def test_a_default_device_does_not_matter(llama: Any) -> None:
    with torch.device("meta"), torch.no_grad(), steered(llama, plan("all", -1, "suppress")) as record:
        ids = torch.tensor([[5, 9]], device="cpu")
        llama(
            input_ids=ids,
            attention_mask=torch.ones(1, 2, device="cpu"),
            position_ids=torch.arange(2, device="cpu")[None],
        )
    assert record.hooks[0]["positions"] == 2


def test_columns_put_before_the_prompt_are_counted() -> None:
    """Prompt tuning, as PEFT does it: learned embeddings before those of the prompt, and a longer mask."""
    inner = tiny.tiny_model("llama")

    class Tuned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_model, self.config = inner, inner.config
            self.learned = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            embedded = inner.get_input_embeddings()(input_ids)
            embedded = torch.cat([self.learned.expand(len(input_ids), -1, -1), embedded], 1)
            ones = torch.ones(len(input_ids), 3, dtype=attention_mask.dtype)
            return inner(inputs_embeds=embedded, attention_mask=torch.cat([ones, attention_mask], 1))

    tuned, ids, mask = Tuned(), tokens(2), torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    with torch.no_grad():
        with by_hand(inner):
            expected = tuned(ids, mask).logits
        for positions in ("all", "prompt"):
            with steered(tuned, plan(positions)) as record:
                actual = tuned(ids, mask).logits
            real = torch.cat([torch.ones(2, 3), mask], 1).bool()
            torch.testing.assert_close(actual[real], expected[real])
            assert record.hooks[0]["positions"] == 17


def test_a_transformer_lens_bridge_is_refused_by_name(llama: Any) -> None:
    class TransformerBridge(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.original_model, self.config, self.cfg = llama, llama.config, object()

    with pytest.raises(ModelError, match=r"TransformerBridge.*original_model"), steered(TransformerBridge(), plan()):
        pass

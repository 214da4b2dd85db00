"""Steering against the same model hooked by hand, for every family, site and mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import planted_steering as planted
import pytest
import tiny_models as tiny
import torch
from planted_steering import hooks_left, plan_of, tokens

from queries.steer.intervention import Intervention
from queries.steer.steering import NothingSteered, steered

LAYER = 1
# Where each site is, written down by hand from the models' own code: (write, what hook_z reads).
_LLAMA = {"res": "model.layers.1", "mlp": "model.layers.1.mlp", "att": "model.layers.1.self_attn"}
_GEMMA2 = {
    "res": "model.layers.1",
    "mlp": "model.layers.1.post_feedforward_layernorm",
    "att": "model.layers.1.post_attention_layernorm",
}
WRITES = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA) | {
    "gpt2": {"res": "transformer.h.1", "mlp": "transformer.h.1.mlp", "att": "transformer.h.1.attn"},
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "gpt_neox": {"res": "gpt_neox.layers.1", "mlp": "gpt_neox.layers.1.mlp", "att": "gpt_neox.layers.1.attention"},
}
O_PROJ = dict.fromkeys(WRITES, "model.layers.1.self_attn.o_proj") | {
    "gpt2": "transformer.h.1.attn.c_proj",
    "gpt_neox": "gpt_neox.layers.1.attention.dense",
}
HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "hook_attn_out"}
CASES = (("add", 3), ("add", "40%"), ("suppress", -2), ("clamp", 4), ("ablate", None))


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> Any:
    return tiny.tiny_model(family)


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny.tiny_model("llama")


def by_hand(each: Intervention, hidden: torch.Tensor, read: torch.Tensor, rms: torch.Tensor | None) -> torch.Tensor:
    """The hidden states after one intervention, from the definitions, in float64."""
    rows, i = each.rows, each.index
    assert rows is not None
    h, x, d = hidden.double(), read.double(), torch.from_numpy(each.direction).double()
    s = 0.0 if each.strength is None else each.strength.value
    pre = (x - torch.from_numpy(rows.vectors["b_dec"])) @ torch.from_numpy(rows.encoder[i]).double() + float(
        rows.vectors["b_enc"][i]
    )
    a = torch.where(pre > float(rows.vectors["threshold"][i]), pre.clamp(min=0), 0.0)[..., None]
    f = d * float(rows.vectors["norms"][i])
    if rms is not None:
        f = f / rms
    if each.mode == "add":
        return h + (s / 100 * h.norm(dim=-1, keepdim=True) if each.strength and each.strength.percent else s) * d
    if each.mode == "suppress":
        return h + (s - 1) * a * f
    if each.mode == "clamp":
        return h + (s - a) * f
    return h - (h @ d)[..., None] * d


def hooked_by_hand(model: Any, each: Intervention, write: str, read: str | None, ids: torch.Tensor) -> torch.Tensor:
    """Logits with hooks written out here, without the runner."""
    kept: dict[str, torch.Tensor] = {}

    def keep(module: Any, args: Any) -> None:
        kept["read"] = args[0]

    def change(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        rms: torch.Tensor | None = None
        if each.dictionary.mapped == "o_proj+norm":
            rms = (args[0].double().pow(2).mean(-1, keepdim=True) + module.eps).sqrt()
        new = by_hand(each, hidden, kept["read"] if read else hidden, rms).to(hidden.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handles = [tiny.module_of(model, write).register_forward_hook(change)]
    if read:
        handles.append(tiny.module_of(model, read).register_forward_pre_hook(keep))
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids).logits
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize(("mode", "strength"), CASES)
@pytest.mark.parametrize("site", HOOKS)
def test_every_family_site_and_mode_equals_hooks_by_hand(
    family: str, model: Any, site: str, mode: str, strength: Any
) -> None:
    each = planted.intervention(planted.planted_dictionary(f"blocks.{LAYER}.{HOOKS[site]}"), 7, mode, strength)
    ids = tokens(2)
    expected = hooked_by_hand(model, each, WRITES[family][site], None, ids)
    with torch.no_grad(), steered(model, plan_of(each)) as record:
        actual = model(input_ids=ids).logits
    with torch.no_grad():
        plain = model(input_ids=ids).logits
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)
    assert (actual - plain).abs().max() > 1e-3
    assert record.hooks == [{"module": WRITES[family][site], "calls": 1, "positions": 14}]
    assert hooks_left(model) == 0


def test_what_was_added_is_told_as_a_length() -> None:
    """The median of each pass's lengths, the passes weighed by their positions; padding and other rows left out."""
    model = tiny.tiny_model("llama")
    record_of = planted.planted_dictionary(f"blocks.{LAYER}.hook_resid_post")
    seen: list[torch.Tensor] = []
    hook = model.model.layers[LAYER].register_forward_hook(lambda _m, _a, out: seen.append(out.norm(dim=-1)))
    ids, later = tokens(2), tokens(2, length=3)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0

    def run() -> None:
        with torch.no_grad():
            past = model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
            model(input_ids=later, attention_mask=torch.cat([mask, torch.ones(2, 3)], 1), past_key_values=past)

    run()
    hook.remove()
    first, second = seen[0][mask.bool()], seen[1].flatten()
    assert (len(first), len(second)) == (12, 6)
    expected = 0.3 * (first.median() * 12 + second.median() * 6) / 18
    for mode, strength, length in (("add", "30%", float(expected)), ("add", -2.5, 2.5), ("suppress", 1, 0.0)):
        with steered(model, plan_of(planted.intervention(record_of, 7, mode, strength))) as record:
            run()
        assert record.added == [pytest.approx(length, rel=1e-5)]
    with steered(model, plan_of(planted.intervention(record_of, 7, "add", "30%")), rows=[1]) as record:
        run()
    chosen = (seen[0][1].median() * 7 + seen[1][1].median() * 3) / 10
    assert record.added == [pytest.approx(0.3 * float(chosen), rel=1e-5)]
    with pytest.warns(NothingSteered), steered(model, plan_of(planted.intervention(record_of, 7, "add", 1))) as record:
        pass
    assert record.added == [None]


@pytest.mark.parametrize(("mode", "strength"), (("suppress", -2), ("clamp", 4)))
def test_head_space_dictionaries_read_at_o_proj_and_write_after_it(
    family: str, model: Any, mode: str, strength: Any
) -> None:
    width = tiny.module_of(model, O_PROJ[family]).weight.shape[0 if family == "gpt2" else 1]
    mapped = "o_proj+norm" if family.startswith(("gemma2", "gemma3")) else "o_proj"
    each = planted.intervention(
        planted.planted_dictionary(f"blocks.{LAYER}.attn.hook_z", d_in=width, mapped=mapped), 3, mode, strength
    )
    ids = tokens(2)
    expected = hooked_by_hand(model, each, WRITES[family]["att"], O_PROJ[family], ids)
    with torch.no_grad(), steered(model, plan_of(each)):
        actual = model(input_ids=ids).logits
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)


def test_a_mapped_direction_is_what_injecting_it_in_head_space_does(family: str, model: Any) -> None:
    # Adding w to z changes what attention adds to the stream by W_O·w, or through Gemma's output norm by
    # (1 + g)·(W_O·w)/rms where rms changes little: the injected vector is small.
    projection = tiny.module_of(model, O_PROJ[family])
    weight = (projection.weight.T if family == "gpt2" else projection.weight).detach()
    w = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(1)) * 1e-3
    normed = family.startswith(("gemma2", "gemma3"))
    f = weight @ w
    if normed:
        f = f * (1 + tiny.module_of(model, WRITES[family]["att"]).weight.detach())
    record, rows = planted.planted_dictionary(
        f"blocks.{LAYER}.attn.hook_z", d_in=len(w), mapped="o_proj+norm" if normed else "o_proj"
    )
    decoder, encoder = np.asarray(rows.decoder), np.asarray(rows.encoder)
    rows.vectors["norms"][0], decoder[0] = float(f.norm()), (f / f.norm()).numpy()
    encoder[0], rows.vectors["b_enc"][0] = 0, 0  # never active: clamping at 1 adds exactly one unit
    each = planted.intervention((record, rows), 0, "clamp", 1)
    ids = tokens()
    handle = projection.register_forward_pre_hook(lambda module, args: (args[0] + w,))
    with torch.no_grad():
        injected = model(input_ids=ids).logits
    handle.remove()
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with steered(model, plan_of(each)):
            actual = model(input_ids=ids).logits
    change = (injected - plain).norm()
    # The part along the output itself also changes rms, at first order: it is not the direction's doing.
    assert (actual - injected).norm() < (0.6 if normed else 0.01) * change


def test_the_input_of_a_block_is_steered_for_resid_pre(family: str, model: Any) -> None:
    pre = planted.intervention(planted.planted_dictionary("blocks.2.hook_resid_pre"), 4, "suppress", -1)
    ids = tokens(2)
    expected = hooked_by_hand(model, pre, WRITES[family]["res"], None, ids)  # the output of block 1
    with torch.no_grad(), steered(model, plan_of(pre)) as record:
        actual = model(input_ids=ids).logits
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)
    assert record.hooks[0]["module"] == WRITES[family]["res"].replace(".1", ".2")
    assert pre.dictionary.layer == 1


def test_a_transcoder_reads_the_mlp_input_and_writes_its_output(llama: Any) -> None:
    dictionary = planted.planted_dictionary("blocks.1.hook_mlp_out", hook_name_in="blocks.1.ln2.hook_normalized")
    each = planted.intervention(dictionary, 2, "clamp", 3)
    ids = tokens()
    expected = hooked_by_hand(llama, each, "model.layers.1.mlp", "model.layers.1.mlp", ids)
    with torch.no_grad(), steered(llama, plan_of(each)):
        torch.testing.assert_close(llama(input_ids=ids).logits, expected, atol=2e-5, rtol=1e-5)


def test_several_at_one_module_see_what_the_hook_sees(llama: Any) -> None:
    dictionary = planted.planted_dictionary("blocks.1.hook_resid_post")
    made = [
        planted.intervention(dictionary, 0, "add", 2),
        planted.intervention(dictionary, 1, "add", "10%"),
        planted.intervention(dictionary, 2, "suppress", -1),
        planted.intervention(dictionary, 3, "clamp", 2),
    ]
    ids = tokens()
    seen: dict[str, torch.Tensor] = {}
    handle = llama.model.layers[1].register_forward_hook(lambda m, a, out: seen.setdefault("h", out))
    with torch.no_grad(), steered(llama, plan_of(*made)):
        after: dict[str, torch.Tensor] = {}
        last = llama.model.layers[1].register_forward_hook(lambda m, a, out: after.setdefault("h", out))
        llama(input_ids=ids)
    handle.remove()
    last.remove()
    h = seen["h"]
    expected = h.double() + sum(by_hand(each, h, h, None) - h.double() for each in made)
    torch.testing.assert_close(after["h"].double(), expected, atol=1e-5, rtol=1e-5)


def test_ablating_two_removes_the_span(llama: Any) -> None:
    dictionary = planted.planted_dictionary("blocks.1.hook_resid_post")
    made = [planted.intervention(dictionary, index, "ablate") for index in (0, 1)]
    after: dict[str, torch.Tensor] = {}
    with torch.no_grad(), steered(llama, plan_of(*made)):
        handle = llama.model.layers[1].register_forward_hook(lambda m, a, out: after.setdefault("h", out))
        llama(input_ids=tokens())
    handle.remove()
    rows = torch.from_numpy(np.stack([each.direction for each in made]))
    assert (after["h"] @ rows.T).abs().max() < 1e-4  # both, though they are not orthogonal


def test_nested_plans_add_up(llama: Any) -> None:
    dictionary = planted.planted_dictionary("blocks.1.hook_resid_post")
    one, two = (planted.intervention(dictionary, index, "add", 3) for index in (0, 1))
    ids = tokens()
    with torch.no_grad():
        with steered(llama, plan_of(one, two)):
            together = llama(input_ids=ids).logits
        with steered(llama, plan_of(one)):
            with steered(llama, plan_of(two)):
                nested = llama(input_ids=ids).logits
            alone = llama(input_ids=ids).logits
    torch.testing.assert_close(nested, together, atol=1e-5, rtol=1e-5)
    assert (alone - together).abs().max() > 1e-3


def test_half_precision_measures_in_float32(llama: Any) -> None:
    model = tiny.tiny_model("llama", dtype=torch.bfloat16)
    dictionary = planted.planted_dictionary("blocks.1.hook_resid_post")
    for mode, strength in CASES:
        each = planted.intervention(dictionary, 5, mode, strength)
        before: dict[str, torch.Tensor] = {}
        after: dict[str, torch.Tensor] = {}
        first = model.model.layers[1].register_forward_hook(lambda m, a, out, d=before: d.setdefault("h", out))
        with torch.no_grad(), steered(model, plan_of(each)):
            last = model.model.layers[1].register_forward_hook(lambda m, a, out, d=after: d.setdefault("h", out))
            model(input_ids=tokens())
        first.remove()
        last.remove()
        h = before["h"]
        delta = (by_hand(each, h, h, None) - h.double()).bfloat16()
        assert after["h"].dtype == torch.bfloat16
        torch.testing.assert_close(after["h"], h + delta, atol=0.05, rtol=0.02)


def test_padding_is_never_steered_or_counted(llama: Any) -> None:
    each = planted.intervention(planted.planted_dictionary("blocks.1.hook_resid_post"), 5, "add", "50%")
    ids, mask = tokens(2), torch.ones(2, 7, dtype=torch.long)
    for columns in (slice(0, 3), slice(5, 7)):  # padding on the left, then on the right
        padded = mask.clone()
        padded[1, columns] = 0
        seen: dict[str, torch.Tensor] = {}
        first = llama.model.layers[1].register_forward_hook(lambda m, a, out, d=seen: d.setdefault("before", out))
        with torch.no_grad(), steered(llama, plan_of(each)) as record:
            last = llama.model.layers[1].register_forward_hook(lambda m, a, out, d=seen: d.setdefault("after", out))
            llama(input_ids=ids, attention_mask=padded)
        first.remove()
        last.remove()
        changed = (seen["before"] != seen["after"]).any(-1)
        assert torch.equal(changed, padded.bool())
        assert record.hooks[0]["positions"] == int(padded.sum())

"""What a release's name, the options and globs choose, from SAELens's own list; nothing is fetched."""

from __future__ import annotations

import logging

import pytest

from atlas.errors import IngestError
from ingest.sources.releases.choices import Listed, choose
from ingest.sources.releases.listing import read_release
from ingest.sources.selection import Selection


def chosen(address: str, **options: object) -> list[Listed]:
    release, _, sae_id = address.partition("/")
    return choose(release, read_release(release)["saes"], sae_id, Selection(**options))  # type: ignore[arg-type]


def ids(address: str, **options: object) -> list[str]:
    return [one.id for one in chosen(address, **options)]


def test_what_an_id_says() -> None:
    (one,) = chosen("gemma-scope-2-270m-it-res/layer_12_width_262k_l0_medium_seed_1")
    assert (one.layer, one.site, one.d_sae, one.l0, one.folded) == (12, "res", 262144, 60.0, "l0_medium_seed_1")
    assert one.variant == {"width": "262k", "l0": "medium", "seed": "1"}
    (one,) = chosen("gemma-scope-2b-pt-mlp/layer_12/width_65k/average_l0_96")
    assert (one.layer, one.d_sae, one.l0, one.folded) == (12, 65536, 96.0, "average_l0_96")
    (one,) = chosen("gpt2-small-res-jb-feature-splitting/blocks.8.hook_resid_pre_768")
    assert (one.layer, one.d_sae, one.place) == (7, 768, "blocks.8.hook_resid_pre")  # the input of block 8
    (one,) = chosen("llama_scope_lxa_8x/l31a_8x")
    assert (one.layer, one.site, one.l0 is not None) == (31, "att", True)


def test_a_name_alone_says_what_there_is_to_choose() -> None:
    with pytest.raises(IngestError) as caught:
        ids("gemma-scope-2-4b-pt-res")
    message = str(caught.value)
    # four layers × (16k, 65k, 262k, 1m) × (small, medium, big), and a second seed of 262k's medium at each layer
    assert "width: 16k (12), 65k (12), 262k (16), 1m (12); l0: small (16), medium (20), big (16)" in message
    assert "seed: 0 (48), 1 (4)" in message
    assert "by --l0 small|medium|big|N (the nearest to N) or --width 16k or a pattern over ids such as" in message
    with pytest.raises(IngestError, match=r"affine: no \(36\), yes \(36\)"):
        ids("gemma-scope-2-4b-pt-transcoders")
    with pytest.raises(IngestError, match=r"l0: \d+ to \d+ \(130\)"):
        ids("gemma-scope-2b-pt-mlp", width="16k")


def test_l0_by_name_and_by_number(caplog: pytest.LogCaptureFixture) -> None:
    assert ids("gemma-scope-2-4b-pt-res", l0="medium") == [
        f"layer_{layer}_width_16k_l0_medium" for layer in (17, 22, 29, 9)
    ]
    assert "--width all" in caplog.text
    (near,) = chosen("gemma-scope-2b-pt-mlp", l0="75", width="65k", layers={12})
    everything = chosen("gemma-scope-2b-pt-mlp/layer_12/width_65k/*")
    assert near.l0 == min((one.l0 or 0 for one in everything), key=lambda l0: abs(l0 - 75))
    assert len(ids("gemma-scope-2b-pt-mlp", l0="75", width="16k")) == 26
    by_number = ids("gemma-scope-2-4b-pt-res-all", l0="100", width="16k")  # recorded: 10 to 20, and 60 to 120
    assert len(by_number) == 34 and all(one.endswith("l0_big") for one in by_number)
    with pytest.raises(IngestError, match=r"no l0 medium; there: small \(68\), big \(68\); --l0 N"):
        ids("gemma-scope-2-4b-pt-res-all", l0="medium")
    with pytest.raises(IngestError, match="neither small, medium, big nor a number"):
        Selection(l0="tiny")
    assert len(ids("gemma-scope-2b-pt-res-canonical", l0="70")) == 26  # nothing to choose by: as without it
    assert "gemma-scope-2b-pt-res-canonical records no l0" in caplog.text


def test_the_first_seed_and_the_last_checkpoint_are_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    assert not [one for one in ids("gemma-scope-2-4b-pt-res", l0="medium", width="262k") if "seed" in one]
    assert "several seeds" in caplog.text
    assert len(ids("gemma-scope-2-4b-pt-res/*seed_1")) == 4
    release = "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109"
    last = ids(release)
    assert len(last) == 18 and not [one for one in last if "step" in one] and "several checkpoints" in caplog.text
    assert [one for one in ids(release, checkpoint=308, layers={5})] == [
        f"blocks.5.hook_resid_post__trainer_{number}_step_308" for number in range(6)
    ]
    with pytest.raises(IngestError, match=r"no checkpoint 309; there: 0 \(\d+\)"):
        ids(release, checkpoint=309)


def test_globs_take_what_they_match(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert len(ids("gemma-scope-2-4b-pt-res/*l0_small*")) == 16
    assert len(ids("gemma-scope-2-4b-pt-res/*width_16k_l0_[sb]*", layers={9})) == 2
    assert not caplog.text
    with pytest.raises(IngestError, match=r"no id of gemma-scope-2-4b-pt-res matches '\*l0_tiny'"):
        ids("gemma-scope-2-4b-pt-res/*l0_tiny")


def test_embeddings_are_skipped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    assert not [one for one in ids("gemma-scope-2b-pt-res", l0="70") if "embedding" in one]
    assert "4 entries of embeddings skipped" in caplog.text


@pytest.mark.parametrize(
    ("address", "layers", "expected"),
    [
        ("gpt2-small-mlp-out-v5-32k", range(3), [f"blocks.{n}.hook_mlp_out" for n in range(3)]),  # not block 3
        ("gpt2-small-res-jb", range(-1, 2), [f"blocks.{n}.hook_resid_pre" for n in range(3)]),  # inputs of 0 to 2
        ("gpt2-small-res-jb", {11}, ["blocks.11.hook_resid_post"]),
        ("pythia-70m-deduped-res-sm", {0}, ["blocks.0.hook_resid_post"]),
        ("qwen-scope-3-8b-base-w64k-l50", {7}, ["layer7"]),
        ("llama-3.1-8b-instruct-andyrdt", {7, 8}, ["resid_post_layer_7_trainer_1"]),
        ("llama_scope_lxr_8x", {7}, ["l7r_8x"]),
    ],
)
def test_only_what_the_layers_ask_for(address: str, layers: set[int], expected: list[str]) -> None:
    assert ids(address, layers=layers) == expected


def test_sites_by_id(caplog: pytest.LogCaptureFixture) -> None:
    assert ids("gpt2-small-mlp-out-v5-32k", sites={"res"}) == []
    assert "nothing of gpt2-small-mlp-out-v5-32k has sites res; it has layers 0 to 11" in caplog.text
    assert ids("gemma-scope-2-4b-pt-att-all", width="32k") == []
    assert "nothing of gemma-scope-2-4b-pt-att-all has width 32k" in caplog.text
    assert "layers 0 to 33 and width 16k (68), 262k (68)" in caplog.text
    assert len(ids("gemma-scope-2-4b-pt-att-all", sites={"att"}, l0="big", width="16k")) == 34


def test_the_list_is_read_one_release_at_a_time() -> None:
    assert read_release("gpt2-small-res-jb")["repo_id"] == "jbloom/GPT2-Small-SAEs-Reformatted"

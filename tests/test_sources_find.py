"""Which dictionaries a folder holds, their ids, filters, and what is refused before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from folders import configuration, write_folder

from atlas import open_atlas
from atlas.errors import IngestError
from ingest import ingest
from ingest.matching.pairs import plan_pairs
from ingest.sources.find import find_sources, source_sha256
from ingest.sources.selection import Selection, has_width


def many(root: Path, **fields: Any) -> Path:
    """Three sites of two layers, at different depths of a folder."""
    for layer in (3, 4):
        for site, hook in (("res", "hook_resid_post"), ("mlp", "hook_mlp_out"), ("att", "hook_attn_out")):
            write_folder(root / f"layer{layer}" / site / "deep", configuration(f"blocks.{layer}.{hook}", **fields))
    return root


def test_any_depth_ordered_along_the_forward_pass(tmp_path: Path) -> None:
    found = find_sources([str(many(tmp_path / "a"))])
    assert [source.id for source in found] == [
        f"tiny-1m/{layer}-{site}-20" for layer in (3, 4) for site in ("att", "mlp", "res")
    ]
    assert [source.depth for source in found] == [9, 10, 11, 12, 13, 14]  # 3 · layer + (att 0, mlp 1, res 2)
    assert found[0].address == str(tmp_path / "a/layer3/att/deep")
    assert (found[0].d_model, found[0].model_name) == (12, "acme/Tiny-1M")


def test_ids(tmp_path: Path) -> None:
    plain = write_folder(tmp_path / "plain", configuration(d_sae=2048))
    listed = write_folder(tmp_path / "np", configuration(neuronpedia_id="gemma-2-2b/12-gemmascope-res-16k"))
    before = write_folder(tmp_path / "pre", configuration("blocks.1.hook_resid_pre", model_name="gpt2-small"))
    first = write_folder(tmp_path / "first", configuration("blocks.0.hook_resid_pre", model_name="gpt2-small"))
    assert [s.id for s in find_sources([str(plain)])] == ["tiny-1m/3-res-2k"]
    assert [s.id for s in find_sources([str(listed)])] == ["gemma-2-2b/12-gemmascope-res-16k"]
    (source,) = find_sources([str(before)])
    # the id keeps the hook's number, the layer is the block whose output the stream is
    assert (source.id, source.layer, source.site, source.depth) == ("gpt2-small/1-res-20", 0, "res", 2)
    assert source.model_name == "openai-community/gpt2"
    (source,) = find_sources([str(first)])
    assert (source.id, source.layer, source.depth) == ("gpt2-small/0-res-20", -1, -1)


def test_filters(tmp_path: Path) -> None:
    root = str(many(tmp_path))
    assert len(find_sources([root], Selection(layers=range(4, 9)))) == 3
    assert {s.site for s in find_sources([root], Selection(sites={"res", "att"}))} == {"res", "att"}
    assert len(find_sources([root], Selection(width="20"))) == 6
    with pytest.raises(IngestError, match=r"layers \[7\].*layer \[3, 4\]"):
        find_sources([root], Selection(layers={7}))


def test_width_labels() -> None:
    assert has_width(16384, "16k") and has_width(65536, "65k") and has_width(65536, "64K") and has_width(1 << 20, "1m")
    assert has_width(2048, "2048") and has_width(2048, "all")
    assert not has_width(16384, "65k") and not has_width(2048, "2")


def test_the_same_folder_twice_is_one_source(tmp_path: Path) -> None:
    root = many(tmp_path)
    assert len(find_sources([str(root), str(root / "layer3")])) == 6


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    real = write_folder(tmp_path / "elsewhere" / "sae", configuration())
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(real)
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root")
    assert len(find_sources([str(tmp_path / "root")])) == 1


def test_two_with_one_id(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", configuration())
    two = write_folder(tmp_path / "two", configuration())
    with pytest.raises(IngestError, match=f"{one} and {two} would both be tiny-1m/3-res-20.*--set NAME"):
        find_sources([str(tmp_path)])
    assert find_sources([str(two)], Selection(set_name="second"))[0].id == "tiny-1m/3-second"


def test_set_name_keeps_sites_apart_whatever_the_filters(tmp_path: Path) -> None:
    root = str(many(tmp_path))
    assert {s.id for s in find_sources([root], Selection(set_name="mine"))} >= {
        "tiny-1m/3-res-mine",
        "tiny-1m/4-att-mine",
    }
    assert [s.id for s in find_sources([root], Selection(set_name="mine", layers={3}, sites={"res"}))] == [
        "tiny-1m/3-res-mine"
    ]
    with pytest.raises(IngestError, match="--set"):
        find_sources([root], Selection(set_name="../mine"))


def test_model_of_the_user(tmp_path: Path) -> None:
    nameless = write_folder(tmp_path / "sae", configuration(model_name=None))
    with pytest.raises(IngestError, match="--model NAME_OR_FOLDER"):
        find_sources([str(nameless)])
    assert find_sources([str(nameless)], Selection(model="Acme/Big"))[0].id == "big/3-res-20"
    model = tmp_path / "My-Model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 12}))
    (source,) = find_sources([str(nameless)], Selection(model=str(model)))
    assert (source.id, source.model_name) == ("my-model/3-res-20", str(model))


def test_d_model_against_the_model_and_each_other(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": {"hidden_size": 16}}))
    sae = write_folder(tmp_path / "saes" / "a", configuration())
    with pytest.raises(IngestError, match=r"writes 12 numbers.*has 16"):
        find_sources([str(sae)], Selection(model=str(model)))
    write_folder(tmp_path / "saes" / "b", configuration("blocks.4.hook_resid_post", d_in=16))
    with pytest.raises(IngestError, match="write 12 and 16 numbers"):
        find_sources([str(tmp_path / "saes")])


@pytest.mark.parametrize("hook", ["blocks.3.hook_resid_mid2", "hook_embed", "blocks.3.attn.hook_q"])
def test_unknown_hooks(tmp_path: Path, hook: str) -> None:
    sae = write_folder(tmp_path / "sae", configuration(hook))
    with pytest.raises(IngestError, match=f"{sae}: hook '{hook}'.*hook_resid_post"):
        find_sources([str(sae)])


def test_an_unknown_place_of_a_transcoder_s_encoder(tmp_path: Path) -> None:
    cfg = configuration("blocks.3.hook_q_input", "transcoder", hook_name_out="blocks.3.hook_mlp_out")
    with pytest.raises(IngestError, match="hook_q_input"):
        find_sources([str(write_folder(tmp_path / "sae", cfg))])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"cfg.json beside sae_weights.safetensors"):
        find_sources([str(tmp_path)])
    (tmp_path / "ae.pt").write_bytes(b"x")
    with pytest.raises(IngestError, match=r"ae.pt is a pickle: refused"):
        find_sources([str(tmp_path)])
    (tmp_path / "cfg.json").write_text(json.dumps(configuration()))
    with pytest.raises(IngestError, match=r"no sae_weights.safetensors; ae.pt is a pickle"):
        find_sources([str(tmp_path)])
    with pytest.raises(IngestError, match="there is no folder"):
        find_sources([str(tmp_path / "missing")])
    with pytest.raises(IngestError, match="is a file"):
        find_sources([str(tmp_path / "ae.pt")])


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    sae = write_folder(tmp_path / "sae", configuration())
    (sae / "cfg.json").write_text(text)
    with pytest.raises(IngestError, match=str(sae / "cfg.json")):
        find_sources([str(sae)])


def test_sha256_follows_the_weights(tmp_path: Path) -> None:
    sae = write_folder(tmp_path / "sae", configuration())
    (source,) = find_sources([str(sae)])
    before = source_sha256(source)
    weights = sae / "sae_weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert len(before) == 64 and source_sha256(source) != before


REVISION: dict[str, Any] = {"model_from_pretrained_kwargs": {"revision": "step1000"}}


def test_a_revision_is_part_of_the_model(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", configuration("blocks.0.hook_resid_post"))
    write_folder(tmp_path / "b", configuration("blocks.1.hook_resid_post", **REVISION))
    checkpoint: dict[str, Any] = {"model_from_pretrained_kwargs": {"checkpoint_value": 3000}}
    write_folder(tmp_path / "c", configuration("blocks.2.hook_resid_post", **checkpoint))
    found = find_sources([str(tmp_path)])
    assert [(source.model, source.model_name) for source in found] == [
        ("tiny-1m", "acme/Tiny-1M"),
        ("tiny-1m@step1000", "acme/Tiny-1M@step1000"),
        ("tiny-1m@step3000", "acme/Tiny-1M@step3000"),
    ]
    pairs = plan_pairs(found, 5)  # type: ignore[arg-type]
    assert pairs == [], "no edges between two revisions"


def test_a_checkpoint_that_is_only_numbered_must_be_named(tmp_path: Path) -> None:
    checkpoint: dict[str, Any] = {"model_from_pretrained_kwargs": {"checkpoint_index": 12}}
    write_folder(tmp_path / "a", configuration(**checkpoint))
    with pytest.raises(IngestError, match="NAME@REVISION"):
        find_sources([str(tmp_path)])
    (source,) = find_sources([str(tmp_path)], Selection(model="acme/Tiny-1M@step512"))
    assert (source.id, source.model_name) == ("tiny-1m@step512/3-res-20", "acme/Tiny-1M@step512")


def test_two_models_do_not_share_a_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", configuration("blocks.0.hook_resid_post", model_name="alice/Tiny"))
    write_folder(tmp_path / "b", configuration("blocks.1.hook_resid_post", model_name="bob/tiny"))
    with pytest.raises(IngestError, match=r"alice/Tiny .* and bob/tiny .* are two models"):
        find_sources([str(tmp_path)])
    ingest([str(tmp_path / "a")], tmp_path / "atlas")
    with pytest.raises(IngestError, match="two models"):
        ingest([str(tmp_path / "b")], tmp_path / "atlas")
    with pytest.raises(IngestError, match="two models"):  # the name that the user gives counts, also on what is there
        ingest([str(tmp_path / "a")], tmp_path / "atlas", model="carol/tiny")


def test_a_model_s_folder_takes_the_place_of_its_hub_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", configuration())
    ingest([str(tmp_path / "a")], tmp_path / "atlas")
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    for expected in (True, False):
        report = ingest([str(tmp_path / "a")], tmp_path / "atlas", model=str(tmp_path / "models" / "tiny"))
        assert report.published == expected
    with open_atlas(tmp_path / "atlas") as atlas:
        assert atlas.read("MATCH (m:Model) RETURN m.id AS id, m.name AS name") == [
            {"id": "tiny-1m", "name": str(tmp_path / "models" / "tiny")}
        ]


def run_folder(root: Path, *steps: str) -> Path:
    for step in steps:
        write_folder(root / step, configuration())
    return root


def test_of_a_run_s_checkpoints_the_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_folder(tmp_path / "k3x", "1000", "900", "20000")
    assert [source.address for source in find_sources([str(tmp_path)])] == [str(run / "20000")]
    assert "3 checkpoints; taking 20000 (--checkpoint STEP)" in caplog.text
    assert [s.address for s in find_sources([str(run)], Selection(checkpoint=900))] == [str(run / "900")]
    assert [s.address for s in find_sources([str(run / "1000")])] == [str(run / "1000")]
    with pytest.raises(IngestError, match="no checkpoint 7; there: 900, 1000, 20000"):
        find_sources([str(run)], Selection(checkpoint=7))
    run_folder(run, "final_500")
    assert [source.address for source in find_sources([str(run)])] == [str(run / "final_500")]
    write_folder(tmp_path / "other", configuration())  # the end may lie above its checkpoints, in its inference form
    (run / "cfg.json").write_text(json.dumps(configuration(architecture="topk", k=3)))
    (tmp_path / "other" / "sae_weights.safetensors").rename(run / "sae_weights.safetensors")
    assert [source.address for source in find_sources([str(run)])] == [str(run)]


def test_a_checkpoint_where_there_is_none_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(find_sources([str(run_folder(tmp_path, "only"))], Selection(checkpoint=3))) == 1
    assert "--checkpoint 3 changes nothing" in caplog.text


def test_folders_named_by_layer_are_no_checkpoints(tmp_path: Path) -> None:
    for layer in (3, 4):
        write_folder(tmp_path / str(layer), configuration(f"blocks.{layer}.hook_resid_post"))
    assert [source.layer for source in find_sources([str(tmp_path)])] == [3, 4]

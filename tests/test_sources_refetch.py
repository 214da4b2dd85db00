"""Rows fetched again from a dictionary's source: the same to the last bit, or refused with the reason."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from neo4j_for_tests import Server, emptied
from saes import planted, unit, write_sae
from safetensors.numpy import load_file, save_file
from tiny_models import LAYERS, WIDTH, tiny_model, tiny_tokenizer

from atlas import open_atlas
from atlas.cli.main import _run
from atlas.errors import CorruptAtlas, FolderError, IngestError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.rows_cache import open_rows
from atlas.graph.copying import copy_atlas
from ingest import ingest

ID = "tiny-1m/1-mlp-64"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return planted(tmp_path / "saes", range(2))


@pytest.fixture
def record(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dictionary:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ingest([sources], tmp_path / "atlas")
    with open_atlas(tmp_path / "atlas") as atlas:
        return atlas.dictionaries[ID]


def test_fetched_once_and_the_same_to_the_last_bit(record: Dictionary, sources: Path, tmp_path: Path) -> None:
    fetched = open_rows(None, record)
    kept = Rows.open(tmp_path / "atlas" / "dictionaries" / ID, record)
    np.testing.assert_array_equal(fetched.decoder, kept.decoder)
    np.testing.assert_array_equal(fetched.encoder, kept.encoder)
    shutil.rmtree(sources)
    np.testing.assert_array_equal(open_rows(None, record).decoder, kept.decoder)  # from the cache


def test_a_damaged_cache_is_fetched_again(record: Dictionary, tmp_path: Path) -> None:
    wanted = np.array(open_rows(None, record).encoder)
    (cached,) = (tmp_path / "cache").rglob("encoder.npy")
    cached.unlink()
    np.testing.assert_array_equal(open_rows(None, record).encoder, wanted)


def test_a_source_that_is_gone_is_named(record: Dictionary, sources: Path) -> None:
    shutil.rmtree(sources)
    with pytest.raises(IngestError, match=rf"rows of {ID} are not here.*blocks\.1\.hook_mlp_out"):
        open_rows(None, record)


def test_a_source_that_changed_is_refused(record: Dictionary, sources: Path, tmp_path: Path) -> None:
    shutil.rmtree(sources / "blocks.1.hook_mlp_out")
    write_sae(sources, 1, "mlp", np.eye(64, 48) + 0.01)
    with pytest.raises(IngestError, match="has changed since"):
        open_rows(None, record)
    assert not list((tmp_path / "cache").rglob("decoder.npy"))


def test_an_encoder_of_its_own_beside_an_equal_decoder(record: Dictionary, tmp_path: Path) -> None:
    """The cache knows dictionaries by both."""
    rows = unit(np.random.default_rng(5).normal(size=(64, 48)))
    folders = [write_sae(tmp_path / "twins", 3, "mlp", rows, name=name) for name in ("one", "two")]
    weights = load_file(folders[1] / "sae_weights.safetensors")
    save_file(weights | {"W_enc": weights["W_enc"] * 2}, folders[1] / "sae_weights.safetensors")
    found = []
    for folder in folders:
        ingest([folder], tmp_path / f"atlas-{folder.name}")
        with open_atlas(tmp_path / f"atlas-{folder.name}") as atlas:
            found.append(open_rows(None, atlas.dictionaries["tiny-1m/3-mlp-64"]).encoder)
    np.testing.assert_array_equal(found[1], 2 * found[0][:])


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows_sha256": "/../../victim"},
        {"sha256": "a/.."},
        {"id": "../victim"},
        {"id": "/victim"},
        {"id": 3},
        {"architecture": "x/../../victim"},
    ],
)
def test_what_a_record_names_stays_in_its_place(record: Dictionary, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(CorruptAtlas, match="that no ingest writes"):
        replace(record, **wrong)
    place = tmp_path / "atlas" / "dictionaries" / ID / "dictionary.json"
    place.write_text(json.dumps(asdict(record) | wrong))
    with open_atlas(tmp_path / "atlas") as atlas, pytest.raises(CorruptAtlas, match="that no ingest writes"):
        atlas.rows(ID)


@pytest.mark.parametrize(
    "wrong", [{"pairs": ["../../victim"]}, {"pairs": [".."]}, {"dictionaries": ["a/../../b"]}, {"state": "/../victim"}]
)
def test_what_a_manifest_names_stays_in_its_place(record: Dictionary, tmp_path: Path, wrong: dict[str, Any]) -> None:
    manifest = tmp_path / "atlas" / "feature-atlas.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | wrong))
    with pytest.raises(CorruptAtlas, match="that no ingest writes"):
        open_atlas(tmp_path / "atlas")


@pytest.mark.parametrize("wrong", [{"rows_sha256": "0" * 64}, {"architecture": "gated"}])
def test_a_source_that_gives_other_rows_is_refused(record: Dictionary, tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The weights are the same, the model that mapped them or the configuration is not."""
    with pytest.raises(IngestError, match="gives other rows"):
        open_rows(None, replace(record, **wrong))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_constant_beside_the_weights_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dictionaries of the same weights, their inputs scaled by 2 and by 8: their rows differ, and so their keys."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = unit(np.random.default_rng(5).normal(size=(64, 48)))
    found = []
    for factor in (2.0, 8.0):
        folder = write_sae(tmp_path / f"saes-{factor}", 3, "mlp", rows)
        config = json.loads((folder / "cfg.json").read_text())
        scaled = config | {"normalize_activations": "expected_average_only_in"}
        (folder / "cfg.json").write_text(json.dumps(scaled))
        (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
        ingest([folder], tmp_path / f"atlas-{factor}")
        with open_atlas(tmp_path / f"atlas-{factor}") as atlas:
            found.append(open_rows(None, atlas.dictionaries["tiny-1m/3-mlp-64"]).encoder)
            np.testing.assert_array_equal(found[-1], atlas.rows("tiny-1m/3-mlp-64").encoder)
    np.testing.assert_array_equal(found[1], 4 * found[0][:])


def test_one_process_at_a_time_fetches(record: Dictionary, tmp_path: Path) -> None:
    wanted = np.array(open_rows(None, record).encoder)
    (decoder,) = (tmp_path / "cache").rglob("decoder.npy")
    shutil.rmtree(decoder.parent)
    with ThreadPoolExecutor(1) as pool:
        with FileLock(f"{decoder.parent}.lock"):
            fetched = pool.submit(open_rows, None, record)
            time.sleep(0.5)
            assert not fetched.done() and not decoder.exists()
        np.testing.assert_array_equal(fetched.result(30).encoder, wanted)


def test_a_cache_that_cannot_be_written_is_named(record: Dictionary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/x")
    with pytest.raises(FolderError, match="cannot write to /dev/null/x"):
        open_rows(None, record)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    folder = tmp_path / "tiny-llama"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer(padding=True).save_pretrained(folder)
    return folder


def test_steering_needs_the_graph_and_the_source_alone(
    model: Path,
    tmp_path: Path,
    neo4j_lts: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From a server's address the command says to the last digit what it says from the folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    rows = unit(random.normal(size=(64, WIDTH)))
    for layer in range(LAYERS):
        noise = 0.05 * random.normal(size=rows.shape)
        write_sae(tmp_path / "saes", layer, "res", unit(rows + noise), model=str(model))
    ingest([tmp_path / "saes"], tmp_path / "atlas")
    uri = emptied(neo4j_lts)
    with open_atlas(tmp_path / "atlas") as atlas:
        copy_atlas(atlas, uri)

    def steered(where: str, mode: str) -> tuple[int, str, str]:
        options = ["--lineage", "tiny-llama/1-res-64/7", "--mode", mode, "--strength", "4", "--tokens", "8"]
        code = _run(["steer", "w5 w9 w3", *options, "-a", where, "--format", "json"])
        return code, *capsys.readouterr()

    shutil.move(tmp_path / "atlas", tmp_path / "elsewhere")
    for mode in ("add", "clamp"):  # decoder rows; encoder rows too
        code, wanted, _ = steered(str(tmp_path / "elsewhere"), mode)
        assert code == 0 and sum(hook["calls"] for hook in json.loads(wanted)["hooks"]) > LAYERS - 1
        assert steered(uri, mode)[:2] == (0, wanted)
    assert len(list((tmp_path / "cache").rglob("decoder.npy"))) == LAYERS

    shutil.rmtree(tmp_path / "cache")
    shutil.move(tmp_path / "saes", tmp_path / "moved")
    code, out, said = steered(uri, "add")
    assert (code, out) == (1, "") and "not in reach" in said and str(tmp_path / "saes") in said
    assert len(said.splitlines()) == 1

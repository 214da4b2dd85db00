"""Releases of SAELens's registry that need no import of SAELens: looked up, refused, read from a hub cache, offline."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from folders import configuration, tensors, write_folder
from hubcache import cache_folder, use_cache
from tiny_models import tiny_model

from atlas.errors import IngestError
from atlas.folder.dictionary import Rows
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import find_sources, source_sha256
from ingest.sources.model_weights import head_map, known_width
from ingest.sources.releases import hub
from ingest.sources.selection import Selection

PATIENCE = 2.0  # a machine that runs other tests meanwhile is so many times slower
JB = "jbloom/GPT2-Small-SAEs-Reformatted"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_cache(tmp_path / "hub", monkeypatch)


def fill_res_jb(cache: Path, tmp_path: Path, layers: range) -> None:
    """Tiny dictionaries where gpt2-small-res-jb's lie, with the flat configuration that they have."""
    for layer in layers:
        hook = f"blocks.{layer}.hook_resid_pre"
        flat = {"hook_point": hook, "hook_point_layer": layer, "hook_point_head_index": None, "d_in": 12, "d_sae": 20}
        flat |= {"model_name": "gpt2-small", "dtype": "torch.float32", "device": "cuda"}
        folder = write_folder(tmp_path / hook, flat, tensors(flat, seed=layer))
        cache_folder(cache, JB, folder, hook)


def test_gpt2_small_res_jb_from_the_cache(cache: Path, tmp_path: Path) -> None:
    fill_res_jb(cache, tmp_path, range(3))
    sources = find_sources([f"gpt2-small-res-jb/blocks.{layer}.hook_resid_pre" for layer in range(3)])
    assert [source.id for source in sources] == [f"gpt2-small/{number}-res-jb" for number in range(3)]
    assert [source.layer for source in sources] == [-1, 0, 1]
    record = write_dictionary(sources[1], tmp_path / "out")
    assert record.centred_input and record.apply_b_dec_to_input
    assert (record.release, record.sae_id) == ("gpt2-small-res-jb", "blocks.1.hook_resid_pre")
    assert record.source == "gpt2-small-res-jb/blocks.1.hook_resid_pre"
    assert record.neuronpedia_id == record.id and record.sha256 == source_sha256(sources[1])
    weights = tensors({"d_in": 12, "d_sae": 20}, seed=1)
    np.testing.assert_array_equal(Rows.open(tmp_path / "out", record).encoder, weights["W_enc"].T)


def test_layers_leave_out_before_anything_is_fetched(cache: Path, tmp_path: Path) -> None:
    fill_res_jb(cache, tmp_path, range(3))  # of 13: the others are not in the cache
    # layers −1 and 0 are the inputs of blocks 0 and 1; block 2's, layer 1, is not asked for
    found = find_sources(["gpt2-small-res-jb"], Selection(layers={-1, 0}))
    assert [source.layer for source in found] == [-1, 0]


def test_what_the_cache_lacks_is_said(cache: Path) -> None:
    with pytest.raises(IngestError, match=r"gpt2-small-res-jb/blocks.0.hook_resid_pre could not be had.*cache"):
        find_sources(["gpt2-small-res-jb"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gemma-scope-2b-res-canonical", "gemma-scope-2b-pt-res-canonical"),
        ("gpt2-smal-res-jb", "close to it: gpt2-small-res-jb"),
        ("xyzzy", r"lists \d+"),
        ("gpt2-small-res-jb/blocks.1.resid_pre", r"closest: .*blocks\.1\.hook_resid_pre"),
        ("pythia-70m/x", "neither a folder nor a release"),
        ("mntss-gemma-2-2b-2.5m-clt-as-per-layer", "several layers"),
        ("temporal-sae-gemma-2-2b", "attention"),
    ],
)
def test_words_that_cannot_be_taken(word: str, message: str) -> None:
    with pytest.raises(IngestError, match=message):
        find_sources([word])


def test_a_folder_wins_over_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "gpt2-small-res-jb", configuration())
    monkeypatch.chdir(tmp_path)
    assert [source.id for source in find_sources(["gpt2-small-res-jb"])] == ["tiny-1m/3-res-20"]


def test_looking_up_a_release_does_not_import_sae_lens() -> None:
    code = (
        "import sys; from ingest.sources.find import find_sources\n"
        "try: find_sources(['gpt2-smal-res-jb'])\n"
        "except Exception as error: print(error)\n"
        "print([name for name in ('sae_lens', 'torch', 'transformers') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gpt2-small-res-jb" in printed and printed.rstrip().endswith("[]")


def test_a_model_in_the_hub_cache(cache: Path, tmp_path: Path) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path / "model")
    assert known_width("openai-community/gpt2") is None
    cache_folder(cache, "openai-community/gpt2", tmp_path / "model")
    assert known_width("openai-community/gpt2") == 32
    here, there = head_map(str(tmp_path / "model"), 1), head_map("openai-community/gpt2", 1)
    np.testing.assert_array_equal(here.projection, there.projection)


def test_a_pickled_file_in_a_release_of_safetensors(cache: Path, tmp_path: Path) -> None:
    fill_res_jb(cache, tmp_path, range(1))
    (source,) = find_sources(["gpt2-small-res-jb/blocks.0.hook_resid_pre"])
    source.origin.files()[0].write_bytes(b"\x80\x04K\x01.")  # pickle.dumps(1)
    with pytest.raises(IngestError, match="not a safetensors file"):
        write_dictionary(source, tmp_path / "out")


def test_releases_of_the_readme_are_listed() -> None:
    from ingest.sources.releases.listing import read_release

    for release in ("gpt2-small-res-jb", "gemma-scope-2b-pt-res-canonical"):
        assert re.search("neuronpedia", json.dumps(read_release(release)["saes"][0]))


def test_offline_is_never_contradicted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAELens's loader of Gemma 3 asks the hub for shapes even when offline."""
    asked: list[object] = []

    def note(*address: object, **_: object) -> list[object]:
        asked.append(address)
        return []

    monkeypatch.setattr(socket.socket, "connect", note)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    started = time.monotonic()
    with pytest.raises(IngestError, match=r"could not be had.*cache"):
        find_sources(["gemma-scope-2-270m-pt-res/layer_12_width_16k_l0_big"])
    assert not asked and time.monotonic() - started < 20  # of which most is the import of SAELens


@pytest.mark.parametrize(
    "word", ["gpt2-smal-res-jb", "no/such/folder", "./nothing-here", "gpt2-small-res-jb/blocks.0.x"]
)
def test_a_mistake_is_answered_at_once_without_a_network(word: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody listens
    code = "from atlas.cli.main import main; main()"
    command = [sys.executable, "-c", code, "ingest", word, "-a", str(tmp_path / "atlas")]
    started = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert ended.returncode == 1 and ended.stderr.startswith("Error: ")
    assert time.monotonic() - started < 2 * PATIENCE


def test_without_a_network_the_cache_is_asked_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path / "hub", monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("endpoint", "offline", "until"):
        monkeypatch.setattr(hub._Found, name, getattr(hub._Found, name))  # as it was, afterwards
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    fill_res_jb(tmp_path / "hub", tmp_path, range(1))
    started = time.monotonic()
    assert len(find_sources(["gpt2-small-res-jb/blocks.0.hook_resid_pre"])) == 1
    with pytest.raises(IngestError, match="could not be had"):
        find_sources(["gpt2-small-res-jb"])
    assert time.monotonic() - started < 2 * PATIENCE
    assert huggingface_hub.constants.HF_HUB_OFFLINE  # from now on, as if the user had said so

"""Torch files of releases: read as SAELens reads them, and hostile ones refused without effect."""

from __future__ import annotations

import io
import json
import os
import pickle
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hubcache import cached, use_cache

from atlas.errors import IngestError
from atlas.folder.dictionary import Rows
from atlas.folder.stored_rows import as_float32
from hooked.encoder import Encoder
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import find_sources
from ingest.sources.releases import pickle_worker
from ingest.sources.releases.pickles import open_pickle

D, N = 12, 40


def random(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name.replace("__", "."): torch.randn(shape, generator=generator) for name, shape in shapes.items()}


LINEAR = {"encoder__weight": (N, D), "encoder__bias": (N,), "decoder__weight": (D, N)}
SAELENS = {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}


def dictionary_learning(kind: str, **fields: Any) -> dict[str, Any]:
    trainer = {"layer": 12, "dict_class": kind, "activation_dim": D, "dict_size": N, "lm_name": "google/gemma-2-2b"}
    return {"trainer": trainer | fields, "buffer": {"ctx_len": 128}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "state", "fields"),
    [
        ("AutoEncoder", random(**LINEAR, bias=(D,)), {}),
        ("GatedAutoEncoder", random(encoder__weight=(N, D), decoder__weight=(D, N), decoder_bias=(D,), mag_bias=(N,),
                                    gate_bias=(N,), r_mag=(N,)), {}),
        ("AutoEncoderTopK", random(**LINEAR, b_dec=(D,)) | {"k": torch.tensor(5), "threshold": torch.tensor(-1.0)},
         {"k": 5}),
        ("BatchTopKSAE", random(**LINEAR, b_dec=(D,)) | {"k": torch.tensor(5), "threshold": torch.tensor(0.7)}, {}),
        ("JumpReluAutoEncoder", random(**SAELENS) | {"threshold": torch.rand(N)}, {}),
    ],
)  # fmt: skip
def test_dictionary_learning_encodes_as_saelens(
    kind: str,
    state: dict[str, torch.Tensor],
    fields: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = use_cache(tmp_path / "hub", monkeypatch)
    release, sae_id = "saebench_gemma-2-2b_width-2pow12_date-0108", "blocks.12.hook_resid_post__trainer_0"
    repository = "adamkarvonen/saebench_gemma-2-2b_width-2pow12_date-0108"
    (source_path,) = paths(release, sae_id)
    where = cached(cache, repository, f"{source_path}/config.json")
    where.write_text(json.dumps(dictionary_learning(kind, **fields)))
    torch.save(state, where.with_name("ae.pt"))
    assert_as_saelens(release, sae_id, tmp_path)


@pytest.mark.slow
def test_qwen_scope_and_hook_z_shapes(tmp_path: Path) -> None:
    torch.save(random(W_enc=(N, D), W_dec=(D, N), b_enc=(N,), b_dec=(D,)), tmp_path / "layer0.sae.pt")
    with open_pickle(tmp_path / "layer0.sae.pt", "qwen_scope", "topk") as tensors:
        assert tensors.shapes == {"W_enc": (D, N), "W_dec": (N, D), "b_enc": (N,), "b_dec": (D,)}
    state = random(**LINEAR, decoder__bias=(D,))
    torch.save({name: value.bfloat16() for name, value in state.items()}, tmp_path / "linear.pt")
    with open_pickle(tmp_path / "linear.pt", "deepseek_r1", "standard") as tensors:
        np.testing.assert_array_equal(tensors.whole("W_dec"), state["decoder.weight"].bfloat16().float().numpy().T)
        np.testing.assert_array_equal(as_float32(tensors.rows("W_dec", 3, 9)), tensors.whole("W_dec")[3:9])


def test_qwen_scope_from_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path / "hub", monkeypatch)
    found = find_sources(["qwen-scope-3-1.7b-base-w32k-l50"])
    assert len(found) == 28 and found[3].id == "qwen3-1.7b-base/3-res-32k"
    assert (found[3].configuration.encoder, found[3].configuration.k) == ("topk", 50)


def paths(release: str, sae_id: str) -> list[str]:
    from ingest.sources.releases.listing import read_release

    return [entry["path"] for entry in read_release(release)["saes"] if entry["id"] == sae_id]


def assert_as_saelens(release: str, sae_id: str, tmp_path: Path) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    (source,) = find_sources([f"{release}/{sae_id}"])
    record = write_dictionary(source, tmp_path / "out")
    rows = Rows.open(tmp_path / "out", record)
    sae = sae_lens.SAE.from_pretrained(release, sae_id)
    hidden = torch.randn(50, D, generator=torch.Generator().manual_seed(1)) * 2
    with torch.no_grad():
        expected = sae.encode(hidden)
    assert (expected > 0).any()
    torch.testing.assert_close(Encoder.of(record, rows)(hidden).values, expected, atol=2e-5, rtol=1e-4)
    unit = sae.W_dec.detach().numpy()
    np.testing.assert_allclose(rows.decoder * rows.vectors["norms"][:, None], unit, atol=1e-5)


class Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def hostile_zip(path: Path, data: bytes, *, records: dict[str, bytes] | None = None) -> Path:
    """A torch file with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
        for name, content in (records or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def rebuilt(numel: int, size: tuple[int, ...], stride: tuple[int, ...], *view: None) -> bytes:
    """A pickle of one tensor that claims a storage of `numel` and a shape of its own; `view` ends an older key."""

    class Storage:
        pass

    storage = Storage()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel, *view) if value is storage else None

    class Claims:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (storage, 0, size, stride, False, OrderedDict())

    written = io.BytesIO()
    Pickler(written, protocol=2).dump({"W_dec": Claims()})
    return written.getvalue()


def refused(path: Path, match: str) -> None:
    started = time.monotonic()
    with (
        pytest.raises(IngestError, match=f"{path} is refused: .*{match}"),
        open_pickle(path, "dictionary_learning_1", "standard"),
    ):
        pass
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_code_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    nested = {"W_dec": torch.zeros(2), "more": [[{"a": (Touch(made),)}]]}
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Touch(made)))  # the form of before torch 1.6
    refused(tmp_path / "plain.pt", "")
    refused(hostile_zip(tmp_path / "zip.pt", pickle.dumps(Touch(made), protocol=2)), "it calls posix.mkdir")
    torch.save(nested, tmp_path / "saved.pt")
    refused(tmp_path / "saved.pt", "it calls posix.mkdir")
    assert not made.exists()


@pytest.mark.slow
def test_nor_with_torch_s_variable_that_lifts_the_restriction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Touch(tmp_path / "made"), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "mkdir")
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_huge_claims_end_the_reader_alone(tmp_path: Path) -> None:
    few = np.zeros(4, np.float32).tobytes()
    # a view that repeats four numbers over 4 TB
    repeated = rebuilt(4, (1 << 20, 1 << 20), (0, 0))
    refused(hostile_zip(tmp_path / "view.pt", repeated, records={"data/0": few}), "claim more than the file holds")
    # a storage of 1 GB of zeros, 1 MB in a compressed archive
    zeros = {"data/0": bytes(1 << 30)}
    bomb = rebuilt(1 << 28, (1 << 28,), (1,))
    refused(hostile_zip(tmp_path / "bomb.pt", bomb, records=zeros), "unpacks to more")
    # the form of before torch 1.6, whose loader makes the storage that is claimed: 64 GB
    parts = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    claim = rebuilt(1 << 34, (4,), (1,), None)
    (tmp_path / "old.pt").write_bytes(head + claim + pickle.dumps(["0"], protocol=2) + bytes(8) + few)
    refused(tmp_path / "old.pt", "memory")
    refused(hostile_zip(tmp_path / "list.pt", pickle.dumps({"a": [0] * 200_000}, protocol=2)), "too many")


@pytest.mark.slow
def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    depth = 200_000
    deep = b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."  # lists in lists
    refused(hostile_zip(tmp_path / "deep.pt", deep), "")


@pytest.mark.slow
def test_what_is_no_file_of_torch(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_bytes(b"not a torch file")
    refused(tmp_path / "text.pt", "")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with (
        pytest.raises(IngestError, match="no tensors"),
        open_pickle(tmp_path / "none.pt", "dictionary_learning_1", "standard"),
    ):
        pass
    torch.save(random(W_enc=(D, N)), tmp_path / "half.pt")
    with (
        pytest.raises(IngestError, match=r"no tensor 'decoder.weight'; it holds: W_enc"),
        open_pickle(tmp_path / "half.pt", "dictionary_learning_1", "standard"),
    ):
        pass


def test_a_reader_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    worker = tmp_path / "worker.py"
    worker.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(pickle_worker, "__file__", str(worker))
    monkeypatch.setattr(pickle_worker, "seconds", lambda size: 0.25)
    refused(tmp_path / "a.pt", "did not end within 1.0 s")

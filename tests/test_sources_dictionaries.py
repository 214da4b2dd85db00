"""What is written for one source: unit rows, norms, encoder parameters, dead features; and damaged weights refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import D_MODEL, D_SAE, configuration, tensors, write_folder
from safetensors.torch import save_file

from atlas.errors import CorruptAtlas, IngestError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.stored_rows import as_float32, rows_sha256
from hooked.encoder import Encoder
from ingest.sources import rows as rows_module
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import find_sources, source_sha256
from ingest.sources.tensors import open_safetensors

_MADE = {"decoder_divisors", "encoder_factors"}


def written(folder: Path, out: Path) -> tuple[Dictionary, Rows]:
    (source,) = find_sources([str(folder)])
    record = write_dictionary(source, out / source.id)
    assert Dictionary.load(out / source.id) == record
    return record, Rows.open(out / source.id, record)


def test_rows_norms_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_BLOCK", 7 * D_MODEL)  # blocks of 7 rows, the last of 6
    weights = tensors(cfg := configuration(architecture="jumprelu"))
    folder = write_folder(tmp_path / "sae", cfg, weights)
    record, rows = written(folder, tmp_path)
    exact = weights["W_dec"].astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    np.testing.assert_allclose(rows.decoder, exact / norms[:, None], atol=1e-7)
    np.testing.assert_allclose(rows.vectors["norms"], norms, rtol=1e-6)
    np.testing.assert_array_equal(rows.encoder, weights["W_enc"].T)
    for name in ("b_enc", "threshold", "b_dec"):
        np.testing.assert_array_equal(rows.vectors[name], weights[name])
    assert (record.d_sae, record.d_model, record.d_in, record.dead_rows, record.mapped) == (
        D_SAE,
        D_MODEL,
        D_MODEL,
        0,
        None,
    )
    assert (record.source, record.architecture) == (str(folder), "jumprelu")
    assert record.sha256 == hashlib.sha256((folder / "sae_weights.safetensors").read_bytes()).hexdigest()
    decoder = tmp_path / record.id / "decoder.npy"
    np.testing.assert_array_equal(np.load(decoder), weights["W_dec"])  # as the source has them
    # The digest is of a .npy file of the unit rows, which is what versions before wrote.
    np.save(tmp_path / "unit.npy", rows.decoder[:])
    assert record.rows_sha256 == hashlib.sha256((tmp_path / "unit.npy").read_bytes()).hexdigest()
    assert sorted(path.name for path in decoder.parent.iterdir()) == [
        "decoder.npy",
        "dictionary.json",
        "encoder.npy",
        "vectors.npz",
    ]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 4), (torch.float8_e4m3fn, 1), (torch.float8_e5m2, 1)],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rescale_acts_by_decoder_norm": True, "architecture": "topk", "k": 4},
        {"normalize_activations": "expected_average_only_in", "scaling_factor": 3.0},
    ],
)
def test_rows_are_kept_in_the_source_s_dtype_and_read_as_float32_would_be(
    tmp_path: Path, dtype: torch.dtype, size: int, changes: dict[str, Any]
) -> None:
    """The same file twice, once as float32: rows, encoder and digests are equal to the last bit, the size is not."""
    cfg = configuration(**changes)
    weights = {name: torch.from_numpy(each) for name, each in tensors(cfg).items()}
    weights["W_dec"][5], weights["W_enc"][:, 6] = 0, float("nan")
    for name in ("W_dec", "W_enc"):
        weights[name] = weights[name].to(dtype)
    found = []
    for name, each in (("kept", weights), ("wide", {name: each.float() for name, each in weights.items()})):
        folder = write_folder(tmp_path / name, cfg, tensors(cfg))
        save_file({name: each.contiguous() for name, each in each.items()}, folder / "sae_weights.safetensors")
        found.append(written(folder, tmp_path / f"{name}-out"))
        place = tmp_path / f"{name}-out" / found[-1][0].id
        for file in ("decoder.npy", "encoder.npy"):
            assert (place / file).stat().st_size == 128 + D_SAE * D_MODEL * (size if name == "kept" else 4)
    (record, rows), (wide_record, wide) = found
    assert record.rows_sha256 == wide_record.rows_sha256 == rows_sha256(rows.decoder)
    for name in ("decoder", "encoder"):
        one, other = getattr(rows, name), getattr(wide, name)
        assert one[:].dtype == other[:].dtype == np.float32 and one.shape == other.shape == (D_SAE, D_MODEL)
        np.testing.assert_array_equal(one[:].view(np.uint32), other[:].view(np.uint32))
        for index in (3, [7, 1], slice(2, 9), np.arange(D_SAE) % 3 == 0):
            np.testing.assert_array_equal(one[index], other[:][index])
        np.testing.assert_array_equal(one @ np.ones(D_MODEL, np.float32), one[:] @ np.ones(D_MODEL, np.float32))
        np.testing.assert_array_equal(one.T, np.asarray(one).T)
    rows.check(record)
    rows.check(record, encoder=True)
    assert not rows.decoder[5].any() and not rows.encoder[6].any() and not rows.alive[5]
    lengths = np.linalg.norm(rows.decoder[rows.alive].astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_rows_that_an_earlier_version_wrote_are_read_as_they_are(tmp_path: Path) -> None:
    """Unit rows as float32 and no divisors: format 4."""
    cfg = configuration(architecture="topk", k=4, rescale_acts_by_decoder_norm=True)
    record, rows = written(write_folder(tmp_path / "sae", cfg, tensors(cfg)), tmp_path)
    place, vectors = tmp_path / record.id, dict(rows.vectors)
    decoder, encoder = rows.decoder.copy(), rows.encoder.copy()
    assert {"decoder_divisors", "encoder_factors"} <= set(vectors)
    np.save(place / "decoder.npy", decoder)
    np.save(place / "encoder.npy", encoder)
    np.savez(place / "vectors.npz", **{name: vectors[name] for name in set(vectors) - _MADE})  # type: ignore[arg-type]
    older = Rows.open(place, record)
    older.check(record)
    older.check(record, encoder=True)
    np.testing.assert_array_equal(older.decoder, decoder)
    np.testing.assert_array_equal(older.encoder, encoder)
    for dtype in ("<i4", "<U3", [("float16", "<u2")], [("bfloat16", "<u2"), ("x", "u1")]):
        np.save(place / "encoder.npy", np.zeros((D_SAE, D_MODEL), dtype))
        with pytest.raises(CorruptAtlas, match="no numbers that an ingest writes"):
            Rows.open(place, record)
    np.save(place / "encoder.npy", encoder)
    for name, shape in (("decoder_divisors", (1, D_SAE + 1)), ("encoder_factors", (D_SAE - 1,))):
        np.savez(place / "vectors.npz", **vectors | {name: np.ones(shape, np.float32)})  # type: ignore[arg-type]
        with pytest.raises(CorruptAtlas, match="another shape"):
            Rows.open(place, record)


def test_dead_rows_are_zeroed_and_counted(tmp_path: Path) -> None:
    weights = tensors(cfg := configuration())
    weights["W_dec"][0] = 0
    weights["W_dec"][1, 4] = np.nan
    weights["W_dec"][2, 0] = np.inf
    weights["W_dec"][3] = 3e38  # finite, but its norm is beyond float32: 3e38 · √12
    weights["W_dec"][4] = 1e-30  # small is alive: the direction is what counts
    record, rows = written(write_folder(tmp_path / "sae", cfg, weights), tmp_path)
    assert record.dead_rows == 4
    assert list(np.flatnonzero(~rows.alive)) == [0, 1, 2, 3]
    assert not rows.decoder[:4].any()
    np.testing.assert_allclose(rows.decoder[4], np.full(D_MODEL, 1 / np.sqrt(D_MODEL)), rtol=1e-6)


def test_encoder_rows_that_are_not_finite_never_fire(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = tensors(cfg := configuration(architecture="jumprelu"))
    weights["W_enc"][2, 5] = np.nan
    weights["b_enc"][6] = np.inf
    record, rows = written(write_folder(tmp_path / "sae", cfg, weights), tmp_path)
    assert record.dead_rows == 0 and "2 features have an encoder row" in caplog.text
    assert not rows.encoder[5].any()
    for index in (5, 6):
        # max(0, x·w − ∞) is 0 whatever x·w is
        assert rows.vectors["b_enc"][index] == -np.inf and rows.vectors["threshold"][index] == 0
    weights["b_dec"][0] = np.nan
    with pytest.raises(IngestError, match="b_dec"):
        written(write_folder(tmp_path / "other", cfg, weights), tmp_path)


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16, torch.float64]
)
def test_every_dtype_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    cfg = configuration()
    weights = {name: torch.from_numpy(value).to(dtype) for name, value in tensors(cfg).items()}
    folder = write_folder(tmp_path / "sae", cfg)
    save_file(weights, folder / "sae_weights.safetensors")
    _, rows = written(folder, tmp_path)
    exact = weights["W_dec"].double().numpy()
    np.testing.assert_allclose(rows.decoder, exact / np.linalg.norm(exact, axis=1)[:, None], atol=1e-7)
    np.testing.assert_array_equal(rows.encoder, weights["W_enc"].float().T.numpy())


@pytest.mark.parametrize(
    ("dtype", "codes"),
    [
        (torch.float8_e4m3fn, np.arange(256, dtype=np.uint8)),
        (torch.float8_e5m2, np.arange(256, dtype=np.uint8)),
        (torch.bfloat16, np.arange(1 << 16, dtype=np.uint16)),
        (torch.float16, np.arange(1 << 16, dtype=np.uint16)),
    ],
)
def test_every_code_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype, codes: np.ndarray) -> None:
    """All values of a type, NaN and infinities among them, whole, by rows and by columns, scalars too."""
    values = torch.from_numpy(codes).view(dtype).reshape(16, -1)
    save_file({"matrix": values, "scalar": values[3, 5].clone()}, tmp_path / "file.safetensors")
    expected = values.float().numpy()
    with open_safetensors(tmp_path / "file.safetensors") as found:
        assert found.shapes == {"matrix": expected.shape, "scalar": ()}
        np.testing.assert_array_equal(found.whole("matrix"), expected)
        np.testing.assert_array_equal(found.whole("scalar"), expected[3, 5])
        rows, columns = found.rows("matrix", 2, 9), found.columns("matrix", 1, 7)
        assert rows.dtype == columns.dtype and rows.dtype.itemsize == values.element_size()  # as the file has them
        np.testing.assert_array_equal(as_float32(rows), expected[2:9])
        np.testing.assert_array_equal(as_float32(columns), expected[:, 1:7].T)


def test_a_type_without_float32_values_is_refused(tmp_path: Path) -> None:
    save_file({"W_dec": torch.zeros(3, dtype=torch.complex64)}, tmp_path / "file.safetensors")
    with (
        pytest.raises(IngestError, match=r"W_dec of .* is of type C64; known are BF16"),
        open_safetensors(tmp_path / "file.safetensors"),
    ):
        pass


def test_a_transcoder_keeps_no_b_dec(tmp_path: Path) -> None:
    out = {"hook_name_out": "blocks.3.hook_mlp_out", "d_out": 10}
    cfg = configuration("blocks.3.hook_mlp_in", "jumprelu_transcoder", **out)
    record, rows = written(write_folder(tmp_path / "sae", cfg), tmp_path)
    assert (record.site, record.d_model, record.d_in, record.hook_name_in) == ("mlp", 10, 12, "blocks.3.hook_mlp_in")
    assert rows.decoder.shape == (D_SAE, 10) and rows.encoder.shape == (D_SAE, 12)
    assert "b_dec" not in rows.vectors and not record.apply_b_dec_to_input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"W_dec": np.zeros((D_SAE, D_MODEL + 1))},
            r"W_dec .* has shape \(20, 13\); its configuration says \(20, 12\)",
        ),
        ({"W_enc": np.zeros((D_SAE, D_MODEL))}, r"W_enc .* has shape \(20, 12\)"),
        ({"W_dec": np.zeros((D_SAE, 3, D_MODEL))}, "several layers"),
        ({"b_enc": None}, "b_enc .* is missing"),
        ({"b_dec": np.zeros(D_SAE)}, r"b_dec .* has shape \(20,\)"),
        ({"scaling_factor": np.full(D_SAE, 2.0)}, "scaling_factor"),
        (
            {"threshold": np.full(D_SAE, 1.5)},
            "threshold, which .* 'standard' does not have.*jumprelu",
        ),
        ({"W_lora": np.zeros((3, 3))}, "W_lora, which an encoder"),
    ],
)
def test_tensors_are_checked_against_the_configuration(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    weights: dict[str, Any] = {**tensors(cfg := configuration()), **change}
    kept = {name: np.asarray(value, np.float32) for name, value in weights.items() if value is not None}
    folder = write_folder(tmp_path / "sae", cfg, kept)
    with pytest.raises(IngestError, match=message):
        written(folder, tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(tmp_path: Path, keep: int) -> None:
    folder = write_folder(tmp_path / "sae", configuration())
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    (source,) = find_sources([str(folder)])
    with pytest.raises(IngestError, match=r"sae_weights.safetensors is truncated"):
        write_dictionary(source, tmp_path / source.id)
    assert not (tmp_path / source.id).exists()


def test_a_pickle_under_the_name_of_weights_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "sae", configuration())
    torch.save({"W_dec": torch.zeros(2)}, folder / "sae_weights.safetensors")
    with pytest.raises(IngestError, match="not a safetensors file"):
        written(folder, tmp_path)


def test_replacing_and_remains_of_an_interrupted_run(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "sae", configuration())
    (source,) = find_sources([str(folder)])
    target = tmp_path / source.id
    for name in (f".{target.name}.tmp", f".{target.name}.old"):
        (target.parent / name).mkdir(parents=True)
        (target.parent / name / "decoder.npy").write_bytes(b"half")
    steps: list[int] = []
    write_dictionary(source, target, progress=steps.append)
    assert sum(steps) == 2 * D_SAE
    changed = tensors(configuration(), seed=1)
    write_folder(tmp_path / "new", configuration(), changed)
    (tmp_path / "new" / "sae_weights.safetensors").replace(folder / "sae_weights.safetensors")
    record = write_dictionary(source, target)
    assert record.sha256 == source_sha256(source)
    np.testing.assert_array_equal(Rows.open(target, record).encoder, changed["W_enc"].T)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [
        ("jumprelu", "threshold", np.inf),
        ("jumprelu", "threshold", np.nan),
        ("jumprelu", "b_enc", np.nan),
        ("standard", "b_enc", -np.inf),
        ("standard", "W_enc", np.nan),
        ("topk", "b_enc", np.nan),
        ("gated", "b_gate", -np.inf),
        ("gated", "r_mag", np.nan),
    ],
)
def test_what_is_not_finite_never_fires(tmp_path: Path, architecture: str, name: str, value: float) -> None:
    """Every second feature is switched off; the others fire."""
    cfg = configuration(architecture=architecture) | ({"k": 5} if architecture == "topk" else {})
    weights = tensors(cfg)
    half = np.arange(D_SAE) % 2 == 1
    weights[name][..., half] = value
    record, rows = written(write_folder(tmp_path / "sae", cfg, weights), tmp_path / "out")
    hidden = torch.randn(500, D_MODEL, generator=torch.Generator().manual_seed(1))
    values = Encoder.of(record, rows)(hidden).values.numpy()
    assert np.isfinite(values).all() and not values[:, half].any() and values[:, ~half].any()

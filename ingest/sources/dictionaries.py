"""One source written as a dictionary of an atlas (the files of `atlas.folder.dictionary`), block by block.

1. Check the shapes of all tensors against the configuration.
2. Decoder rows: head space mapped, made unit; norms kept (`ingest.sources.rows`).
3. Encoder rows.
4. Vectors, then the record; everything in a folder beside the final one, renamed at the end.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from atlas.cli.progress import Advance
from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary, row_digests
from atlas.folder.paths import DECODER, ENCODER, VECTORS
from atlas.folder.stored_rows import RowsDigest
from ingest.sources.configuration import CROSS_LAYER
from ingest.sources.find import Source, source_sha256
from ingest.sources.head_space import HeadMap
from ingest.sources.model_weights import head_map
from ingest.sources.rows import ENCODER_VECTORS, DecoderRows, EncoderRows
from ingest.sources.tensors import Tensors

_log = logging.getLogger(__name__)


def write_dictionary(source: Source, folder: Path, *, progress: Advance | None = None) -> Dictionary:
    """Write a source's rows, vectors and record to `folder` and return the record.

    The folder appears whole or not at all; one that is there already is replaced. `progress` is called with the number
    of rows written since the last call (2 · d_sae in all).

    Raises IngestError where the weights are truncated, have other shapes than the configuration says, or cannot be
    mapped.
    """
    sha256 = source_sha256(source)
    configuration = source.configuration
    mapping = head_map(source.model_name, source.layer) if source.in_head_space else None
    partial = folder.with_name(f".{folder.name}.tmp")
    # Left by a write that was broken off: nothing tells how far it came.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with source.origin.tensors() as tensors:
        _check(source, tensors, mapping)
        d_model = len(mapping.projection) if mapping else configuration.d_out
        decoder = DecoderRows(source, tensors, mapping)
        rows_sha256, digests = _write(partial / DECODER, d_model, configuration.d_sae, decoder.blocks(), progress)
        divisors = decoder.divisors()
        # After the decoder: the norms folded into encoder rows are known once all its blocks were taken.
        encoder = EncoderRows(source, tensors, decoder.folded)
        _, encoder_digests = _write(
            partial / ENCODER, configuration.d_in, configuration.d_sae, encoder.blocks(), progress
        )
        # Last: which features are switched off is known once all encoder rows were seen.
        vectors = {"norms": decoder.norms, **encoder.vectors()}
        vectors |= {"decoder_digests": digests, "encoder_digests": encoder_digests}
        made = {"decoder_divisors": divisors, "encoder_factors": encoder.factors()}
        vectors |= {name: each for name, each in made.items() if each is not None}
        np.savez(partial / VECTORS, allow_pickle=False, **vectors)
    record = _record(source, d_model, mapping, int((decoder.norms == 0).sum()), sha256, rows_sha256)
    record.save(partial)
    _replace(partial, folder)
    return record


def _check(source: Source, tensors: Tensors, mapping: HeadMap | None) -> None:
    """Raise IngestError unless every tensor has the shape that the configuration says."""
    cfg, shapes = source.configuration, tensors.shapes
    if len(shapes.get("W_dec", ())) > 2:
        raise IngestError(f"{source.address} has decoder rows of shape {shapes['W_dec'][1:]}: {CROSS_LAYER}")
    expected: dict[str, tuple[int, ...]] = {"W_enc": (cfg.d_in, cfg.d_sae), "W_dec": (cfg.d_sae, cfg.d_out)}
    expected |= {name: (cfg.d_sae,) for name in ENCODER_VECTORS[cfg.encoder]}
    if cfg.encoder == "matching_pursuit":
        del expected["W_enc"]
    expected |= {} if cfg.transcoder else {"b_dec": (cfg.d_in,)}
    if "threshold" in expected and "threshold" not in shapes:
        del expected["threshold"]
        expected |= {"log_threshold": (cfg.d_sae,)} if "log_threshold" in shapes else {"topk_threshold": ()}
    for name, shape in expected.items():
        if shapes.get(name) != shape:
            there = f"has shape {shapes[name]}" if name in shapes else "is missing"
            raise IngestError(f"{name} of {source.address} {there}; its configuration says {shape}")
    # A tensor too many is a sign of another architecture, whose activations would be computed wrongly.
    _check_unknown(source, set(shapes) - set(expected))
    if "scaling_factor" in shapes and not np.allclose(tensors.whole("scaling_factor"), 1):
        raise IngestError(f"{source.address} has a finetuned scaling_factor that was not folded into its decoder")
    if mapping is not None and mapping.projection.shape[1] != cfg.d_out:
        raise IngestError(
            f"{source.address} has rows of {cfg.d_out} numbers, the heads of {source.model_name} have "
            f"{mapping.projection.shape[1]} side by side; is that its model (--model)?"
        )


def _check_unknown(source: Source, others: set[str]) -> None:
    """Raise IngestError where weights hold tensors that their architecture does not have: it may be another one."""
    architecture = source.configuration.architecture
    others -= {"b_dec", "scaling_factor"}  # a transcoder's bias at its output, which no row depends on; checked below
    if "skip" in architecture:
        others.discard("W_skip")  # what a skip transcoder adds past its features
    if "batchtopk" in architecture:
        others.discard("topk_threshold")  # left by training beside the threshold that was made of it
    if others:
        hint = "; a threshold belongs to jumprelu" if any("threshold" in name for name in others) else ""
        raise IngestError(
            f"{source.address} holds {', '.join(sorted(others))}, which an encoder of architecture {architecture!r} "
            f"does not have{hint}; correct the architecture in its configuration"
        )


def _write(
    path: Path, width: int, n: int, blocks: Iterator[tuple[np.ndarray, np.ndarray]], progress: Advance | None
) -> tuple[str, np.ndarray]:
    """Write [n, width] as .npy, block by block; returns SHA-256 and each row's digest of the rows as they are read."""
    digest = RowsDigest(n, width)
    of_rows: list[np.ndarray] = []
    with path.open("wb") as file:
        for kept, rows in blocks:
            if not of_rows:
                descr = np.lib.format.dtype_to_descr(kept.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": (n, width)}
                np.lib.format.write_array_header_1_0(file, header)
            of_rows.append(row_digests(rows))
            digest.add(rows)
            file.write(np.ascontiguousarray(kept).data)
            if progress is not None:
                progress(len(rows))
    return digest.hexdigest(), np.concatenate(of_rows)


def _record(
    source: Source, d_model: int, mapping: HeadMap | None, dead: int, sha256: str, rows_sha256: str
) -> Dictionary:
    cfg = source.configuration
    constant = cfg.normalize_activations == "expected_average_only_in" and cfg.norm_factor is not None
    if cfg.normalize_activations == "expected_average_only_in" and not constant:
        _log.warning("%s: its constant normalisation is not recorded; its activations are off by it", source.id)
    # The configuration and the source name what they know as the record does.
    names = {field.name for field in fields(Dictionary)}
    known = {name: value for part in (cfg, source) for name, value in vars(part).items() if name in names}
    known |= {"architecture": cfg.encoder, "d_model": d_model, "source": source.address, "dead_rows": dead}
    known |= {"release": source.origin.release, "sae_id": source.origin.sae_id, "sha256": sha256}
    known |= {"mapped": mapping.name if mapping else None, "rows_sha256": rows_sha256}
    if constant:  # folded into the rows
        known["normalize_activations"] = "none"
    return Dictionary(**known)


def _replace(partial: Path, folder: Path) -> None:
    """Rename the finished folder into place; an older one is moved away first, so that no reader sees a mixture."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(partial, folder)
    shutil.rmtree(old, ignore_errors=True)

"""Weights that a release keeps as torch files (`.pt`): read in a process of their own, named as SAELens names them.

SAELens's loaders read them in the process that calls them. Here `pickle_worker` turns a file into safetensors, bounded
in memory and time; a hostile one ends that process and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError
from ingest.sources.releases import pickle_worker
from ingest.sources.tensors import Tensors, open_safetensors

_WALL = 4  # seconds on the clock for a second of processor time that the file may take


@contextmanager
def open_pickle(path: Path, loader: str, encoder: str) -> Iterator[Tensors]:
    """The tensors of a torch file of a dictionary with that encoder, by SAELens's names.

    Raises IngestError where the restricted loader refuses the file, where it claims too much, or lacks a tensor.
    """
    with tempfile.TemporaryDirectory(prefix="feature-atlas-") as folder:
        converted = Path(folder) / "weights.safetensors"
        _convert(path, converted)
        with open_safetensors(converted) as held:
            try:
                named = NAMED[loader](held.parts, encoder)
            except KeyError as error:
                raise IngestError(f"{path} has no tensor {error}; it holds: {', '.join(sorted(held.parts))}") from None
            yield Tensors.of(named)


def _convert(path: Path, target: Path) -> None:
    command = [sys.executable, "-P", str(Path(pickle_worker.__file__)), str(path.resolve()), str(target)]
    # Variables that would make torch read without restriction are not handed on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_FORCE")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    seconds = _WALL * pickle_worker.seconds(path.stat().st_size)
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=seconds,
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise IngestError(f"{path} is refused: reading it did not end within {seconds} s") from None
    if ended.returncode == 0 and target.exists():
        return
    lines = ended.stderr.strip().splitlines()
    reason = lines[-1] if lines else "reading it passed its bounds of memory or time"
    if ended.returncode < 0:
        reason = f"reading it ended by {signal.Signals(-ended.returncode).name}: it passed its bounds of memory or time"
    raise IngestError(f"{path} is refused: {reason}; weights must be tensors in plain containers")


def _same(parts: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    return {name: parts[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec")}


def _transposed(parts: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    return {name: parts[name].T for name in ("W_enc", "W_dec", "b_enc", "b_dec")}


def _linear(encode: str, decode: str) -> Callable[[Mapping[str, Any], str], dict[str, Any]]:
    """The tensors of two torch.nn.Linear, which keep [out, in]."""

    def named(parts: Mapping[str, Any], encoder: str) -> dict[str, Any]:
        weights = {"W_enc": parts[f"{encode}.weight"].T, "W_dec": parts[f"{decode}.weight"].T}
        return weights | {"b_enc": parts[f"{encode}.bias"], "b_dec": parts[f"{decode}.bias"]}

    return named


def _dictionary_learning(parts: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """The classes of the package dictionary_learning, told apart by the names that they have."""
    named = {
        "W_enc": parts["W_enc"] if "W_enc" in parts else parts["encoder.weight"].T,
        "W_dec": parts["W_dec"] if "W_dec" in parts else parts["decoder.weight"].T,
    }
    others = {"b_dec": ("b_dec", "bias", "decoder_bias"), "b_enc": ("b_enc", "encoder.bias")}
    others |= {"b_mag": ("mag_bias",), "b_gate": ("gate_bias",), "r_mag": ("r_mag",)}
    for name, names in others.items():
        if (found := next((other for other in names if other in parts), None)) is not None:
            named[name] = parts[found]
    if encoder == "jumprelu":  # those chosen by top k keep a threshold that they do not use
        threshold = parts["threshold"]
        named["threshold"] = threshold if threshold.ndim else np.full(named["W_enc"].shape[1], threshold)
    return named


# SAELens's loader -> a torch file's tensors by SAELens's names, as that loader gives them.
NAMED: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "connor_rob_hook_z": _same,
    "deepseek_r1": _linear("encoder", "decoder"),
    "dictionary_learning_1": _dictionary_learning,
    "goodfire": _linear("encoder_linear", "decoder_linear"),
    "qwen_scope": _transposed,
}

"""The tensors of one dictionary, by SAELens's names, read part by part as float32; files without torch.

NumPy knows neither bfloat16 nor float8: a file's numbers of these kinds are views of their bytes, with a dtype whose
one field says what they are, and become float32 by a shift and by tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError

_TYPES: dict[str, np.dtype[Any]] = {  # by safetensors' names
    "BF16": np.dtype([("bfloat16", "<u2")]),
    "F8_E4M3": np.dtype([("float8_e4m3", "u1")]),
    "F8_E5M2": np.dtype([("float8_e5m2", "u1")]),
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{"U8": np.dtype("u1"), "BOOL": np.dtype("?")},
}


@dataclass(frozen=True)
class Tensors:
    """Tensors in a file or in memory; only what is asked for is turned into float32."""

    parts: Mapping[str, Any]  # arrays mapped from a file, or torch tensors: both are cut by [rows, columns]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Tensors:
        """Tensors or arrays, by name."""
        return cls(state, {name: tuple(tensor.shape) for name, tensor in state.items()})

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """float32 [stop − start, …]: rows of a matrix, or elements of a vector."""
        return _float32(self.parts[name][start:stop])

    def columns(self, name: str, start: int, stop: int) -> np.ndarray:
        """float32 [stop − start, n_rows]: columns of a matrix, transposed."""
        return _float32(self.parts[name][:, start:stop].T)

    def whole(self, name: str) -> np.ndarray:
        """float32: a tensor as it is."""
        return _float32(self.parts[name])


def _float32(part: Any) -> np.ndarray:
    """A contiguous array of its own, so that nobody writes into what it was read from."""
    if not isinstance(part, np.ndarray):
        return np.array(part.float().numpy(), np.float32, order="C")
    if part.dtype.names is None:
        with np.errstate(over="ignore"):  # float64 beyond float32 is infinite, as it is in torch
            return np.array(part, np.float32, order="C")
    (kind,) = part.dtype.names
    raw = part[kind]
    if kind == "bfloat16":
        # A bfloat16 is the upper half of a float32.
        return np.array(raw, np.uint32, order="C").__lshift__(16).view(np.float32)
    return np.ascontiguousarray(_float8(kind)[raw])


@cache
def _float8(kind: str) -> np.ndarray:
    """float32 [256]: the value of each byte."""
    codes = np.arange(256, dtype=np.uint8)
    if kind == "float8_e5m2":  # the upper half of a float16
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    sign, exponent, mantissa = np.where(codes >> 7, -1.0, 1.0), (codes >> 3 & 15).astype(int), (codes & 7) / 8
    values = sign * np.where(exponent, np.ldexp(1 + mantissa, exponent - 7), np.ldexp(mantissa, -6))
    values[codes & 127 == 127] = np.nan  # there are no infinities
    return values.astype(np.float32)


@contextmanager
def open_safetensors(path: Path) -> Iterator[Tensors]:
    """The tensors of a safetensors file, mapped; raises IngestError where it is missing, truncated or none."""
    from safetensors import SafetensorError, safe_open

    try:
        file: Any = safe_open(path, framework="np")  # checks the header, its offsets and the file's length
        names = list(file.keys())
        # Mapped here and not by safetensors, whose NumPy side has no bfloat16 and no float8.
        data = np.memmap(path, np.uint8, mode="r")
    except (SafetensorError, OSError) as error:
        raise IngestError(f"{path} is truncated or not a safetensors file ({error}); fetch it again") from None
    # Eight bytes give the header's length; offsets count from its end.
    begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:begin].tobytes())
    with file:
        yield Tensors.of({name: _view(data[begin:], name, header[name], path) for name in names})


def _view(data: np.ndarray, name: str, entry: dict[str, Any], path: Path) -> np.ndarray:
    """A tensor in the file's data, by its entry in the header."""
    kind = _TYPES.get(entry["dtype"])
    if kind is None:
        raise IngestError(f"{name} of {path} is of type {entry['dtype']}; known are {', '.join(_TYPES)}")
    start, end = entry["data_offsets"]
    return np.ndarray(entry["shape"], kind, data[start:end])

"""The tensors of one dictionary, by SAELens's names, part by part as they are or as float32; files without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError
from atlas.folder.stored_rows import as_float32

_TYPES: dict[str, np.dtype[Any]] = {  # by safetensors' names
    "BF16": np.dtype([("bfloat16", "<u2")]),
    "F8_E4M3": np.dtype([("float8_e4m3", "u1")]),
    "F8_E5M2": np.dtype([("float8_e5m2", "u1")]),
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{"U8": np.dtype("u1"), "BOOL": np.dtype("?")},
}
_TORCH: dict[str, tuple[str, np.dtype[Any]]] = {  # torch's dtype: a dtype of the same bits that NumPy takes, and ours
    "bfloat16": ("uint16", _TYPES["BF16"]),
    "float8_e4m3fn": ("uint8", _TYPES["F8_E4M3"]),
    "float8_e5m2": ("uint8", _TYPES["F8_E5M2"]),
    "float16": ("float16", _TYPES["F16"]),
}


@dataclass(frozen=True)
class Tensors:
    """Tensors in a file or in memory; only what is asked for is read, and turned into float32."""

    parts: Mapping[str, Any]  # arrays mapped from a file, or torch tensors: both are cut by [rows, columns]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Tensors:
        """Tensors or arrays, by name."""
        return cls(state, {name: tuple(tensor.shape) for name, tensor in state.items()})

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """[stop − start, …]: rows of a matrix, in the tensor's own dtype (`atlas.folder.stored_rows`)."""
        return _kept(self.parts[name][start:stop])

    def columns(self, name: str, start: int, stop: int) -> np.ndarray:
        """[stop − start, n_rows]: columns of a matrix, transposed, in the tensor's own dtype."""
        return _kept(self.parts[name][:, start:stop].T)

    def whole(self, name: str) -> np.ndarray:
        """float32: a tensor as it is."""
        return as_float32(_kept(self.parts[name]))


def _kept(part: Any) -> np.ndarray:
    """A contiguous array in the dtype of what it was read from; float32 where no file can have that.

    Of its own, so that nobody writes into what it was read from.
    """
    if not isinstance(part, np.ndarray):
        name = str(part.dtype).removeprefix("torch.")
        view, kind = _TORCH.get(name, ("", None))
        if kind is None:
            return np.array(part.float().numpy(), np.float32, order="C")
        import torch

        # NumPy takes no bfloat16 from torch: its bits go over as whole numbers.
        return np.array(part.contiguous().view(getattr(torch, view)).numpy().view(kind), order="C")
    if part.dtype.names is None and part.dtype not in (np.float16, np.float32):
        return np.array(as_float32(part), order="C")
    return np.array(part, order="C")


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

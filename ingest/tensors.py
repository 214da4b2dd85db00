"""The tensors of one dictionary, by SAELens's names, read part by part as float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError


@dataclass(frozen=True)
class Tensors:
    """Tensors in a file or in memory; only what is asked for is turned into float32."""

    parts: Mapping[str, Any]  # slices of a safetensors file, or torch tensors: both are cut by [rows, columns]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Tensors:
        """Tensors in memory, by name."""
        return cls(state, {name: tuple(tensor.shape) for name, tensor in state.items()})

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """float32 [stop − start, …]: rows of a matrix, or elements of a vector."""
        return _array(self.parts[name][start:stop])

    def columns(self, name: str, start: int, stop: int) -> np.ndarray:
        """float32 [stop − start, n_rows]: columns of a matrix, transposed."""
        return _array(self.parts[name][:, start:stop].t())

    def whole(self, name: str) -> np.ndarray:
        """float32: a tensor as it is."""
        part = self.parts[name]
        return _array(part[:] if self.shapes[name] else part)


def _array(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.float().numpy())


@contextmanager
def open_safetensors(path: Path) -> Iterator[Tensors]:
    """The tensors of a safetensors file, mapped; raises IngestError where it is missing, truncated or none."""
    from safetensors import SafetensorError, safe_open

    try:
        # torch, not numpy: the only one that knows bfloat16 and float8_e4m3
        file: Any = safe_open(path, framework="pt")
        names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise IngestError(f"{path} is truncated or not a safetensors file ({error}); fetch it again") from None
    with file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        parts = {name: file.get_slice(name) if shapes[name] else file.get_tensor(name) for name in names}
        yield Tensors(parts, shapes)

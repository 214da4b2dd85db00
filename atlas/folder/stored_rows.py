"""Rows kept as their source has them, and made what an atlas uses when they are read.

A file holds the source's own numbers (bfloat16 takes half of what float32 would, and nothing is lost). A row becomes a
unit decoder row, or an encoder row with all foldings, by a few float32 numbers of its own: the very divisions and the
multiplication that an ingest would have done, one after the other, so that the result has the same bits.
NumPy knows neither bfloat16 nor float8: such numbers are views of their bytes, with a dtype whose one field says what
they are, and become float32 by a shift and by tables.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_NAMES = (("bfloat16",), ("float8_e4m3",), ("float8_e5m2",))
_PART = 1 << 22  # numbers of a block where all rows are read: 16 MB


class StoredRows:
    """A matrix float32 [n, d] in another form; indexed like an array along its rows, which gives an array.

    Whatever else is done with it, as with an array, makes all rows at once: `rows @ x`, `rows.T`, `np.asarray(rows)`.
    """

    ndim = 2

    def __init__(self, stored: np.ndarray, divisors: np.ndarray | None = None, factors: np.ndarray | None = None):
        """`stored`: [n, d] in the source's dtype, possibly mapped; `divisors` float32 [m, n], `factors` float32 [n]."""
        self.stored, self.factors = stored, factors
        self.divisors: list[np.ndarray] = [] if divisors is None else list(divisors)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return self.stored.shape

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Any) -> np.ndarray:
        """float32: the rows at an index, slice, list or mask; a view of the file where nothing has to be computed."""
        rows = as_float32(self.stored[index])
        for divisor in self.divisors:
            rows = rows / divisor[index][..., None]
        return rows if self.factors is None else rows * self.factors[index][..., None]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def __matmul__(self, other: Any) -> np.ndarray:
        product: np.ndarray = self[:] @ other
        return product

    @property
    def T(self) -> np.ndarray:  # an array's name for it
        """float32 [d, n]."""
        return self[:].T

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what indexing gives: float32."""
        return self[:0].dtype

    def astype(self, dtype: Any) -> np.ndarray:
        """All rows in another dtype, [n, d]."""
        rows: np.ndarray = self[:].astype(dtype)
        return rows

    def copy(self) -> np.ndarray:
        """All rows, float32 [n, d], in an array that can be written to."""
        return self.astype("f4")


def blocks_of(rows: np.ndarray | StoredRows) -> Iterator[tuple[int, np.ndarray]]:
    """The rows in blocks of a few megabytes: where each begins, and float32 [m, d]."""
    step = max(1, _PART // max(1, rows.shape[1]))
    return ((start, rows[start : start + step]) for start in range(0, len(rows), step))


def products(vectors: np.ndarray, rows: np.ndarray | StoredRows) -> np.ndarray:
    """vectors · rowsᵀ, float32 [len(vectors), n], without all rows in memory; `vectors` float32 [m, d]."""
    import numpy as np

    found = np.empty((len(vectors), len(rows)), np.float32)
    for start, block in blocks_of(rows):
        found[:, start : start + len(block)] = vectors @ block.T
    return found


def is_known(dtype: np.dtype[Any]) -> bool:
    """Whether `as_float32` reads it: a floating dtype, or one of the three that stand for what NumPy lacks."""
    return dtype.kind == "f" if dtype.names is None else dtype.names in _NAMES


def as_float32(part: np.ndarray) -> np.ndarray:
    """float32: the numbers of an array of any dtype that a file can hold; the array itself where it is float32."""
    import numpy as np

    if part.dtype.names is None:
        with np.errstate(over="ignore"):  # float64 beyond float32 is infinite, as it is in torch
            return np.asarray(part, np.float32)
    (kind,) = part.dtype.names
    raw = part[kind]
    if kind == "bfloat16":
        # A bfloat16 is the upper half of a float32.
        upper: np.ndarray = np.left_shift(raw, 16, dtype=np.uint32).view(np.float32)
        return upper
    return np.asarray(_float8(kind)[raw])


@cache
def _float8(kind: str) -> np.ndarray:
    """float32 [256]: the value of each byte."""
    import numpy as np

    codes = np.arange(256, dtype=np.uint8)
    if kind == "float8_e5m2":  # the upper half of a float16
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    sign, exponent, mantissa = np.where(codes >> 7, -1.0, 1.0), (codes >> 3 & 15).astype(int), (codes & 7) / 8
    values = sign * np.where(exponent, np.ldexp(1 + mantissa, exponent - 7), np.ldexp(mantissa, -6))
    values[codes & 127 == 127] = np.nan  # there are no infinities
    return values.astype(np.float32)


class RowsDigest:
    """SHA-256 of a .npy file of float32 that held these rows, whatever dtype they are kept in."""

    def __init__(self, n: int, width: int) -> None:
        import numpy as np

        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (n, width)})
        self._sha256 = hashlib.sha256(header.getvalue())

    def add(self, rows: np.ndarray) -> None:
        """The next rows, float32 [m, width]."""
        import numpy as np

        self._sha256.update(np.ascontiguousarray(rows, "<f4").data)

    def hexdigest(self) -> str:
        """Of all rows that were added."""
        return self._sha256.hexdigest()


def rows_sha256(rows: np.ndarray | StoredRows) -> str:
    """`Dictionary.rows_sha256` of decoder rows."""
    digest = RowsDigest(*rows.shape)
    for _, block in blocks_of(rows):
        digest.add(block)
    return digest.hexdigest()

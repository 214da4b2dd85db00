"""Unit rows read block by block from where they lie, so that a dictionary need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlas.errors import IngestError
from atlas.folder.stored_rows import StoredRows

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]

CPU_BLOCK = 2048  # rows; two blocks give 16 MB of products: a GEMM near its full speed, a tile near the cache
GROUP = 16  # products of a tile that are judged by their largest; looking into a group costs as many scattered reads
_UNIT = 1e-3  # how far a row's squared length may be from 1


@dataclass(frozen=True)
class Nearest:
    """The nearest few rows of another dictionary to each of n rows, nearest first, ties in any order."""

    values: Floats  # [n, keep], cosines; −∞ or the worst float where there was none
    ids: Ids  # [n, keep], rows of the other dictionary, −1 where there was none


@dataclass(frozen=True)
class UnitRows:
    """A dictionary's decoder rows, read block by block; dead rows read as zero."""

    array: Floats | StoredRows  # [n, d], unit rows, possibly memory-mapped
    alive: Mask  # [n], False where a row is masked, zero or not finite

    @classmethod
    def of(cls, array: Floats | StoredRows | UnitRows, alive: Mask | None = None) -> UnitRows:
        """Checks `array` [n, d] in one pass; rows that were checked already stay as they are.

        Raises IngestError where it is no matrix, `alive` does not fit it, or a living row has not unit length.
        """
        if isinstance(array, UnitRows):
            return array if alive is None else cls(array.array, array.alive & alive)
        if array.ndim != 2:
            raise IngestError(f"decoder rows must be a matrix [n, d], not of shape {array.shape}")
        if alive is not None and alive.shape != array.shape[:1]:
            raise IngestError(f"a mask of shape {alive.shape} does not fit decoder rows of shape {array.shape}")
        squares = np.zeros(len(array), np.float32)
        with np.errstate(all="ignore"):  # rows that overflow are dead
            for low, high in spans(len(array), CPU_BLOCK):
                block = np.asarray(array[low:high], dtype=np.float32)
                # einsum sums squares without an array of them.
                squares[low:high] = np.einsum("ij,ij->i", block, block)
        living = np.isfinite(squares) & (squares > 0)
        if alive is not None:
            living &= alive
        # Inner products are cosines of unit rows only: longer rows would win matches by their length.
        odd = np.flatnonzero(living & (np.abs(squares - 1) > _UNIT))
        if len(odd):
            row = int(odd[0])
            length = f"row {row} has length {squares[row] ** 0.5:.4g}"
            raise IngestError(f"decoder rows must have unit length; {length}: normalise them first")
        return cls(array, living)

    def __len__(self) -> int:
        return len(self.array)

    def block(self, low: int, high: int) -> Floats:
        """Rows low … high − 1, float32 [high − low, d]; no copy where all are alive."""
        rows = np.ascontiguousarray(self.array[low:high], dtype=np.float32)
        alive = self.alive[low:high]
        # Zero rows have a product of 0 with everything, so dead ones need no case of their own in the product.
        return rows if alive.all() else np.where(alive[:, None], rows, np.float32(0))

    def take(self, index: Ids) -> Floats:
        """The rows at `index`, float32 [len(index), d]."""
        rows: Floats = np.asarray(self.array[index], dtype=np.float32)
        rows[~self.alive[index]] = 0
        return rows

    def some(self, n: int, rng: np.random.Generator) -> Floats:
        """At most `n` living rows, drawn without replacement, in their order."""
        living = np.flatnonzero(self.alive)
        return self.take(np.sort(rng.choice(living, min(n, len(living)), replace=False)))


def spans(n: int, step: int) -> Iterator[tuple[int, int]]:
    """[0, n) cut into pieces of `step`."""
    return ((low, min(low + step, n)) for low in range(0, n, step))

"""Inner products of float32 rows, by the BLAS that FAISS brings along.

Within a twentieth of torch's in speed, without torch's import, which takes seconds and, unloaded again at the end of
the process, 0.95 GB. NumPy's would do for the products themselves, but matching by it took a fifth longer: its threads
keep spinning after each product, in the way of what is to be done with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ingest.blocks import Floats


class Products:
    """Products of any rows with the rows of one block, which is copied once."""

    def __init__(self, block: Floats) -> None:
        """`block`: float32 [n, d]."""
        import faiss

        self._pointer = faiss.swig_ptr
        self._map: Any = faiss.LinearTransform(block.shape[1], len(block), False)
        faiss.copy_array_to_vector(np.ascontiguousarray(block, np.float32).ravel(), self._map.A)
        self._map.is_trained = True

    def of(self, rows: Floats, out: Floats | None = None) -> Floats:
        """rows · blockᵀ, float32 [m, n]; into `out`, where it is given, which is contiguous and of at least that size.

        `rows`: float32 [m, d], contiguous; possibly read-only.
        """
        shape = (len(rows), self._map.d_out)
        result: Floats = np.empty(shape, np.float32) if out is None else out[: shape[0] * shape[1]].reshape(shape)
        self._map.apply_noalloc(len(rows), self._pointer(rows), self._pointer(result))
        return result

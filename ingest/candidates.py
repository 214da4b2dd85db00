"""The nearest rows of two dictionaries to each other, both directions from one product.

1. The two dictionaries are cut into blocks of rows; each pair of blocks gives one tile of inner products. Only one tile
   exists at a time, and rows are read where they lie (memory-mapped or not).
2. A tile serves its rows and, transposed, its columns. Along a line of a tile the products are cut into groups of
   `_GROUP`; of a line with a maximum above the worst match kept so far, the few groups with the largest maxima are
   looked into, which is where its largest products must be.
3. What is found goes into FAISS's heaps, one a row, which keep the best few.

On a GPU, step 1 and 2 are FAISS's own search, tile by tile in both directions; step 3 is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas.errors import IngestError
from ingest.blocks import CPU_BLOCK, Floats, Ids, UnitRows, spans, tensor

GPU_BLOCK = 32768  # rows a tile's side
_GROUP = 16  # products a group; looking into one costs as many scattered reads
_GPU_KEEP = 2048  # FAISS's largest k on a GPU


class Best:
    """The `keep` largest products seen so far of each of `n` rows, in FAISS's heaps.

    Attributes:
        values: float32 [n, keep], cosines; before `sort` the smallest is first.
        ids: int64 [n, keep], rows of the other dictionary, −1 where there was none.
    """

    def __init__(self, n: int, keep: int) -> None:
        import faiss

        self.values: Floats = np.empty((n, keep), np.float32)
        self.ids: Ids = np.empty((n, keep), np.int64)
        self._pointer: Callable[[NDArray[Any]], Any] = faiss.swig_ptr
        self._heaps = faiss.float_minheap_array_t()
        self._heaps.nh, self._heaps.k = n, keep
        self._heaps.val, self._heaps.ids = faiss.swig_ptr(self.values), faiss.swig_ptr(self.ids)
        self._heaps.heapify()

    def offer(self, rows: Ids, values: Floats, ids: Ids) -> None:
        """Offer values and ids, both [len(rows), m], to the given distinct rows."""
        pointer, m = self._pointer, values.shape[1]
        self._heaps.addn_query_subset_with_ids(len(rows), pointer(rows), m, pointer(values), pointer(ids), m)

    def scan(self, products: Floats, row: int, id_: int) -> None:
        """Offer a tile [rows, width] whose first row is `row` and whose first column has the id `id_`."""
        width = products.shape[1]
        peaks = _peaks(products)
        groups = peaks.shape[1]
        worst = self.values[row : row + len(products), 0]  # of each heap, as it stands
        rows = np.flatnonzero(peaks.max(axis=1) > worst)
        if not len(rows):
            return
        # A row's `keep` largest products lie in the `keep` groups with the largest maxima.
        keep = min(self.values.shape[1], groups)
        group = np.argpartition(peaks[rows], groups - keep, axis=1)[:, groups - keep :]
        columns = (group[:, :, None] + np.arange(0, width, groups)).reshape(len(rows), -1)
        values = products[rows[:, None], np.minimum(columns, width - 1)]
        values[columns >= width] = -np.inf
        self.offer(rows + row, values, columns + id_)

    def sort(self) -> None:
        """Largest first, from now on."""
        self._heaps.reorder()


def _peaks(products: Floats) -> Floats:
    """The maximum of each group of columns, [rows, groups]; group g is the columns g, g + groups, g + 2 groups, …"""
    rows, width = products.shape
    groups = -(-width // _GROUP)
    full = width // groups
    # Strided groups make this a maximum of whole vectors, along rows as along columns.
    peaks: Floats = products[:, : full * groups].reshape(rows, full, groups).max(axis=1)
    rest = width - full * groups
    if rest:
        np.maximum(peaks[:, :rest], products[:, full * groups :], out=peaks[:, :rest])
    return np.ascontiguousarray(peaks)


def nearest(
    later: UnitRows,
    earlier: UnitRows,
    keep: int,
    device: str,
    block: int | None,
    progress: Callable[[int], None] | None,
) -> tuple[Best, Best]:
    """The `keep` nearest rows of `earlier` to each row of `later`, and the reverse; sorted, ties in any order.

    device: "cpu" or "cuda:N". block: rows a tile's side. progress: called with each tile's number of products.
    """
    best = Best(len(later), keep), Best(len(earlier), keep)
    step = block or (CPU_BLOCK if device == "cpu" else GPU_BLOCK)
    tile = _cpu_tile(step, later, earlier) if device == "cpu" else _gpu_tile(int(device.removeprefix("cuda:")), keep)
    for i, i_end in spans(len(later), step):
        rows = later.block(i, i_end)
        for j, j_end in spans(len(earlier), step):
            tile(rows, earlier.block(j, j_end), i, j, *best)
            if progress:
                progress((i_end - i) * (j_end - j))
    for one in best:
        one.sort()
    return best


Tile = Callable[[Floats, Floats, int, int, Best, Best], None]


def _cpu_tile(step: int, later: UnitRows, earlier: UnitRows) -> Tile:
    from concurrent.futures import ThreadPoolExecutor

    import torch

    # One buffer for all tiles: fresh memory for each would cost its page faults.
    buffer = torch.empty(min(step, len(later)) * min(step, len(earlier)))
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)

    def tile(rows: Floats, others: Floats, i: int, j: int, by_row: Best, by_column: Best) -> None:
        out = buffer[: len(rows) * len(others)].view(len(rows), len(others))
        torch.mm(tensor(rows), tensor(others).T, out=out)
        products = out.numpy()
        scans = [
            pool.submit(by_row.scan, products[a:b], i + a, j) for a, b in spans(len(rows), -(-len(rows) // threads))
        ]
        lines = products.T
        scans += [
            pool.submit(by_column.scan, lines[a:b], j + a, i) for a, b in spans(len(lines), -(-len(lines) // threads))
        ]
        for scan in scans:
            scan.result()

    return tile


def _gpu_tile(gpu: int, keep: int) -> Tile:
    import faiss

    if keep > _GPU_KEEP:
        raise IngestError(f"k must be at most {_GPU_KEEP - 3} on a GPU; --device cpu takes more")
    resources = faiss.StandardGpuResources()

    def search(rows: Floats, others: Floats, i: int, j: int, best: Best) -> None:
        metric, k = faiss.METRIC_INNER_PRODUCT, min(keep, len(others))
        values, ids = faiss.knn_gpu(resources, rows, others, k, metric=metric, device=gpu)
        best.offer(np.arange(i, i + len(rows)), values, ids + j)

    def tile(rows: Floats, others: Floats, i: int, j: int, by_row: Best, by_column: Best) -> None:
        search(rows, others, i, j, by_row)
        search(others, rows, j, i, by_column)

    return tile

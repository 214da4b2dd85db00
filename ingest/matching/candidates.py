"""The nearest rows of two dictionaries to each other on a CPU, both directions from one product.

1. The two dictionaries are cut into blocks of rows; each pair of blocks gives one tile of inner products. Only one tile
   exists at a time. Rows are read where they lie (memory-mapped or not): the later ones once, and the earlier ones once
   for every `_HELD` numbers of later rows.
2. A tile serves its rows and, transposed, its columns. Along a line of a tile the products are cut into groups of
   `GROUP`; of a line with a maximum above the worst match kept so far, the few groups with the largest maxima are
   looked into, which is where its largest products must be.
3. What is found goes into FAISS's heaps, one a row, which keep the best few.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.matching.blocks import CPU_BLOCK, GROUP, Floats, Ids, Nearest, UnitRows, spans

_HELD = 1 << 26  # numbers of later rows that are in memory at once: 256 MB, a whole dictionary of 16k × 4k


class Best:
    """The `keep` largest products seen so far of each of `n` rows, in FAISS's heaps.

    Attributes:
        values: float32 [n, keep], cosines; before `found` the smallest is first.
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
        # Fills the empty arrays with the worst value there is, so that any product takes its place.
        self._heaps.heapify()

    def offer(self, rows: Ids, values: Floats, ids: Ids) -> None:
        """Offer values and ids, both [len(rows), m], to the given distinct rows."""
        pointer, m = self._pointer, values.shape[1]
        self._heaps.addn_query_subset_with_ids(len(rows), pointer(rows), m, pointer(values), pointer(ids), m)

    def scan(self, products: NDArray[Any], row: int, id_: int) -> None:
        """Offer a tile [rows, width] whose first row is `row` and whose first column has the id `id_`."""
        width = products.shape[1]
        peaks = _peaks(products)
        groups = peaks.shape[1]
        worst = self.as_products(self.values[row : row + len(products), 0])  # of each heap, as it stands
        larger = (peaks > worst[:, None]).sum(axis=1)
        rows = np.flatnonzero(larger)
        if not len(rows):
            return
        # What is larger than a row's worst lies in groups whose maxima are, its `keep` largest in the first `keep`.
        keep = min(self.values.shape[1], groups, int(larger.max()))
        group = np.argpartition(peaks[rows], groups - keep, axis=1)[:, groups - keep :]
        columns = (group[:, :, None] + np.arange(0, width, groups)).reshape(len(rows), -1)
        # A group may lack its last column: what lies beyond the tile reads the tile's last one and is struck out next.
        values = self.as_values(products[rows[:, None], np.minimum(columns, width - 1)])
        values[columns >= width] = -np.inf
        self.offer(rows + row, values, columns + id_)

    def as_products(self, values: Floats) -> NDArray[Any]:
        """Values in the form of a tile's products, to be compared with them."""
        return values

    def as_values(self, products: NDArray[Any]) -> Floats:
        """Products of a tile as the numbers that they are."""
        return products

    def found(self) -> Nearest:
        """What was found, the largest first; nothing is offered after it."""
        self._heaps.reorder()
        return Nearest(self.values, self.ids)


def _peaks(products: NDArray[Any]) -> NDArray[Any]:
    """The maximum of each group of columns, [rows, groups]; group g is the columns g, g + groups, g + 2 groups, …"""
    rows, width = products.shape
    groups = -(-width // GROUP)
    full = width // groups
    # Strided groups make this a maximum of whole vectors, along rows as along columns.
    peaks: NDArray[Any] = products[:, : full * groups].reshape(rows, full, groups).max(axis=1)
    rest = width - full * groups
    if rest:
        np.maximum(peaks[:, :rest], products[:, full * groups :], out=peaks[:, :rest])
    return np.ascontiguousarray(peaks)


def nearest(
    later: UnitRows, earlier: UnitRows, keep: int, block: int | None, progress: Callable[[int], None] | None
) -> tuple[Nearest, Nearest]:
    """The `keep` nearest rows of `earlier` to each row of `later`, and the reverse; sorted, ties in any order.

    block: rows a tile's side. progress: called with each tile's number of products.
    """
    best = Best(len(later), keep), Best(len(earlier), keep)
    step = block or CPU_BLOCK
    tiles = _tiles(step, later, earlier)
    for low, high in spans(len(later), step * max(1, _HELD // (step * later.array.shape[1]))):
        # Many at once, since to read a row is to make it of what its source has.
        held = [(b - a, tiles(later.block(low + a, low + b), low + a, *best)) for a, b in spans(high - low, step)]
        for j, j_end in spans(len(earlier), step):
            others = earlier.block(j, j_end)
            for rows, tile in held:
                tile(others, j)
                if progress:
                    progress(rows * (j_end - j))
    return best[0].found(), best[1].found()


class Products:
    """Inner products of any float32 rows with the rows of one block, by the BLAS that FAISS brings along.

    Within a twentieth of torch's in speed, without torch's import, which takes seconds and, unloaded again at the end
    of the process, 0.95 GB. NumPy's would do for the products themselves, but matching by it took a fifth longer: its
    threads keep spinning after each product, in the way of what is to be done with it.
    """

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


def offer_tile(
    pool: ThreadPoolExecutor, threads: int, best: tuple[Best, Best], lines: NDArray[Any], i: int, j: int
) -> None:
    """Offer a tile to its later rows, from `i`, and to its earlier ones, from `j`: `lines` [earlier, later]."""
    scans = [
        pool.submit(each.scan, part[a:b], first + a, id_)
        for each, part, first, id_ in ((best[0], lines.T, i, j), (best[1], lines, j, i))
        for a, b in spans(len(part), -(-len(part) // threads))
    ]
    for scan in scans:
        # All before the next product, which goes into the same buffer; a scan that failed raises here.
        scan.result()


Tile = Callable[[Floats, int], None]  # earlier rows, and the index of their first
Tiles = Callable[[Floats, int, Best, Best], Tile]  # the tiles of some later rows, given the index of their first


def _tiles(step: int, later: UnitRows, earlier: UnitRows) -> Tiles:
    import faiss

    # One buffer for all tiles: fresh memory for each would cost its page faults.
    buffer = np.empty(min(step, len(later)) * min(step, len(earlier)), np.float32)
    threads = faiss.omp_get_max_threads()
    pool = ThreadPoolExecutor(threads)

    def tiles(rows: Floats, i: int, by_row: Best, by_column: Best) -> Tile:
        factor = Products(rows)

        def tile(others: Floats, j: int) -> None:
            lines = factor.of(others, out=buffer)
            offer_tile(pool, threads, (by_row, by_column), lines, i, j)

        return tile

    return tiles

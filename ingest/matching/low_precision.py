"""The nearest rows from products in bfloat16, where the processor has units for them; the same rows all the same.

1. Tiles of products as in `ingest.matching.candidates`, of rows rounded to bfloat16, a third of the time of float32's.
   Each row keeps `SPARE` more of its largest than are asked for.
2. What rounding can have done to a product is bounded. Those of the kept that may be among the largest by that bound
   are multiplied again in float32.
3. A row is proven where the last one asked for is, in float32, above all that a product that was not kept could be.
   What is not proven (few rows; those with many duplicates) is matched again in float32 as a whole.

Every product that is made again is held to its bound: where one is farther off, as a library that sums in bfloat16
would make it, the pair is matched in float32.

The bound: with rows x, y and what rounding made of them x̃, ỹ, |x·y − x̃·ỹ| ≤ ‖x − x̃‖‖y‖ + ‖x̃‖‖y − ỹ‖, which is
measured row by row; the sum is rounded once more for each number and, to bfloat16, at its end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.matching import candidates
from ingest.matching.blocks import Floats, Ids, Nearest, UnitRows, spans
from ingest.matching.candidates import Best, Products, offer_tile

if TYPE_CHECKING:
    from torch import Tensor

SPARE = 20  # kept beyond what is asked for: enough that of random rows few are not proven
BLOCK = 4096  # rows a tile's side: 32 MB of products
_LEAST = 1 << 38  # multiplications of a pair below which torch's import would take longer than is won
_NARROWEST = 1024  # dimensions below which choosing takes as long as multiplying
_UNITS = re.compile(rb"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", re.M)
_LAST = 2.0**-8  # of a product: rounding to bfloat16 at the end, to nearest or not
_SUMMED = 2.0**-22  # of a product, for each number of a row: float32 sums, two roundings a step
_HELD = 1 << 26  # numbers of a dictionary that are held to be multiplied again: 256 MB
_AGAIN = 1 << 20  # numbers of rows that are multiplied again at once: 4 MB, which a cache holds

_SAMPLE = 64  # later rows looked at before a pair is multiplied
_UNPROVEN = 0.08  # of them: more would be matched again for longer than is won

_log = logging.getLogger(__name__)


@cache
def has_units() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, as its flags say (Linux)."""
    try:
        return _UNITS.search(Path("/proc/cpuinfo").read_bytes()) is not None
    except OSError:
        return False


def pays(later: UnitRows, earlier: UnitRows) -> bool:
    """Whether a pair is large enough, here, that low precision is faster."""
    width = later.array.shape[1]
    large = width >= _NARROWEST and len(later) * len(earlier) * width >= _LEAST
    return large and has_units() and _torch_loads()


@cache
def _torch_loads() -> bool:
    """Whether torch can be imported: where address space is bounded (ulimit -v) its libraries may not fit."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError, MemoryError):
        return False
    return True


class _FartherOff(Exception):
    """A product is farther off than its bound."""


@dataclass(frozen=True)
class Rounded:
    """A block of rows in bfloat16."""

    rows: Tensor  # bfloat16 [n, d]
    off: Floats  # [n], length of what rounding took

    @classmethod
    def of(cls, rows: Floats) -> Rounded:
        """Rows float32 [n, d], unit ones or zero."""
        import torch

        whole = torch.from_numpy(np.require(rows, requirements="W"))
        rounded = whole.bfloat16()
        return cls(rounded, (rounded.float() - whole).norm(dim=1).numpy() * np.float32(1 + 1e-5))


class LowBest(Best):
    """The largest products in bfloat16 of each of `n` rows, offered as tiles of their bits.

    Bits of numbers that are not negative order as whole numbers do. Groups of nothing but negative ones are passed
    over: a row's matches are positive.
    """

    def as_products(self, values: Floats) -> NDArray[np.int16]:
        """The bits of values; a negative one's are below those of every number that is not."""
        return np.where(values >= 0, values.view(np.uint32) >> 16, 0xFFFF).astype(np.uint16).view(np.int16)

    def as_values(self, products: NDArray[np.int16]) -> Floats:
        """float32 of bits: they are its upper half."""
        values: Floats = np.left_shift(products.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
        return values


def nearest(
    later: UnitRows, earlier: UnitRows, keep: int, block: int | None, progress: Callable[[int], None] | None
) -> tuple[Nearest, Nearest]:
    """The `keep` nearest rows of `earlier` to each row of `later`, and the reverse; sorted, ties in any order.

    The same as `ingest.matching.candidates.nearest` finds, which is also asked where some rows show that few could be
    proven: wide rows without a spectrum lie closer together than the bound is. block: rows a tile's side.
    """
    if not _separates(later, earlier, keep):
        return candidates.nearest(later, earlier, keep, None, progress)
    best = LowBest(len(later), keep + SPARE), LowBest(len(earlier), keep + SPARE)
    off = _multiply(later, earlier, best, block or BLOCK, progress)
    try:
        return (
            _exact(best[0].found(), later, earlier, off, keep),
            _exact(best[1].found(), earlier, later, off[::-1], keep),
        )
    except _FartherOff as error:
        _log.warning("%s: this pair is matched in float32", error)
        return candidates.nearest(later, earlier, keep, None, None)


def _separates(later: UnitRows, earlier: UnitRows, keep: int) -> bool:
    """Whether most of some later rows would be proven: their `keep` best lie above the best that are not kept."""
    if len(earlier) <= keep + SPARE:
        return True
    some = later.some(_SAMPLE, np.random.default_rng(0))
    factor = Products(some)
    products = np.concatenate([factor.of(earlier.block(j, j_end)).T for j, j_end in spans(len(earlier), BLOCK)], axis=1)
    best = -np.partition(-products, (keep - 1, keep + SPARE), axis=1)
    margin = 2 * Rounded.of(some).off + some.shape[1] * _SUMMED + _LAST * np.abs(best[:, keep - 1])
    unproven = best[:, keep - 1] - best[:, keep + SPARE] < margin
    return float(unproven.mean()) <= _UNPROVEN


def _multiply(
    later: UnitRows,
    earlier: UnitRows,
    best: tuple[LowBest, LowBest],
    step: int,
    progress: Callable[[int], None] | None,
) -> tuple[Floats, Floats]:
    """Offer all products to both; what rounding took of each later and each earlier row."""
    import torch

    off = np.zeros(len(later), np.float32), np.zeros(len(earlier), np.float32)
    buffer = torch.empty(min(step, len(later)) * min(step, len(earlier)), dtype=torch.bfloat16)
    threads = max(1, torch.get_num_threads())
    with ThreadPoolExecutor(threads) as pool, torch.inference_mode():
        held = max(step, _HELD // (step * later.array.shape[1]) * step)
        for low, high in spans(len(later), held):
            own = [(low + a, Rounded.of(later.block(low + a, low + b))) for a, b in spans(high - low, step)]
            for i, rounded in own:
                off[0][i : i + len(rounded.off)] = rounded.off
            for j, j_end in spans(len(earlier), step):
                others = Rounded.of(earlier.block(j, j_end))
                off[1][j:j_end] = others.off
                for i, rounded in own:
                    shape = (j_end - j, len(rounded.off))
                    tile = buffer[: shape[0] * shape[1]].view(shape)
                    torch.mm(others.rows, rounded.rows.T, out=tile)
                    offer_tile(pool, threads, best, tile.view(torch.int16).numpy(), i, j)
                    if progress:
                        progress(shape[0] * shape[1])
    return off


def _exact(low: Nearest, rows: UnitRows, others: UnitRows, off: tuple[Floats, Floats], keep: int) -> Nearest:
    """Steps 2 and 3 for one direction, from the sorted `low`; `off`: of the rows, of the others."""
    width, n = rows.array.shape[1], len(rows)
    kept = np.where(low.ids >= 0, np.maximum(low.values, 0), 0)
    most = off[1].max(initial=0)
    # For every product of a row: what was measured of the two roundings, and the sum's, whose terms add up to 1.
    own = (off[0] + (1 + off[0]) * most + np.float32(width * _SUMMED))[:, None]
    margin = own + np.float32(_LAST) * kept
    least = kept[:, min(keep, kept.shape[1]) - 1] - margin[:, min(keep, kept.shape[1]) - 1]
    maybe = ((kept + margin >= least[:, None]) & (low.ids >= 0)).sum(axis=1)
    values, ids = np.full((n, keep), -np.inf, np.float32), np.full((n, keep), -1, np.int64)
    held = np.require(others.block(0, len(others)), requirements="W") if len(others) * width <= _HELD else None
    for a, b in spans(n, max(1, _AGAIN // width)):
        own_rows = rows.block(a, b)
        for count in np.unique(maybe[a:b]):
            some = np.flatnonzero(maybe[a:b] == count) + a
            for part in (some[x:y] for x, y in spans(len(some), max(1, _AGAIN // (width * max(1, int(count)))))):
                found = low.ids[part, :count]
                products = _products(own_rows[part - a], found, others, held)
                # Of those with a product below 0 as kept, which are none of the matches, the bound is of 0.
                apart = np.abs(products - kept[part, :count]) - margin[part, :count]
                if (apart[products > 0] > 0).any():
                    raise _FartherOff("products in bfloat16 are farther off here than their rounding allows")
                order = np.argsort(-products, axis=1)[:, :keep]
                values[part, : order.shape[1]] = np.take_along_axis(products, order, axis=1)
                ids[part, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
    beyond = kept[:, -1] + margin[:, -1]  # no product that was not kept is above it
    proven = ~rows.alive | ((low.ids >= 0).sum(axis=1) == len(others)) | (values[:, -1] >= beyond)
    _again(np.flatnonzero(~proven), rows, others, values, ids)
    return Nearest(values, ids)


def _products(rows: Floats, found: Ids, others: UnitRows, held: Floats | None) -> Floats:
    """Inner products float32 [m, c] of rows [m, d] with the others at `found` [m, c]."""
    import torch

    if not found.shape[1]:
        return np.empty(found.shape, np.float32)
    index = found.ravel()
    if held is None:
        near = torch.from_numpy(others.take(index))
    else:
        near = torch.from_numpy(held).index_select(0, torch.from_numpy(index))
    # Multiplied and summed by pairs: a sum one after the other is off by more than the ties allow.
    products: Floats = near.view(*found.shape, -1).mul_(torch.from_numpy(rows)[:, None]).sum(dim=2).numpy()
    return products


def _again(which: Ids, rows: UnitRows, others: UnitRows, values: Floats, ids: Ids) -> None:
    """Rows that were not proven, against all others in float32, into `values` and `ids`."""
    for a, b in spans(len(which), BLOCK):
        some = which[a:b]
        best, factor = Best(len(some), values.shape[1]), Products(rows.take(some))
        for j, j_end in spans(len(others), BLOCK):
            best.scan(factor.of(others.block(j, j_end)).T, 0, j)
        found = best.found()
        values[some], ids[some] = found.values, found.ids

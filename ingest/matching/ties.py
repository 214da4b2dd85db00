"""The exact order of the nearest rows, where float32 products cannot tell it.

1. A float32 product of unit rows is off by less than `_NOISE` / 2. Where the candidates of a row lie farther apart than
   `_NOISE`, their order is certain; almost all rows end here.
2. Where two of the first k are closer, the row's candidates are computed again in float64.
3. Where the k-th candidate is no farther than `_NOISE` from the last one kept (many equal rows), rows that were not
   kept may belong there too: the row is computed again against the whole other dictionary, in float64.

In float64 values within `TIE` of each other are equal, and equal values go by index: whether two rows are duplicates
then does not depend on where in a product they stood. Values not above `TIE` are not positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.matching.blocks import CPU_BLOCK, Floats, Ids, Mask, Nearest, UnitRows, spans

SPARE = 3  # candidates kept beyond k, so that step 3 is left to dictionaries with duplicates
TIE = 1e-12
_NOISE = 2e-6
_ELEMENTS = 1 << 22  # float64 values held at once by steps 2 and 3: 32 MB


@dataclass(frozen=True)
class Ranked:
    """Each row's matches, best first, equal ones by index."""

    values: Floats  # [n, k], cosine in (0, 1]
    ids: Ids  # [n, k], rows of the other dictionary, −1 beyond the last positive match
    exact: Mask  # [n], True where the values are float64's


def settle(best: Nearest, rows: UnitRows, others: UnitRows, k: int) -> Ranked:
    """The k best of each of `rows` among `others`, from the sorted `best`, which keeps k + SPARE of them."""
    values, ids = best.values[:, :k].copy(), best.ids[:, :k].copy()
    live = (values > -_NOISE) & (ids >= 0) & rows.alive[:, None]
    close = (values - best.values[:, 1 : k + 1] < _NOISE) | (values < _NOISE)
    unsure = (live & close).any(axis=1)
    short = live[:, -1] & (values[:, -1] - best.values[:, -1] < _NOISE)
    ids[(values <= 0) | ~live] = -1
    _recompute_candidates(np.flatnonzero(unsure & ~short), best, rows, others, values, ids)
    _recompute_against_all(np.flatnonzero(short), rows, others, values, ids)
    return Ranked(np.clip(values, 0, 1), ids, unsure | short)


def _recompute_candidates(
    which: Ids, best: Nearest, rows: UnitRows, others: UnitRows, values: Floats, ids: Ids
) -> None:
    """Step 2, into `values` and `ids`."""
    keep, k = best.ids.shape[1], ids.shape[1]
    step = max(1, _ELEMENTS // (keep * rows.array.shape[1]))
    for low, high in spans(len(which), step):
        some = which[low:high]
        found = best.ids[some]
        near = others.take(np.maximum(found, 0).ravel()).reshape(len(some), keep, -1).astype(np.float64)
        products = (near * rows.take(some)[:, None].astype(np.float64)).sum(axis=2)
        products[found < 0] = -2
        values[some], ids[some] = _in_order(products, found, k)


def _recompute_against_all(which: Ids, rows: UnitRows, others: UnitRows, values: Floats, ids: Ids) -> None:
    """Step 3, into `values` and `ids`."""
    n, k = len(others), ids.shape[1]
    for low, high in spans(len(which), max(1, _ELEMENTS // n)):
        some = which[low:high]
        target = rows.take(some).astype(np.float64)
        products = np.empty((len(some), n))
        for j, j_end in spans(n, CPU_BLOCK):
            products[:, j:j_end] = target @ others.block(j, j_end).astype(np.float64).T
        last = np.partition(products, n - k, axis=1)[:, n - k, None]
        within = int((products >= last - k * TIE).sum(axis=1).max())
        top = np.argpartition(products, n - within, axis=1)[:, n - within :]
        values[some], ids[some] = _in_order(np.take_along_axis(products, top, axis=1), top, k)


def _in_order(products: NDArray[np.float64], ids: Ids, k: int) -> tuple[Floats, Ids]:
    """The k best of each line [m, c ≥ k], by value and, where equal, by id; −1 for what is not positive."""
    order = np.argsort(-products, axis=1)
    products, ids = np.take_along_axis(products, order, axis=1), np.take_along_axis(ids, order, axis=1)
    fresh = np.ones(products.shape, bool)  # begins a new value
    fresh[:, 1:] = products[:, :-1] - products[:, 1:] > TIE
    places = np.where(fresh, np.arange(products.shape[1]), 0)
    products = np.take_along_axis(products, np.maximum.accumulate(places, axis=1), axis=1)
    order = np.lexsort((ids, -products), axis=1)[:, :k]
    products, ids = np.take_along_axis(products, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return products.astype(np.float32), np.where(products > TIE, ids, -1)

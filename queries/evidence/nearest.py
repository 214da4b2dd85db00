"""Each row's best match among another dictionary's living rows, for dictionaries that an atlas has not matched."""

from __future__ import annotations

import numpy as np

from atlas.folder.dictionary import Rows
from atlas.folder.stored_rows import blocks_of


def best_among(features: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The living row with the highest cosine to each of `features`, float32 [n, d] unit: int64 [n], float32 [n]."""
    best, cosine = np.zeros(len(features), np.int64), np.full(len(features), -2, np.float32)
    for start, block in blocks_of(rows.decoder):
        products = features @ block.T
        products[:, ~rows.alive[start : start + len(block)]] = -2
        place = products.argmax(axis=1)
        values = products[np.arange(len(features)), place]
        above = values > cosine
        best[above], cosine[above] = start + place[above], values[above]
    return best, cosine


def best_matches(rows: Rows, among: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The same of every row of a dictionary, without all of them in memory: int64 [d_sae], float32 [d_sae]."""
    best, cosine = np.empty(len(rows.decoder), np.int64), np.empty(len(rows.decoder), np.float32)
    for start, block in blocks_of(rows.decoder):
        part = slice(start, start + len(block))
        best[part], cosine[part] = best_among(block, among)
    return best, cosine

"""A dictionary that cannot be the source: an MLP or attention that writes only behind the residual features it is
matched with.

Rows of one model share directions whoever reads or writes them, which a null of random rows does not know of: a tenth
to a fifth of residual features have a "match" above the noise floor in a module that comes after them. What the true
source has above that is what speaks for it. Residual dictionaries have no such control: every later one holds what
came down the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import QueryError
from atlas.ids import RES
from atlas.rows import Rows
from queries.evidence.intervals import row_of, shares
from queries.evidence.nearest import best_among
from queries.questions.cypher import ABOVE_FLOOR

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from atlas.cli.progress import Progress
    from atlas.folder.dictionary import Dictionary

SAMPLE = 2048  # features of a residual dictionary that are matched, unless said otherwise
COLUMNS = ("later", "earlier", "site", "floor", "n", "above", "impossible", "tried", "share", "share_low", "share_high")
MOST = 1_000_000  # pairs that are asked for: more than any atlas has
Row = dict[str, Any]


def impossible(dictionaries: Mapping[str, Dictionary], later: Dictionary, earlier: Dictionary) -> Dictionary | None:
    """In place of a pair's module: the same module of the nearest layer behind the pair's later dictionary.

    Of as many features, since a best match is the better the more there are to choose from; of the same set where
    there is one. None for a residual dictionary, and where the atlas holds no such module.
    """
    found = [
        d
        for d in dictionaries.values()
        if (d.model, d.site, d.d_sae) == (earlier.model, earlier.site, earlier.d_sae) and d.layer > later.layer
    ]
    if earlier.site == RES or not found:
        return None
    return min(found, key=lambda d: (d.layer, d.set != earlier.set, d.id))


def floor_rows(atlas: Atlas, *, features: int = SAMPLE, seed: int = 0, progress: Progress | None = None) -> Rows:
    """A row for each matched pair: best matches above its noise floor, and the same in a source that cannot be one.

    `above` is of all `n` later features that have a match, `share` [share_low, share_high] of those `tried` in the
    dictionary `impossible` at the same floor; null where there is none. From rows alone, without a text.

    Args:
        features: later features tried for each pair, drawn by `seed`; 0: all.

    Raises QueryError where no pair has a noise floor.

    Example:
        for row in floor_rows(atlas):
            print(row["later"], row["earlier"], row["above"], row["share"])
    """
    from atlas.cli.progress import Progress

    progress = progress or Progress(quiet=True)
    dictionaries = atlas.dictionaries
    found = {(row["later"], row["earlier"]): row for row in atlas.read(ABOVE_FLOOR, limit=MOST)}
    if not found:
        raise QueryError("no pair of this atlas has a noise floor: ingest two layers of a model, or a layer's modules")
    order = {id_: place for place, id_ in enumerate(dictionaries)}
    rows = []
    with progress.steps("pairs", len(found), "pairs") as advance:
        for (later, earlier), row in sorted(found.items(), key=lambda each: [order[id_] for id_ in each[0]]):
            control = impossible(dictionaries, dictionaries[later], dictionaries[earlier])
            tried = 0
            share: tuple[float | None, ...] = (None, None, None)
            if control is not None:
                own = atlas.rows(later)
                chosen = np.flatnonzero(own.alive)
                if 0 < features < len(chosen):
                    chosen = np.sort(
                        np.random.default_rng([seed, order[later]]).choice(chosen, features, replace=False)
                    )
                tried = len(chosen)
                above = best_among(own.decoder[chosen], atlas.rows(control.id))[1] > row["floor"]
                share = shares(above.astype(float), np.ones(tried), np.arange(tried), seed)
            values = (
                *(later, earlier, dictionaries[earlier].site, row["floor"], row["matches"], row["share"]),
                *(control.id if control else None, tried, *share),
            )
            rows.append(row_of(COLUMNS, values))
            advance(1)
    return Rows(rows, COLUMNS)

"""Do two sets of dictionaries of one model give the same answers? Two seeds or two widths at the same places.

A feature of one set and one of the other are partners where each is the other's best match by cosine, both of them of
the residual stream after the same block. Then, of all partners f and g:

    shared         how many features have a partner of a cosine of at least LEAST (about a third between two seeds:
                   arXiv 2501.16615)
    res, mlp, att  whether the best match of f in its own set and the best match of g in its own are partners: whether
                   a lineage's step is the same in both
    lifecycle      whether both persist, transform, appear …

Beside each share the same with g dealt out anew among the partners. From rows and stored matches alone, without a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import QueryError
from atlas.ids import RES, SITES
from atlas.rows import Rows as Answer
from queries.evidence.intervals import row_of, shares
from queries.evidence.nearest import best_matches
from queries.evidence.sources import Source, sources

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from atlas.cli.progress import Progress
    from atlas.folder.dictionary import Dictionary, Rows

LEAST = 0.7  # cosine of partners that count as the same feature
COLUMNS = ("layer", "one", "other", "question", "n", "same", "same_low", "same_high", "shuffled")
LIFECYCLES = """
MATCH (f:Feature {dictionary: $dictionary}) WHERE f.lifecycle IS NOT NULL
RETURN f.`index` AS feature, f.lifecycle AS lifecycle
"""
Row = dict[str, Any]


class _Partners:
    """Best matches of two dictionaries' rows that are each other's."""

    def __init__(self, one: Rows, other: Rows) -> None:
        forth, self._cosine = best_matches(one, other)
        back, _ = best_matches(other, one)
        mutual = one.alive & (back[forth] == np.arange(len(forth)))
        # int64 [d_sae of one]: the partner's index, −1 for none.
        self.of = np.where(mutual, forth, -1)

    def at_least(self, least: float) -> np.ndarray:
        """bool [d_sae of one]: features whose partner is as near as that."""
        near: np.ndarray = (self.of >= 0) & (self._cosine >= least)
        return near


def stability_rows(atlas: Atlas, *, least: float = LEAST, seed: int = 0, progress: Progress | None = None) -> Answer:
    """A row for each layer, each two sets that both have it, and each question; see above.

    `same` is a share of `n` with a 95 % interval by features; `shuffled` the same share with partners dealt out anew,
    null for `shared`, which counts all living features of `one`.

    Args:
        least: cosine from which two features count as the same one.
        seed: of the shuffle and the intervals.

    Raises QueryError where the atlas has no two residual dictionaries at one place.

    Example:
        for row in stability_rows(atlas):
            print(row["layer"], row["question"], row["same"], row["shuffled"])
    """
    from atlas.cli.progress import Progress

    progress = progress or Progress(quiet=True)
    places: dict[tuple[str, int], list[Dictionary]] = {}
    for d in atlas.dictionaries.values():
        if d.site == RES:
            places.setdefault((d.model, d.depth), []).append(d)
    twos = [two for here in places.values() for two in combinations(here, 2)]
    if not twos:
        raise QueryError(
            "the atlas has no two residual dictionaries at one place; ingest a second seed or width of the same layers"
        )
    stored = sources(atlas)
    partners: dict[tuple[str, str], _Partners] = {}
    rows: list[Row] = []

    def of(one: Dictionary, other: Dictionary) -> _Partners:
        key = one.id, other.id
        if key not in partners:  # a dictionary that both sets share is its own partner
            partners[key] = _Partners(atlas.rows(one.id), atlas.rows(other.id))
        return partners[key]

    with progress.steps("dictionaries", len(twos), "pairs") as advance:
        for one, other in twos:
            here = of(one, other)
            where = {"layer": one.layer, "one": one.id, "other": other.id}
            rng = np.random.default_rng([seed, one.depth])
            counted = np.flatnonzero(atlas.rows(one.id).alive)
            rows.append(where | _row("shared", here.at_least(least)[counted], None, seed))
            f = np.flatnonzero(here.at_least(least))
            g = here.of[f]
            dealt = rng.permutation(g)
            for mine, its in _steps(stored, one, other):
                below = of(mine.earlier, its.earlier).of
                step, true, random = below[mine.best[f]], its.best[g], its.best[dealt]
                asked = (mine.best[f] >= 0) & (true >= 0)
                same, shuffled = ((step == each)[asked] & (step >= 0)[asked] for each in (true, random))
                rows.append(where | _row(mine.earlier.site, same, shuffled, seed))
            cycles = [_lifecycles(atlas, d) for d in (one, other)]
            told = (cycles[0][f] != "") & (cycles[1][g] != "")
            same, shuffled = ((cycles[0][f] == cycles[1][each])[told] for each in (g, dealt))
            rows.append(where | _row("lifecycle", same, shuffled, seed))
            advance(1)
    return Answer(rows, COLUMNS)


def _steps(stored: list[Source], one: Dictionary, other: Dictionary) -> Iterator[tuple[Source, Source]]:
    """Pairs that end in these two and begin at one place, by place: each in its own set, or both in the only one."""
    mine, its = (_begins(stored, d) for d in (one, other))
    for place in sorted(mine.keys() & its.keys(), key=lambda place: (SITES.index(place[0]), place[1])):
        yield mine[place], its[place]


def _begins(stored: list[Source], later: Dictionary) -> dict[tuple[str, int], Source]:
    """The pairs that end in a dictionary by the place where they begin; of several there, the one of its own set."""
    places: dict[tuple[str, int], list[Source]] = {}
    for pair in stored:
        if pair.later.id == later.id:
            places.setdefault((pair.earlier.site, pair.earlier.depth), []).append(pair)
    found = {}
    for place, pairs in places.items():
        own = [pair for pair in pairs if _kind(pair.earlier) == _kind(later)] or pairs
        if len(own) == 1:
            found[place] = own[0]
    return found


def _kind(d: Dictionary) -> str:
    """The set's name without its site: `res-2k` and `mlp-2k` are of one kind."""
    return "-".join(part for part in d.set.split("-") if part != d.site)


def _row(question: str, same: np.ndarray, shuffled: np.ndarray | None, seed: int) -> Row:
    n = len(same)
    share = shares(same.astype(float), np.ones(n), np.arange(n), seed) if n else (None, None, None)
    chance = float(shuffled.mean()) if shuffled is not None and n else None
    return row_of(COLUMNS[3:], (question, n, *share, chance))


def _lifecycles(atlas: Atlas, d: Dictionary) -> np.ndarray:
    """Text [d_sae]: each feature's life cycle, "" where it has none."""
    found = np.full(d.d_sae, "", dtype=object)
    for row in atlas.read(LIFECYCLES, dictionary=d.id):
        found[row["feature"]] = row["lifecycle"]
    return found

"""Chains of mutual best matches along the residual stream, joined link by link.

A walk of unbounded length from every feature takes an engine time and memory for all walks at once: on 1.3 million
features it ends in a full buffer. A feature has at most one such link to each dictionary before it, so

1. one statement gives all links, as lists for each pair of dictionaries;
2. pairs are taken from the earliest to the latest, and each link prolongs the chains that end at its earlier feature;
3. chains that nothing continues are ranked; layers and labels are read for those that are shown.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atlas.atlas import Atlas

LINKS = """
MATCH (b:Feature)-[r:FROM_RES {rank: 0, forward_rank: 0}]->(a:Feature)
WHERE b.site = 'res' AND r.similarity >= $min_similarity
RETURN b.dictionary AS later, a.dictionary AS earlier, collect(b.`index`) AS later_rows,
       collect(a.`index`) AS earlier_rows, collect(r.similarity) AS similarities
"""
END = "MATCH (f:Feature {id: $id}) RETURN f.id AS id, f.layer AS layer, f.label AS label"
COLUMNS = ("first", "last", "from_layer", "to_layer", "steps", "weakest", "label")


def longest_lived(atlas: Atlas, *, min_similarity: float, limit: int) -> list[dict[str, Any]]:
    """The longest chains of mutual best matches of at least that cosine which go on in neither direction.

    Rows of COLUMNS: the longest first, of equal ones that with the strongest weakest link, then by id. Where two
    dictionaries stand at one place and a chain's ends are joined in several ways, the strongest way counts.
    """
    places = _Places(atlas)
    # By the number of the feature at which they end: (first feature, steps) -> smallest cosine on the way.
    chains: dict[int, dict[tuple[int, int], float]] = {}
    continued = bytearray(places.total)
    for later, earlier, similarity in _links(atlas, places, min_similarity):
        continued[earlier] = 1
        here = chains.setdefault(later, {})
        for (first, steps), weakest in (chains.get(earlier) or {(earlier, 0): similarity}).items():
            way = first, steps + 1
            here[way] = max(here.get(way, -1.0), min(weakest, similarity))
    ended = (
        (-steps, -weakest, places.id(last), places.id(first))
        for last, ways in chains.items()
        if not continued[last]
        for (first, steps), weakest in ways.items()
    )
    ranked = heapq.nsmallest(limit, ended)
    ids = sorted({id_ for row in ranked for id_ in row[2:]})
    known = {id_: rows[0] for id_, rows in zip(ids, atlas.read_each(END, [{"id": id_} for id_ in ids]), strict=True)}
    rows = []
    for negative_steps, negative_weakest, last_id, first_id in ranked:
        start, end = known[first_id], known[last_id]
        values = (first_id, last_id, start["layer"], end["layer"], -negative_steps, -negative_weakest, end["label"])
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


class _Places:
    """Every feature of an atlas as a number: smaller than an id, and known without asking the graph."""

    def __init__(self, atlas: Atlas) -> None:
        self.names = list(atlas.dictionaries)
        self.depths = [record.depth for record in atlas.dictionaries.values()]
        *self._starts, self.total = accumulate((d.d_sae for d in atlas.dictionaries.values()), initial=0)
        self.start = dict(zip(self.names, self._starts, strict=True))

    def id(self, number: int) -> str:
        """The feature's id."""
        place = bisect_right(self._starts, number) - 1
        return f"{self.names[place]}/{number - self._starts[place]}"


def _links(atlas: Atlas, places: _Places, min_similarity: float) -> Iterator[tuple[int, int, float]]:
    """Every link: later feature, earlier feature, cosine; those of earlier dictionaries first."""
    depth = dict(zip(places.names, places.depths, strict=True))
    # An edge leads to a smaller depth: whatever ends at an earlier feature is known before it is prolonged.
    for pair in sorted(atlas.read(LINKS, min_similarity=min_similarity), key=lambda pair: depth[pair["later"]]):
        later, earlier = places.start[pair["later"]], places.start[pair["earlier"]]
        for b, a, similarity in zip(pair["later_rows"], pair["earlier_rows"], pair["similarities"], strict=True):
            yield later + b, earlier + a, similarity

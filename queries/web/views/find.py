"""Search: features by words, grouped by lineage, so that one theme through six layers is one result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.ids import SITES
from queries.lineage.walk import FLOORS
from queries.search import search
from queries.web.overview import CYCLES
from queries.web.site import numbered, site_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

LIMIT = 100
NO_FLOOR = 0.5  # the smallest cosine that joins two features of a pair without a noise floor
# Best matches of what was found, as far as they are above noise; one statement a feature, which stores answer by index.
_BEFORE = """
MATCH (b:Feature {id: $id})-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature) WHERE r.rank = 0
RETURN a.id AS earlier, b.dictionary AS later_in, a.dictionary AS earlier_in, r.similarity AS similarity
"""


def find(request: Request) -> Response:
    """The page at `/search`."""
    site, asked = site_of(request), request.query_params
    text = asked.get("q", "").strip()
    layer = numbered(asked.get("layer", ""), "layer", int, -1, 10_000)
    where = asked.get("site") or None
    cycle = asked.get("lifecycle") or None
    rows: list[dict[str, Any]] = []
    if text:
        rows = search(site.atlas, text, limit=LIMIT + 1, site=where, layer=layer)
    more = len(rows) > LIMIT
    rows = [row for row in rows[:LIMIT] if cycle is None or row["lifecycle"] == cycle]
    layers = sorted({record.layer for record in site.atlas.dictionaries.values()})
    choices: dict[str, Any] = {"layers": layers, "sites": SITES, "cycles": CYCLES, "limit": LIMIT}
    chosen: dict[str, Any] = {"text": text, "layer": layer, "where": where, "cycle": cycle}
    groups = grouped(site.atlas, rows)
    return site.page(request, "search.html", **chosen, **choices, groups=groups, more=more, found=len(rows))


def grouped(atlas: Atlas, rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of a search, those that best matches join as one group, in the order of each group's best row."""
    ids = [row["feature"] for row in rows]
    group = {id_: id_ for id_ in ids}

    def root(id_: str) -> str:
        while group[id_] != id_:
            id_ = group[id_]
        return id_

    floors = {(row["later"], row["earlier"]): row["floor"] for row in atlas.read(FLOORS)}
    for id_, before in zip(ids, atlas.read_each(_BEFORE, [{"id": id_} for id_ in ids]), strict=True):
        for row in before:
            floor = floors.get((row["later_in"], row["earlier_in"]))
            if row["earlier"] in group and row["similarity"] >= (NO_FLOOR if floor is None else floor):
                group[root(id_)] = root(row["earlier"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        record, _ = atlas.locate(row["feature"])
        groups.setdefault(root(row["feature"]), []).append({**row, "layer": record.layer, "depth": record.depth})
    return [sorted(rows, key=lambda row: row["depth"]) for rows in groups.values()]

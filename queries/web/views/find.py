"""Search: features by words, grouped by lineage, so that one theme through six layers is one result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.ids import SITES
from queries.search import search
from queries.web.overview import CYCLES
from queries.web.site import numbered, site_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

LIMIT = 100
# Best matches among what was found: they make one theme of features in several layers.
_JOINED = """
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature)
WHERE b.id IN $ids AND a.id IN $ids AND (r.rank = 0 OR r.forward_rank = 0)
RETURN b.id AS later, a.id AS earlier
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

    for row in atlas.read(_JOINED, ids=ids) if len(ids) > 1 else ():
        group[root(row["later"])] = root(row["earlier"])
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        record, _ = atlas.locate(row["feature"])
        groups.setdefault(root(row["feature"]), []).append({**row, "layer": record.layer, "depth": record.depth})
    return [sorted(rows, key=lambda row: row["depth"]) for rows in groups.values()]

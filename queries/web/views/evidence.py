"""What speaks for the edges: figures measured on a text, pair by pair, and the questions that go through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.schema import EDGE_OF_SITE, FEATURE
from queries.web.site import site_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

# Best matches alone: an edge of another rank stands for less, and there are five times as many.
PAIRS = f"""
MATCH (b:{FEATURE})-[r:{"|".join(EDGE_OF_SITE.values())} {{rank: 0}}]->(a:{FEATURE})
RETURN b.dictionary AS later, a.dictionary AS earlier, count(*) AS matches, avg(r.similarity) AS similarity,
       count(r.cofire) AS known, avg(r.cofire) AS cofire, avg(r.lift) AS lift, avg(r.correlation) AS correlation,
       sum(CASE WHEN r.cofire = 0.0 THEN 1 ELSE 0 END) AS never, count(r.effect) AS tried, avg(r.effect) AS effect
ORDER BY later, earlier
"""
QUESTIONS = ("alike-and-together", "alike-never-together", "together-not-alike", "strongest-push", "above-floor")


def view(request: Request) -> Response:
    """The page at `/evidence`."""
    site = site_of(request)
    return site.page(request, "evidence.html", **site.once("evidence", lambda: _counted(site.atlas)))


def _counted(atlas: Atlas) -> dict[str, Any]:
    """Counted over the whole graph, once: it does not change while the atlas is open."""
    measured = [each for each in atlas.manifest.measured if each["kind"] in ("edges", "effects")]
    rows = atlas.read(PAIRS) if measured else []
    order = {id_: place for place, id_ in enumerate(atlas.dictionaries)}
    rows.sort(key=lambda row: (order.get(row["later"], 0), order.get(row["earlier"], 0)))
    removals = any(each["kind"] == "effects" for each in measured)
    return {"measured": measured, "rows": rows, "removals": removals, "questions": QUESTIONS}

"""What speaks for the edges and what against: figures measured on a text, and the tables that `evidence` left there."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.folder.results import Result, kept
from atlas.notebook import table
from atlas.schema import EDGE_OF_SITE, FEATURE
from queries.report.evidence_blocks import ABOUT, pictures
from queries.report.figures import can_draw, drawn
from queries.web.site import Markup, site_of

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
MOST = 200  # rows of a table that the page shows
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
    found = kept(atlas.path, atlas.dictionaries)
    tables = [_shown(name, result) for name, result in found.items() if name in ABOUT]
    return {"measured": measured, "rows": rows, "removals": removals, "questions": QUESTIONS, "tables": tables}


def _shown(name: str, result: Result) -> dict[str, Any]:
    """A table with the figures that its columns call for, as a report has them."""
    drawings = [
        (caption, "data:image/svg+xml;base64," + base64.b64encode(drawn(draw)).decode())
        for _, caption, _, draw in (pictures(list(result.rows)) if can_draw() else ())
    ]
    more = len(result.rows) - MOST
    return {
        "name": name,
        "about": ABOUT[name],
        "of": result.about,
        "figures": drawings,
        "rows": len(result.rows),
        "more": max(0, more),
        "table": Markup(table(result.rows[:MOST])),
    }

"""Home: what the atlas holds, models × layers × sites as one picture, and where its words come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.cli.info import dictionary_rows, pair_rows, summary
from atlas.folder.results import kept
from atlas.ids import RES
from queries.web.overview import overview
from queries.web.site import Markup, site_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas


def home(request: Request) -> Response:
    """The page at `/`."""
    site = site_of(request)
    values = site.once("home", lambda: _counted(site.atlas))
    return site.page(request, "home.html", **values, runs=site.atlas.manifest.runs[-3:])


def _counted(atlas: Atlas) -> dict[str, Any]:
    """What is counted over the whole graph, once: it does not change while the atlas is open."""
    _, rows = dictionary_rows(atlas)
    _, pairs = pair_rows(atlas)
    floors = kept(atlas.path, atlas.dictionaries, "floor").values()
    above = {(row["later"], row["earlier"]): row for floor in floors for row in floor.rows if _is_whole(row)}
    facts = summary(atlas)
    return {
        "facts": facts,
        "picture": Markup(overview(rows, tuple(above.values()))),
        "rows": rows,
        "pairs": pairs,
        "above": above,
        "example": _example(atlas),
    }


def _is_whole(row: dict[str, Any]) -> bool:
    """Whether a row says what one of `evidence floor` does: it comes from a file, which anybody may have written."""
    texts, numbers = [row.get(name) for name in ("later", "earlier", "site")], [row.get("above"), row.get("share", "")]
    if numbers[1] is None:  # a pair without a source that cannot be one
        numbers.pop()
    return all(isinstance(each, str) for each in texts) and all(isinstance(each, int | float) for each in numbers)


def _example(atlas: Atlas) -> str | None:
    """A feature to begin with: one in the middle of the stream that came down it and was written to."""
    streams = [record for record in atlas.dictionaries.values() if record.site == RES]
    if not streams:
        return next(iter(atlas.dictionaries), None) and f"{next(iter(atlas.dictionaries))}/0"
    record = streams[len(streams) // 2]
    rows = atlas.read(_EXAMPLE, dictionary=record.id)
    return rows[0]["id"] if rows else f"{record.id}/0"


_EXAMPLE = """
MATCH (f:Feature) WHERE f.dictionary = $dictionary AND f.lifecycle IS NOT NULL AND f.dead = false
RETURN f.id AS id ORDER BY coalesce(f.max_activation, 0.0) DESC, coalesce(f.s_res, 0.0) DESC, id LIMIT 1
"""

"""Two features side by side: what is known of each, their cosine, where their lineages meet, both lineages drawn."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.errors import AtlasError, QueryError
from queries.drawing.svg import svg
from queries.lineage.walk import lineage
from queries.questions.questions import ask
from queries.show import show
from queries.web.site import Markup, feature_href, site_of
from queries.web.views.lineage import options

_SHOWN = ("label", "fires_on", "promotes", "lifecycle", "origin", "s_res", "s_mlp", "s_att", "s_next", "frequency")


def compare(request: Request) -> Response:
    """The page at `/compare`; the form alone where fewer than two features are named."""
    site, asked = site_of(request), request.query_params
    features = [feature.strip() for feature in asked.getlist("feature") if feature.strip()]
    if len(features) > 2:
        raise QueryError(f"two features are compared, not {len(features)}: take some out")
    if len(features) < 2:
        return site.page(request, "compare.html", features=features, rows=[], pictures=[], shared=[], cosine=None)
    atlas = site.atlas
    ids = [atlas.full_id(feature) for feature in features]
    values = [show(atlas, id_)[0] for id_ in ids]
    rows = [(name, [value.get(name) for value in values]) for name in _SHOWN]
    pictures = [Markup(svg(lineage(atlas, id_, **options(asked, atlas)).figure(), link=feature_href)) for id_ in ids]
    shared = ask(atlas, "shared-ancestors", *ids, limit=10) if ids[0] != ids[1] else []
    cosine = _cosine(site, ids)
    return site.page(request, "compare.html", features=ids, rows=rows, pictures=pictures, shared=shared, cosine=cosine)


def _cosine(site: Any, ids: list[str]) -> float | str:
    """The cosine of the two decoder rows; where there is none, why."""
    try:
        one, other = site.atlas.directions(ids)
    except AtlasError as error:
        return str(error)
    return float(one @ other)

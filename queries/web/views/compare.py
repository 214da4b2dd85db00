"""Two features or plans side by side: what is known of each, their cosine, where their lineages meet, both drawn."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from atlas.errors import AtlasError, QueryError
from queries.advice.advised import dose
from queries.drawing.svg import svg
from queries.lineage.walk import lineage
from queries.questions.questions import ask
from queries.show import show
from queries.web.site import Markup, feature_href, form, site_of
from queries.web.steering import pasted
from queries.web.views.lineage import options

_NOTHING: dict[str, Any] = {
    **{"rows": [], "pictures": [], "shared": [], "cosine": None},
    **{"turned": [], "doses": [], "plans": ["", ""]},
}
_SHOWN = ("label", "fires_on", "promotes", "lifecycle", "origin", "s_res", "s_mlp", "s_att", "s_next", "frequency")


def compare(request: Request) -> Response:
    """The page at `/compare`; the form alone where fewer than two features are named."""
    site, asked = site_of(request), request.query_params
    features = [feature.strip() for feature in asked.getlist("feature") if feature.strip()]
    if len(features) > 2:
        raise QueryError(f"two features are compared, not {len(features)}: take some out")
    if len(features) < 2:
        return site.page(request, "compare.html", features=features, **_NOTHING)
    atlas = site.atlas
    ids = [atlas.full_id(feature) for feature in features]
    values = [show(atlas, id_)[0] for id_ in ids]
    rows = [(name, [value.get(name) for value in values]) for name in _SHOWN]
    pictures = [Markup(svg(lineage(atlas, id_, **options(asked, atlas)).figure(), link=feature_href)) for id_ in ids]
    shared = ask(atlas, "shared-ancestors", *ids, limit=10) if ids[0] != ids[1] else []
    cosine = _cosine(site, ids)
    found = {"rows": rows, "pictures": pictures, "shared": shared, "cosine": cosine}
    return site.page(request, "compare.html", features=ids, **_NOTHING | found)


async def plans(request: Request) -> Response:
    """The page at `/compare`, by POST: two plans, pasted, feature by feature."""
    site, fields = site_of(request), await form(request)
    texts = [text.strip() for text in fields.get("plan", ()) if text.strip()]
    if len(texts) != 2:
        raise QueryError(
            f"two plans are compared, not {len(texts)}: paste the JSON of both, as steer --save-plan writes it"
        )
    made = [await run_in_threadpool(pasted, site.atlas, text) for text in texts]
    done: dict[str, list[list[str]]] = {}
    labels: dict[str, str | None] = {}
    for side, each in enumerate(made):
        for turned in sorted(each.interventions, key=lambda turned: turned.dictionary.depth):
            labels[turned.feature] = labels.get(turned.feature) or turned.label
            strength = "" if turned.strength is None else f" {turned.strength}"
            at = "" if turned.positions == "all" else f" at {turned.positions}"
            done.setdefault(turned.feature, [[], []])[side].append(f"{turned.mode}{strength}{at}")
    rows = [(feature, labels[feature], [", ".join(side) for side in sides]) for feature, sides in done.items()]
    doses = [dose(site.atlas, each, site.engine.norms) for each in made]
    return site.page(
        request, "compare.html", features=[], **_NOTHING | {"turned": rows, "doses": doses, "plans": texts}
    )


def _cosine(site: Any, ids: list[str]) -> float | str:
    """The cosine of the two decoder rows; where there is none, why."""
    try:
        one, other = site.atlas.directions(ids)
    except AtlasError as error:
        return str(error)
    return float(one @ other)

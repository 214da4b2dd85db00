"""A feature: what it is called and why, when it fires, what it is matched with; at Neuronpedia's own address."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from queries.neighbours import neighbours
from queries.show import show
from queries.web.site import site_of

_SCORES = ("s_res", "s_mlp", "s_att", "s_next")


def feature(request: Request) -> Response:
    """The page at `/{model}/{layer}-{set}/{index}`."""
    site = site_of(request)
    id_ = site.atlas.full_id(f"{request.path_params['dictionary']}/{request.path_params['index']}")
    record, _ = site.atlas.locate(id_)
    parts: dict[str, list[dict[str, Any]]] = {"feature": [], "earlier": [], "later": [], "context": []}
    for row in show(site.atlas, id_):
        parts[row.pop("part")].append(row)
    near = None
    # A look at every row of its dictionary: on demand.
    if request.query_params.get("near") == "1":
        near = neighbours(site.atlas, id_, top=10)
    (values,) = parts["feature"]
    return site.page(
        request,
        "feature.html",
        id=id_,
        values=values,
        scores=[(name, values[name]) for name in _SCORES if values[name] is not None],
        words={name: _words(values[name]) for name in ("fires_on", "promotes") if values[name]},
        parts=parts,
        near=near,
        record=record,
        neuronpedia=values["neuronpedia"],
    )


def _words(text: str) -> list[str]:
    return [word for word in text.split(", ") if word]

"""A feature: what it is called and why, when it fires, what it is matched with; at Neuronpedia's own address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.cli.output import printable
from queries.neighbours import neighbours
from queries.show import show
from queries.web.histogram import histogram_picture
from queries.web.site import Markup, site_of

if TYPE_CHECKING:
    from atlas.folder.detail import Detail

_SCORES = ("s_res", "s_mlp", "s_att", "s_next")


def feature(request: Request) -> Response:
    """The page at `/{model}/{layer}-{set}/{index}`."""
    site = site_of(request)
    id_ = site.atlas.full_id(f"{request.path_params['dictionary']}/{request.path_params['index']}")
    record, _ = site.atlas.locate(id_)
    parts: dict[str, list[dict[str, Any]]] = {"feature": [], "earlier": [], "later": [], "context": []}
    detail = site.atlas.detail(id_)
    for row in show(site.atlas, id_, detail=detail):
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
        words={name: _words(values[name]) for name in ("fires_on", "promotes", "suppresses") if values[name]},
        contexts=_tinted(detail),
        histogram=detail.histogram and Markup(histogram_picture(detail.histogram)),
        parts=parts,
        near=near,
        record=record,
        neuronpedia=values["neuronpedia"],
    )


def _tinted(detail: Detail) -> list[list[dict[str, Any]]]:
    """Contexts as their tokens, tinted in ten steps of the feature's largest activation in any of them."""
    largest = max((value or 0.0 for context in detail.contexts for _, value in context.tokens), default=0.0)
    return [
        [
            {
                # The space before a word is its token's; a tint on it would stand at a line's end.
                "space": " " * text.startswith(" "),
                "text": printable(text),
                "value": value,
                "tint": round(10 * value / largest) if value else 0,
            }
            for text, value in context.tokens or [(context.text, None)]
        ]
        for context in detail.contexts
    ]


def _words(text: str) -> list[str]:
    return [word for word in text.split(", ") if word]

"""A lineage: the drawing with its thresholds, the table beside it, downloads; and the path between two features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.atlas import Atlas
from atlas.errors import QueryError
from queries.drawing.alone import table
from queries.drawing.svg import svg
from queries.lineage.draw import draw, painted
from queries.lineage.graph import Lineage
from queries.lineage.walk import lineage
from queries.questions.answer_graph import answer_graph
from queries.questions.questions import ask, find_question
from queries.web.site import Markup, feature_href, numbered, query, site_of

_SUFFIX = {"attribution": "attribution.json", "mermaid": "mmd"}
FORMATS = {
    "svg": "image/svg+xml",
    "png": "image/png",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "graphml": "application/xml",
    "attribution": "application/json",
    "mermaid": "text/plain; charset=utf-8",
    "dot": "text/plain; charset=utf-8",
}


def options(asked: Mapping[str, str], atlas: Atlas) -> dict[str, Any]:
    """The options of a lineage in an address; `floor` stands in for both thresholds."""
    floor = asked.get("floor") == "1"
    cuts = {
        name: "floor" if floor else numbered(asked.get(name, ""), name, float, -1.0, 1.0)
        for name in ("min_res", "min_module")
    }
    steps = {name: numbered(asked.get(name, ""), name, int, 0, 1000) for name in ("back", "forward")}
    k = numbered(asked.get("k", ""), "k", int, 1, max(atlas.manifest.k, 1))
    given = {**cuts, **steps, "k": k}
    return {name: value for name, value in given.items() if value is not None}


def walked(request: Request) -> tuple[Lineage, dict[str, Any]]:
    """The lineage that an address asks for, and its options as the page shows them."""
    site, asked = site_of(request), request.query_params
    feature = asked.get("feature", "")
    if not feature.strip():
        raise QueryError("name a feature: search for one first")
    graph = lineage(site.atlas, feature.strip(), **options(asked, site.atlas))
    shown = {name: asked.get(name, "") for name in ("k", "back", "forward")}
    # What the graph was really cut with: without a word from the address, the atlas's own thresholds.
    for name, otherwise in (("min_res", 0.5), ("min_module", 0.25)):
        cut = graph.options.get(name)
        shown[name] = str(otherwise if cut is None or cut == "floor" else cut)
    shown["floor"] = "1" if graph.options.get("min_res") == "floor" else ""
    return graph, shown


def view(request: Request) -> Response:
    """The page at `/lineage`."""
    site = site_of(request)
    graph, shown = walked(request)
    return drawn(request, graph, f"Lineage of {graph.seed}", shown=shown, most=max(site.atlas.manifest.k, 1))


def path(request: Request) -> Response:
    """The page at `/path`: best matches that lead from one feature to another."""
    site = site_of(request)
    features = [feature.strip() for feature in request.query_params.getlist("feature") if feature.strip()]
    if len(features) != 2:
        raise QueryError("a path is between two features: name both")
    rows = ask(site.atlas, "path", *features, limit=1000)
    if not rows:
        raise QueryError(f"no path of best matches leads from {features[0]} to {features[1]}, from either end")
    graph = answer_graph(site.atlas, find_question("path"), rows)
    return drawn(request, graph, f"Path between {features[0]} and {features[1]}", shown=None, most=1)


def download(request: Request) -> Response:
    """The file at `/lineage.{format}`."""
    format_ = check_format(request)
    return delivered(walked(request)[0], format_)


def check_format(request: Request) -> str:
    """The format that an address ends in; raises QueryError where it is none."""
    format_ = str(request.path_params["format"])
    if format_ not in FORMATS:
        raise QueryError(f"a lineage is downloaded as one of {', '.join(FORMATS)}, not {format_!r}")
    return format_


def delivered(graph: Lineage, format_: str) -> Response:
    """A graph as a file of one of FORMATS."""
    content = painted(graph) if format_ == "png" else draw(graph, format_)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in graph.seed)
    # Always a file, never a document of this page's own: a downloaded picture must not run here.
    return Response(
        content,
        media_type=FORMATS[format_],
        headers={"content-disposition": f'attachment; filename="{name}.{_SUFFIX.get(format_, format_)}"'},
    )


def drawn(request: Request, graph: Lineage, title: str, **values: Any) -> Response:
    """The page with a graph's drawing and table; `shown`: its options, where it is one that the page walks itself."""
    site, figure = site_of(request), graph.figure()
    asked = {name: request.query_params.getlist(name) for name in request.query_params}

    def link(feature: str) -> str:
        # A click walks on, with the same thresholds; what is outside the cut is looked at alone.
        kept = {name: value for name, value in asked.items() if name != "feature"}
        return "/lineage" + query(feature=feature, **kept)

    return site.page(
        request,
        "lineage.html",
        title=title,
        graph=graph,
        picture=Markup(svg(figure, link=link)),
        table=Markup(table(figure, link=feature_href)),
        formats=[name for name in FORMATS if values["shown"] is not None or values.get("on")],
        again=query(**asked),
        **{"on": None, **values},
    )

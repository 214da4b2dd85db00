"""The lineage of one occurrence: a feature at a token of a sentence, its edges weighed by what they do there."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atlas.errors import QueryError
from queries.lineage.graph import Lineage
from queries.lineage.walk import lineage
from queries.web.engine import MAX_PROMPT, Turn
from queries.web.site import first, form, numbered, site_of
from queries.web.views.lineage import check_format, delivered, drawn


async def run(request: Request) -> Response:
    """The page at `/occurrence`, by POST: it runs the model, one at a time, loaded at its first use."""
    graph, options = await _walked(request)
    on = graph.options["on"]
    shown = {"text": on["text"], "token": on["position"], "k": options["k"], "verify": options["verify"]}
    most = max(site_of(request).atlas.manifest.k, 1)
    return drawn(request, graph, f"{graph.seed} at {on['token'].strip()!r}", shown=None, most=most, on=shown)


async def download(request: Request) -> Response:
    """The file at `/occurrence.{format}`, by POST: the same, made again."""
    format_ = check_format(request)
    graph, _ = await _walked(request)
    return delivered(graph, format_)


async def _walked(request: Request) -> tuple[Lineage, dict[str, Any]]:
    """The graph that a form asks for, and its options; raises Busy where one runs and one waits."""
    site = site_of(request)
    fields = await form(request)
    text, feature = first(fields, "text"), site.atlas.full_id(first(fields, "feature"))
    site.atlas.locate(feature)
    if not text or len(text) > MAX_PROMPT:
        raise QueryError(f"write a sentence of 1 to {MAX_PROMPT:,} characters")
    options: dict[str, Any] = {
        "token": numbered(first(fields, "token"), "token", int, 0, MAX_PROMPT),
        "k": numbered(first(fields, "k", "1"), "k", int, 1, max(site.atlas.manifest.k, 1)),
        "verify": first(fields, "verify") == "1",
    }

    def work(turn: Turn) -> None:
        turn.check()
        graph = lineage(site.atlas, feature, on=text, model=turn.model, tokenizer=turn.tokenizer, **options)
        turn.put({"event": "graph", "graph": graph})

    graph = None
    async for event in site.engine.run(work):
        if event["event"] in ("error", "stopped"):
            raise QueryError(event["text"])
        graph = event.get("graph", graph)
    if graph is None:
        raise QueryError("the model gave no answer; try again")
    return graph, options

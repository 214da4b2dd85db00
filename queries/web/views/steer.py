"""Steering: a basket or a lineage is turned, and the text with and without it streams side by side."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from atlas.errors import AtlasError
from queries.advice.advised import dose
from queries.web.engine import MAX_SECONDS, MAX_TOKENS, RETRY, Busy, Event
from queries.web.site import Site, form, query, site_of
from queries.web.steering import MODES, POSITIONS, SCHEDULES, Fields, Run, carried, line, plan_of, run_of, shown

HISTORY = 20  # runs of this session that are kept to look at


def view(request: Request) -> Response:
    """The page at `/steer`, by GET: the form, filled from the address."""
    asked = request.query_params
    fields = {name: asked.getlist(name) for name in asked}
    return _shown(request, fields, described=_described(site_of(request), fields))


async def run(request: Request) -> Response:
    """The page at `/steer`, by POST: the run's texts, when they are all there (for browsers without scripts)."""
    site = site_of(request)
    fields = await form(request)
    try:
        run = await run_in_threadpool(run_of, site.atlas, fields, site.engine.norms)
        sides: dict[str, dict[str, Any]] = {}
        async for event in site.engine.run(run):
            _gather(sides, event)
            if await request.is_disconnected():
                break
    except Busy as error:
        return _shown(request, fields, error=str(error), status=429, headers={"retry-after": str(RETRY)})
    except AtlasError as error:
        return _shown(request, fields, error=str(error), status=400)
    _remember(site, fields, run, sides)
    wrong = sides.pop("", {}).get("error")
    return _shown(request, fields, sides=sides, error=wrong, described=_described(site, fields))


async def stream(request: Request) -> Response:
    """`/steer/stream`, by POST: the same run as events, each as soon as it is there."""
    site = site_of(request)
    fields = await form(request)
    try:
        run = await run_in_threadpool(run_of, site.atlas, fields, site.engine.norms)
        events = site.engine.run(run)
    except Busy as error:
        return JSONResponse({"error": str(error)}, 429, {"retry-after": str(RETRY)})
    except AtlasError as error:
        return JSONResponse({"error": str(error)}, 400)

    async def lines() -> AsyncIterator[bytes]:
        sides: dict[str, dict[str, Any]] = {}
        async for event in events:
            _gather(sides, event)
            yield line(event)
        _remember(site, fields, run, sides)
        yield line({"event": "end", "address": "/steer" + query(**carried(fields))})

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def plan(request: Request) -> Response:
    """`/steer/plan`, by POST: the plan as the file that `steer --plan` reads; its name is the server's."""
    site = site_of(request)
    made = await run_in_threadpool(plan_of, site.atlas, await form(request))
    text = json.dumps(made.to_dict(), indent=1, ensure_ascii=False, default=str) + "\n"
    return Response(
        text, media_type="application/json", headers={"content-disposition": 'attachment; filename="plan.json"'}
    )


def _described(site: Site, fields: Fields) -> dict[str, Any] | None:
    """The plan of a form as a table; None where there is none yet, an error in words where it cannot be made."""
    if not any(fields.get(name) for name in ("feature", "lineage", "plan")):
        return None
    try:
        made = plan_of(site.atlas, fields)
    except AtlasError as error:
        return {"error": str(error), "rows": []}
    known = dose(site.atlas, made, site.engine.norms)
    rows = [
        each.to_dict() | {"length": length if each.strength is not None and each.strength.percent else None}
        for each, length in zip(made.interventions, known.lengths, strict=True)
    ]
    return {"error": None, "rows": rows, "dose": known}


def _gather(sides: dict[str, dict[str, Any]], event: Event) -> None:
    """Events of a run, as one value a side; what is of no side stands under the empty name."""
    kind = event["event"]
    side = sides.setdefault(event.get("side", ""), {"text": "", "tokens": 0, "hooks": [], "warnings": [], "nats": None})
    if kind == "text":
        side["text"] += event["text"]
    elif kind in ("error", "stopped"):
        side["error"] = event["text"]
    elif kind in ("done", "nats"):
        side.update({name: value for name, value in event.items() if name not in ("event", "side")})


def _remember(site: Site, fields: Fields, run: Run, sides: dict[str, dict[str, Any]]) -> None:
    kept = {side: values["text"] for side, values in sides.items() if side}
    address = "/steer" + query(**carried(fields))
    made = {"when": time.strftime("%H:%M:%S"), "prompt": run.prompt, "texts": kept, "address": address}
    site.history[:] = [made, *site.history][:HISTORY]


def _shown(
    request: Request,
    fields: Fields,
    *,
    sides: dict[str, dict[str, Any]] | None = None,
    error: str | None = None,
    described: dict[str, Any] | None = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    site = site_of(request)
    choices = {"modes": MODES, "positions": POSITIONS, "schedules": SCHEDULES}
    bounds = {"max_tokens": MAX_TOKENS, "max_seconds": MAX_SECONDS}
    page = site.page(
        request,
        "steer.html",
        status,
        **choices,
        **bounds,
        form=shown(fields),
        sides=sides,
        error=error,
        described=described,
        history=site.history,
        ready=site.engine.ready,
    )
    page.headers.update(headers or {})
    return page

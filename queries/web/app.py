"""Every address of the page, and the guard before all of them."""

from __future__ import annotations

import mimetypes
import sys
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas.errors import AtlasError, UnknownFeature
from queries.drawing.alone import dark_style, static
from queries.web.engine import RETRY, Busy
from queries.web.guard import Guard
from queries.web.site import Site, site_of
from queries.web.views import activations, compare, cypher, evidence, feature, find, home, lineage, occurrence, steer

_OWN = {"page.css", "page.js", "steer.js", "icon.svg"}


def file(request: Request) -> Response:
    """A script, a style or the icon: named ones only."""
    name = request.path_params["name"]
    if name == "drawing.js":
        text = static(name)
    elif name == "drawing.css":
        text = static(name) + dark_style()
    elif name in _OWN:
        text = (files("queries.web") / "static" / name).read_text(encoding="utf-8")
    else:
        return PlainTextResponse("there is no such file\n", 404)
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
    return Response(text, media_type=kind, headers={"cache-control": "private, max-age=60"})


def icon(request: Request) -> Response:
    """What browsers ask for by themselves."""
    request.path_params["name"] = "icon.svg"
    return file(request)


ROUTES = (
    Route("/", home.home),
    Route("/favicon.ico", icon),
    Route("/static/{name}", file),
    Route("/search", find.find),
    Route("/lineage", lineage.view),
    Route("/lineage.{format}", lineage.download),
    Route("/path", lineage.path),
    Route("/compare", compare.compare, methods=["GET"]),
    Route("/compare", compare.plans, methods=["POST"]),
    Route("/evidence", evidence.view),
    Route("/cypher", cypher.box, methods=["GET"]),
    Route("/cypher", cypher.run, methods=["POST"]),
    Route("/steer", steer.view, methods=["GET"]),
    Route("/steer", steer.run, methods=["POST"]),
    Route("/steer/stream", steer.stream, methods=["POST"]),
    Route("/steer/plan", steer.plan, methods=["POST"]),
    Route("/activations", activations.run, methods=["POST"]),
    Route("/occurrence", occurrence.run, methods=["POST"]),
    Route("/occurrence.{format}", occurrence.download, methods=["POST"]),
    # Neuronpedia's own addresses; last, since every other address could be one.
    Route("/{dictionary:path}/{index:int}", feature.feature),
)


def application(site: Site, token: str, host: str, port: int) -> ASGIApp:
    """The page as an ASGI application, guarded."""
    app = Starlette(routes=list(ROUTES), exception_handlers={AtlasError: _told, 404: _nowhere})
    # /feature/ and /feature would be one page at two addresses; a redirect would answer before the view does.
    app.router.redirect_slashes = False
    app.state.site = site
    return Guard(Faults(app), token, host, port)


class Faults:
    """Turns what nobody foresaw into a page and a line on stderr, where the answer has not begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:
            text = f"{type(error).__name__}: {error} (a fault of feature-atlas)"
            print(f"{scope['method']} {scope['path']}: {text}", file=sys.stderr)
            if not begun:
                request = Request({**scope, "app": self.app}, receive)
                await _shown(request, 500, text)(scope, receive, send)


def _told(request: Request, error: Exception) -> Response:
    """What the user can act on, in one line."""
    status = 404 if isinstance(error, UnknownFeature) else 429 if isinstance(error, Busy) else 400
    headers = {"retry-after": str(RETRY)} if status == 429 else None
    return _shown(request, status, str(error), headers)


def _nowhere(request: Request, _error: Exception) -> Response:
    return _shown(request, 404, "there is no such page")


def _shown(request: Request, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"error": text}, status, headers)
    page = site_of(request).page(request, "error.html", status, text=text)
    page.headers.update(headers or {})
    return page

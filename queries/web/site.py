"""What all views share: the atlas, the model's engine, templates, and what is the same on every page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from atlas.cli.output import printable
from atlas.errors import QueryError
from queries.web.engine import Engine

if TYPE_CHECKING:
    from atlas.atlas import Atlas

MAX_FORM = 1 << 20  # bytes


@dataclass
class Site:
    """One atlas on one page."""

    atlas: Atlas
    engine: Engine
    kept: dict[str, Any] = field(default_factory=dict)  # what was counted once: an open atlas does not change
    history: list[dict[str, Any]] = field(default_factory=list)  # this session's steering runs, the last one first

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, asked at its first use only."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    @cached_property
    def templates(self) -> Environment:
        """Templates of this room; whatever they are given is text and escaped, unless it is Markup."""
        loader = PackageLoader("queries.web", "templates")
        templates = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        templates.filters |= {
            "plain": _plain,
            "figure": _figure,
            "count": _count,
            "place": _place,
            "href": feature_href,
        }
        templates.globals |= {"query": query, "atlas_name": self.name, "steers": self.engine.name}
        return templates

    @property
    def name(self) -> str:
        """The atlas in a few characters: its folder's name, or its server."""
        return self.atlas.path.resolve().name if self.atlas.path else self.atlas.address

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A template, filled."""
        text = self.templates.get_template(template).render(path=request.url.path, asked=request.query_params, **values)
        return HTMLResponse(text, status)


def site_of(request: Request) -> Site:
    """The site that a request is for."""
    site: Site = request.app.state.site
    return site


async def form(request: Request) -> dict[str, list[str]]:
    """The fields of a POST, each with its values. Raises QueryError for another form than a page sends."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise QueryError("a form is sent as application/x-www-form-urlencoded")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            raise QueryError(f"a form has at most {MAX_FORM:,} bytes")
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000):
        fields.setdefault(name, []).append(value)
    return fields


def first(fields: Mapping[str, list[str]], name: str, default: str = "") -> str:
    """The first value of a field that is not blank."""
    return next((value for value in fields.get(name, ()) if value.strip()), default)


def numbered(text: str, name: str, kind: type[int] | type[float], low: float, high: float) -> Any:
    """A number within bounds; None where there is no text. Raises QueryError."""
    if not text.strip():
        return None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise QueryError(f"{name} is a number from {low:g} to {high:g}, not {text!r}")
    return value


def query(**values: Any) -> str:
    """Values as the part of an address behind its path; what is None or empty is left out."""
    kept = {name: value for name, value in values.items() if value not in (None, "", [], ())}
    return f"?{urlencode(kept, doseq=True)}" if kept else ""


def feature_href(feature: str) -> str:
    """The address of a feature's page: Neuronpedia's own."""
    return "/" + quote(feature, safe="/@:.-_~+")


def _plain(value: Any) -> str:
    """Text on one line, without what turns its direction or moves a cursor."""
    return "" if value is None else printable(str(value))


def _figure(value: Any, digits: int = 2) -> str:
    """A number for people; nothing where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _place(value: str) -> str:
    """Where something comes from: of a folder of this machine its last two parts, which tell it apart."""
    parts = printable(value).split("/")
    return f"…/{'/'.join(parts[-2:])}" if value.startswith("/") and len(parts) > 3 else printable(value)


def _count(value: Any) -> str:
    return "–" if value is None else f"{value:,}"


__all__ = ["Markup", "Site", "feature_href", "first", "form", "numbered", "query", "site_of"]

"""Who may ask: everything is refused that is not plainly the user's own browser.

1. Host: only names under which the server was started. A foreign name that resolves to this machine (DNS rebinding) is
   refused here.
2. Every method but GET and HEAD: `Sec-Fetch-Site` must be same-origin or none, `Origin`, where there is one, the host
   itself. Neither header: not a browser, which the cookie alone answers for.
3. The start-up token, once in the address, becomes a strict cookie that no script reads; without it nothing is shown.
4. Every answer carries a policy that lets nothing foreign be loaded, framed or run; no header lets other pages read it.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = ("GET", "HEAD")
METHODS = (*SAFE, "POST")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Not no-referrer: under it a browser sends `Origin: null` with the page's own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
MAX_BODY = 1 << 20  # bytes of a request
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """An ASGI application that lets only the user's own requests through to another one."""

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        """`host`, `port`: where the server listens."""
        self.app = app
        self.token = token
        self.host = host
        self.port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; either way with the headers that keep the answer to itself."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            raise RuntimeError(f"{scope['type']} is not served")
        answer = self._refusal(scope) or self._entry(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    # Only files of the page itself say otherwise of their keeping.
                    if name != "cache-control" or name not in headers:
                        headers[name] = value
            await send(message)

        await (answer or self.app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self.known_host(headers.get("host", "")):
            return _refused(400, "this page is served under its own address only: open the one that serve printed")
        if scope["method"] not in METHODS:
            return _refused(405, "the method is not served")
        if scope["method"] not in SAFE and not self._own(headers):
            return _refused(403, "the request comes from another page")
        if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > MAX_BODY:
            return _refused(413, f"a request has at most {MAX_BODY:,} bytes")
        return None

    def known_host(self, given: str) -> bool:
        """Whether a Host header names this server: loopback, or what it was told to listen at, and its port."""
        try:
            parts = urlsplit(f"//{given}")
            name, port = (parts.hostname or "").lower(), parts.port or 80
        except ValueError:
            return False
        if port != self.port or given.lower() not in (f"{name}:{port}", f"[{name}]:{port}", name, f"[{name}]"):
            return False
        if name in _LOOPBACK or name == self.host.lower():
            return True
        # Beyond loopback an address in figures is fine: rebinding needs a name.
        return not is_loopback(self.host) and _is_address(name)

    def _own(self, headers: Headers) -> bool:
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None and site not in ("same-origin", "none"):
            return False
        # "null" is what sandboxed and redirected pages send: never ours.
        return origin is None or origin.lower() == f"http://{headers['host'].lower()}"

    def _entry(self, scope: Scope) -> Response | None:
        """The way in: a cookie for the token, nothing without either."""
        if self._holds(Headers(scope=scope).getlist("cookie")):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.pop("token", [""])
        if len(given) != 1 or not self._same(given[0]) or scope["method"] not in SAFE:
            return _refused(403, "open the address that `feature-atlas serve` printed, with its token")
        # The token leaves the address at once. `//host` would lead away: one slash, whatever was asked.
        rest = urlencode(query, doseq=True)
        entered = RedirectResponse("/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else ""), 303)
        entered.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
        return entered

    @property
    def cookie(self) -> str:
        """Its name; cookies know no ports, so that two pages of one machine need two."""
        return f"feature-atlas-{self.port}"

    def _holds(self, cookies: list[str]) -> bool:
        return any(self._same(cookie_parser(text).get(self.cookie, "")) for text in cookies)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _refused(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status)

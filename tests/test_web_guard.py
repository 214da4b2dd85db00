"""Who may ask the page: every route of a real server, asked by strangers over a real socket."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from served import CODE, SEED, Served, served, tiny_atlas

from queries.web.app import ROUTES
from queries.web.guard import MAX_BODY, POLICY, Guard, is_loopback

# Each route by an address that answers. A new route must be named here, or the walk fails.
ADDRESSES = {
    "/": "/",
    "/favicon.ico": "/favicon.ico",
    "/static/{name}": "/static/page.js",
    "/search": "/search?q=film",
    "/lineage": f"/lineage?feature={SEED}",
    "/lineage.{format}": f"/lineage.svg?feature={SEED}",
    "/path": f"/path?feature={SEED}&feature=tiny-1m/1-res-64/3",
    "/compare": f"/compare?feature={SEED}&feature=tiny-1m/1-res-64/3",
    "/cypher": "/cypher",
    "/steer": "/steer",
    "/steer/stream": "/steer/stream",
    "/steer/plan": "/steer/plan",
    "/activations": "/activations",
    "/occurrence": "/occurrence",
    "/occurrence.{format}": "/occurrence.json",
    "/evidence": "/evidence",
    "/{dictionary:path}/{index:int}": f"/{SEED}",
}
FORMS = {
    "/cypher": {"statement": "MATCH (f:Feature) RETURN f.id AS id LIMIT 1"},
    "/steer/plan": {"feature": SEED, "strength": "3"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guard")
    with served(tiny_atlas(folder, range(3)), "no-model-is-loaded") as page:
        yield page


def ask(page: Served, method: str, address: str, body: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of a request made by hand, with exactly these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    connection.putrequest(method, address, skip_host="Host" in headers, skip_accept_encoding=True)
    if body:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))} | headers
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body.encode() or None)
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


@pytest.fixture(scope="module")
def cookie(page: Served) -> str:
    status, headers, _ = ask(page, "GET", page.address.removeprefix(page.base))
    assert status == 303 and headers["location"] == "/"
    return headers["set-cookie"].partition(";")[0]


def test_the_cookie_is_strict_and_hidden_from_scripts(page: Served) -> None:
    _, headers, _ = ask(page, "GET", page.address.removeprefix(page.base))
    kept = {part.strip().lower() for part in headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= kept


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_every_route_is_walked(path: str) -> None:
    assert path in ADDRESSES


WALK = sorted({(route.path, method) for route in ROUTES for method in METHODS})


@pytest.mark.parametrize(("path", "method"), WALK, ids=[f"{method} {path}" for path, method in WALK])
def test_strangers_are_refused_at_every_route(page: Served, cookie: str, path: str, method: str) -> None:
    address = ADDRESSES[path]
    host = f"127.0.0.1:{page.port}"
    own = {"Host": host, "Cookie": cookie}
    # DNS rebinding: a foreign name that leads here, with whatever cookie.
    for foreign in (
        "evil.test",
        f"evil.test:{page.port}",
        f"127.0.0.1.evil.test:{page.port}",
        f"localhost:{page.port}.a",
    ):
        assert ask(page, method, address, **(own | {"Host": foreign}))[0] == 400
    assert ask(page, method, address, **(own | {"Host": f"127.0.0.1:{page.port + 1}"}))[0] == 400
    # Without the cookie, with a wrong one, with one of another port's page.
    for wrong in ("", "x=y", cookie[:-1] + "_", cookie.replace(str(page.port), "80")):
        assert ask(page, method, address, Host=host, Cookie=wrong)[0] in (403, 405)
    if method in ("GET", "HEAD"):
        allowed = any(route.path == path and method in (route.methods or ()) for route in ROUTES)
        assert (ask(page, method, address, **own)[0] == 200) == allowed
    elif method == "POST":
        for stranger in (
            {"Origin": "http://evil.test"},
            {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{page.port + 1}"},
            {"Origin": f"https://{host}"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site", "Origin": f"http://{host}"},
        ):
            assert ask(page, method, address, "a=b", **(own | stranger))[0] == 403
    else:
        assert ask(page, method, address, **own)[0] == 405


@pytest.mark.parametrize("path", [route.path for route in ROUTES])
def test_no_answer_may_be_read_by_others_or_load_from_them(page: Served, cookie: str, path: str) -> None:
    host = f"127.0.0.1:{page.port}"
    for headers in ({"Cookie": cookie}, {}, {"Cookie": cookie, "Origin": "http://evil.test"}, {"Host": "evil.test"}):
        status, answered, _ = ask(page, "GET", ADDRESSES[path], **({"Host": host} | headers))
        assert answered["content-security-policy"] == POLICY and "unsafe" not in POLICY
        assert answered["x-content-type-options"] == "nosniff" and answered["referrer-policy"] == "same-origin"
        assert not [name for name in answered if name.startswith("access-control-")]
        assert "server" not in answered
        assert answered["cache-control"] == (
            "private, max-age=60" if "static" in path and status == 200 else "no-store"
        ) or (path == "/favicon.ico")


def test_a_browser_of_the_pages_own_is_served(page: Served, cookie: str) -> None:
    host = f"127.0.0.1:{page.port}"
    for path, fields in FORMS.items():
        body = str(httpx.QueryParams(fields))
        for own in ({"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
            assert ask(page, "POST", path, body, Host=host, Cookie=cookie, **own)[0] == 200, own
    assert ask(page, "GET", "/", Host=f"localhost:{page.port}", Cookie=cookie)[0] == 200


def test_the_token_is_asked_once_and_leads_nowhere_else(page: Served) -> None:
    token = page.address.partition("token=")[2]
    host = f"127.0.0.1:{page.port}"
    status, headers, _ = ask(page, "GET", f"/search?q=film&token={token}", Host=host)
    assert (status, headers["location"]) == (303, "/search?q=film")
    for away in ("//evil.test", "/\\evil.test", "///evil.test/%2e%2e"):
        status, headers, _ = ask(page, "GET", f"{away}?token={token}", Host=host)
        assert (
            status == 303 and headers["location"].startswith("/") and not headers["location"].startswith(("//", "/\\"))
        )
    for wrong in (f"?token={token[:-1]}", f"?token={token}&token={token}", "?token=", f"?token={token}x"):
        assert ask(page, "GET", f"/{wrong}", Host=host)[0] == 403
    assert ask(page, "POST", f"/cypher?token={token}", "statement=RETURN+1+AS+x", Host=host)[0] == 403


def test_bodies_are_bounded_and_of_one_kind(page: Served, cookie: str) -> None:
    own = {"Host": f"127.0.0.1:{page.port}", "Cookie": cookie}
    large = "statement=" + "x" * MAX_BODY
    assert ask(page, "POST", "/cypher", large, **own)[0] == 413
    json_ = ask(
        page, "POST", "/cypher", '{"statement": "RETURN 1 AS x"}', **own, **{"Content-Type": "application/json"}
    )
    assert json_[0] == 400 and "x-www-form-urlencoded" in json_[2]


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "%2e%2e/guard.py", "page.css%00", "templates", "drawing"])
def test_files_are_named_ones_only(page: Served, cookie: str, name: str) -> None:
    status, _, text = ask(page, "GET", f"/static/{name}", Host=f"127.0.0.1:{page.port}", Cookie=cookie)
    assert status == 404 and "import" not in text


def test_downloads_are_files_and_never_documents(page: Served) -> None:
    client = page.client()
    for format_ in ("svg", "html", "json", "graphml", "png"):
        answer = client.get(f"/lineage.{format_}?feature={SEED}")
        assert answer.headers["content-disposition"] == f'attachment; filename="tiny-1m_2-res-64_3.{format_}"'
    plan = client.post("/steer/plan", data=FORMS["/steer/plan"])
    assert plan.headers["content-disposition"] == 'attachment; filename="plan.json"'


def test_statements_are_guarded_and_never_run_by_a_link(page: Served) -> None:
    client = page.client()
    answer = client.post("/cypher", data={"statement": "MATCH (f:Feature) DETACH DELETE f"})
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    statement = "MATCH (f:Feature) RETURN f.id AS onlythere LIMIT 1"
    shown = client.get("/cypher", params={"statement": statement}).text
    assert "onlythere" in shown and "<th>onlythere</th>" not in shown
    assert "<th>onlythere</th>" in client.post("/cypher", data={"statement": statement}).text


@pytest.mark.parametrize(
    ("host", "given", "known"),
    [
        ("127.0.0.1", "127.0.0.1:80", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "[::1]:80", True),
        ("::1", "[::1]:80", True),
        ("127.0.0.1", "LOCALHOST:80", True),
        ("127.0.0.1", "192.168.0.9:80", False),
        ("127.0.0.1", "user@127.0.0.1:80", False),
        ("127.0.0.1", "127.0.0.1:80/x", False),
        ("127.0.0.1", "127.0.0.1:080x", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.0.9:80", True),
        ("0.0.0.0", "lab.example:80", False),
        ("lab.example", "lab.example:80", True),
        ("lab.example", "other.example:80", False),
    ],
)
def test_hosts(host: str, given: str, known: bool) -> None:
    async def nothing(*_: object) -> None: ...

    assert Guard(nothing, "t", host, 80).known_host(given) is known


def test_loopback() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("lab.example")


@pytest.mark.slow
def test_beyond_loopback_only_with_a_warning_and_errors_are_one_line(page: Served, tmp_path: Path) -> None:
    atlas = tiny_atlas(tmp_path, range(2))
    with served(atlas, "none", "--host", "0.0.0.0") as other:
        assert other.address.startswith("http://0.0.0.0:")
        assert httpx.get(f"http://127.0.0.1:{other.port}/").status_code == 403
        other.process.terminate()
        assert other.process.stderr is not None and "can be reached from other machines" in other.process.stderr.read()
    command = [sys.executable, "-c", CODE, "serve", "-a", str(atlas), "--port", str(page.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("Error: 127.0.0.1 port") and done.stderr.count("\n") == 1

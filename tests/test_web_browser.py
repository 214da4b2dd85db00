"""The page in a real Chromium: drawn as it should be, walked by keyboard, read by axe, attacked by other pages."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from browser import Visit, chromium, needs_chromium, run_steering
from flow_graphs import flow
from playwright.sync_api import expect
from served import PROMPT, SEED, Served, served, tiny_atlas, tiny_folder

from queries.drawing.alone import html

pytestmark = needs_chromium
LINEAGE = f"/lineage?feature={SEED}&min_res=0.3&min_module=0.2&k=2"
PAGES = {
    "home": "/",
    "search": "/search?q=film",
    "feature": f"/{SEED}",
    "lineage": LINEAGE,
    "path": f"/path?feature={SEED}&feature=tiny-1m/0-res-64/3",
    "compare": f"/compare?feature={SEED}&feature=tiny-1m/1-res-64/3&floor=1",
    "evidence": "/evidence",
    "cypher": "/cypher?question=hubs",
    "steer": f"/steer?feature={SEED}&strength=4&tokens=6&prompt=w5+w9",
    "error": "/no/such",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("browser")
    with served(tiny_atlas(folder), tiny_folder(folder)) as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # A foreign name that leads to this machine: what DNS rebinding ends in.
    with chromium("--host-resolver-rules=MAP evil.test 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, page: Served) -> Iterator[Visit]:
    visit = Visit(browser, page.base, viewport={"width": 1200, "height": 800})
    visit.go(page.address.removeprefix(page.base))
    yield visit
    visit.close()


BOXES = """() => [...document.querySelectorAll('.fa-dot')].map((dot) => {
  const of = (e) => { const b = e.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height]; };
  const glyph = of(dot.querySelector('path, rect, circle'));
  return {id: dot.dataset.id, label: of(dot.querySelector('.fa-label')), glyph};
})"""

PAPER = "['width', 'height'].map((name) => +document.querySelector('.fa-figure').getAttribute(name))"


def test_the_drawing_as_it_is_painted(browser: Any, tmp_path: Path) -> None:
    """No label over another or a glyph, all on the paper, later features above: by the fonts that are really there."""
    for size in (12, 60, 250):
        graph = flow(size)
        (tmp_path / "drawing.html").write_text(html(graph.figure()))
        visit = Visit(browser)
        tab = visit.go(f"file://{tmp_path}/drawing.html")
        boxes = tab.evaluate(BOXES)
        width, height = tab.evaluate(
            "['width', 'height'].map((n) => +document.querySelector('.fa-figure').getAttribute(n))"
        )
        assert len(boxes) == len(graph.nodes)
        rooms = [(box["id"], box[kind]) for box in boxes for kind in ("label", "glyph")]
        for (one, a), (other, b) in combinations(rooms, 2):
            apart = a[2] <= b[0] + 0.1 or b[2] <= a[0] + 0.1 or a[3] <= b[1] + 1.5 or b[3] <= a[1] + 1.5
            assert apart, (size, one, a, other, b)
        assert all(r[0] >= 0 and r[1] >= 0 and r[2] <= width and r[3] <= height for _, r in rooms)
        depths = {node.id: node.depth for node in graph.nodes}
        middle = {box["id"]: (box["glyph"][1] + box["glyph"][3]) / 2 for box in boxes}
        ordered = sorted(depths, key=lambda id_: depths[id_])
        for earlier, later in combinations(ordered[:: max(1, size // 40)], 2):
            assert depths[earlier] == depths[later] or middle[earlier] > middle[later]
        visit.close()


def test_the_file_alone_is_used_by_keyboard_and_slider(browser: Any, tmp_path: Path) -> None:
    graph = flow(40)
    (tmp_path / "drawing.html").write_text(html(graph.figure()))
    visit = Visit(browser)
    tab = visit.go(f"file://{tmp_path}/drawing.html")
    seed = tab.locator(f'.fa-dot[data-id="{graph.seed}"]')
    assert tab.locator('.fa-dot[tabindex="0"]').count() == 1
    seed.focus()
    tab.keyboard.press("ArrowDown")
    # Down leads along the strongest edge to an earlier feature.
    best = max((edge for edge in graph.edges if edge.source == graph.seed), key=lambda edge: edge.similarity)
    assert tab.evaluate("document.activeElement.dataset.id") == best.target
    tab.keyboard.press("p")
    assert tab.locator("[data-pins] li").all_inner_texts() == [best.target]
    tab.keyboard.press("Home")
    assert tab.evaluate("document.activeElement.dataset.id") == graph.seed
    assert best.target in tab.locator("[data-pins]").inner_text()
    tab.locator("input[data-threshold]").fill("0.9")
    shown = tab.locator(".fa-edge[data-e]:not([hidden])").count()
    assert shown <= sum(edge.similarity >= 0.9 for edge in graph.edges)
    assert f"of {len(graph.nodes)} features" in tab.locator("output[data-threshold]").inner_text()
    assert tab.locator(".fa-dot:not([hidden])").count() < len(graph.nodes)
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(browser: Any, page: Served, name: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    visit = Visit(browser, page.base, color_scheme=scheme)
    visit.go(page.address.removeprefix(page.base))
    tab = visit.go(PAGES[name])
    found = Axe().run(tab).response["violations"]
    told = [(each["id"], node["html"][:120]) for each in found for node in each["nodes"]]
    visit.context.close()
    assert not told, told


@pytest.mark.parametrize(("width", "zoom"), [(1200, 1), (360, 1), (640, 2)])
def test_nothing_is_wider_than_the_window(browser: Any, page: Served, width: int, zoom: int) -> None:
    """At 360 pixels, and at twice the size: what is wide scrolls in a box of its own."""
    visit = Visit(browser, page.base, viewport={"width": width // zoom, "height": 700}, device_scale_factor=zoom)
    visit.go(page.address.removeprefix(page.base))
    for name, address in PAGES.items():
        tab = visit.go(address)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    visit.context.close()


STOPS = """() => [...document.querySelectorAll(
  'a[href], button, input, select, textarea, summary, [tabindex="0"]'
)].filter((e) => e.checkVisibility() && e.type !== 'hidden' && e.tabIndex >= 0).length"""
# Where the focus is, and whether it can be seen there: an outline, or a feature's name underlined.
PLACE = """() => {
  const at = document.activeElement;
  const name = at.querySelector('.fa-label');
  const seen = getComputedStyle(at).outlineStyle !== 'none' ||
    (name && getComputedStyle(name).textDecorationLine !== 'none');
  return at === document.body ? null : [at.number, seen];
}"""


@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(visit: Visit, name: str) -> None:
    tab = visit.go(PAGES[name])
    wanted = tab.evaluate(STOPS)
    seen = set()
    tab.evaluate("[...document.querySelectorAll('*')].forEach((e, i) => { e.number = i; })")
    for _ in range(wanted + 5):
        tab.keyboard.press("Tab")
        place = tab.evaluate(PLACE)
        if place is not None:
            assert place[1], tab.evaluate("document.activeElement.outerHTML.slice(0, 200)")
            seen.add(place[0])
    assert len(seen) >= wanted
    if name == "error":
        # Its status is 404, which a browser logs.
        visit.wrong = [line for line in visit.wrong if "404" not in line]


def test_sliders_draw_anew_and_the_address_follows(visit: Visit) -> None:
    tab = visit.go(LINEAGE)
    before = tab.locator(".fa-dot").count()
    tab.locator('input[name="min_res"]').fill("0.99")
    tab.wait_for_url(re.compile("min_res=0.99"))
    expect(tab.locator(".fa-dot")).not_to_have_count(before)
    address = tab.url.removeprefix(visit.base)
    after = tab.locator(".fa-dot").count()
    tab = visit.go(address)
    assert tab.locator(".fa-dot").count() == after
    # What was drawn anew is alive too.
    tab.locator(".fa-dot").first.focus()
    tab.keyboard.press("p")
    tab.keyboard.press("p")
    assert tab.locator("[data-pins]").is_hidden()


def test_walk_pin_and_steer(visit: Visit) -> None:
    """A theme is searched, its lineage walked, features pinned, the basket steered, the plan taken away."""
    tab = visit.go("/")
    tab.get_by_label("What are you looking for?").fill("film")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("/search"))
    tab.get_by_role("link", name="lineage").first.click()
    tab.wait_for_url(re.compile("/lineage"))
    dots = tab.locator(".fa-dot")
    for number in range(2):
        dots.nth(number).click(modifiers=["Control"])
    assert tab.locator("[data-pins] li").count() == 2
    tab.get_by_role("button", name="Steer these").click()
    tab.wait_for_url(re.compile("/steer"))
    assert len(tab.locator("#basket").input_value().split()) == 2
    run_steering(tab, PROMPT, strength="4", tokens="5")
    expect(tab.locator("[data-side]")).to_have_count(3)
    assert "nats a token" in tab.locator('[data-side="control"]').inner_text()
    assert "tokens=5" in tab.url and "control=1" in tab.url
    with tab.expect_download() as caught:
        tab.get_by_role("button", name="Download the plan").click()
    assert caught.value.suggested_filename == "plan.json"


def test_a_share_of_the_norm_is_dragged_and_told_as_a_length(visit: Visit) -> None:
    """Known after a run; then the slider says it while it is dragged, half the share half the length."""
    tab = visit.go(f"/steer?feature={SEED}&strength=30%25&tokens=3&prompt=w5")
    told = tab.locator("output[data-norms]")
    if not told.get_attribute("data-norms"):  # another test may have run this feature before
        expect(told).to_have_text("30%")
    tab.get_by_role("button", name="Run", exact=True).click()
    expect(tab.locator("p[data-status]")).to_have_text("done", timeout=60_000)
    (norm,) = map(float, told.get_attribute("data-norms").split())
    for share in (15, 60):
        tab.locator("[data-strength]").fill(str(share))
        expect(told).to_have_text(f"{share}% = {share / 100 * norm:.3g}")
        assert tab.locator('input[name="strength"]').input_value() == f"{share}%"


def test_a_stream_is_stopped_by_its_button_and_by_leaving(visit: Visit) -> None:
    address = f"/steer?feature={SEED}&strength=4&tokens=256&prompt=w5"
    for leave in (False, True):
        tab = visit.go(address)
        tab.get_by_role("button", name="Run", exact=True).click()
        expect(tab.locator("[data-side]").first).to_be_visible(timeout=60_000)
        if leave:
            visit.go("/")
            continue
        tab.get_by_role("button", name="Stop").click()
        expect(tab.locator("p[data-status]")).to_have_text("stopped")
    tab = visit.go(address.replace("256", "1"))
    tab.get_by_role("button", name="Run", exact=True).click()
    expect(tab.locator("p[data-status]")).to_have_text("done", timeout=60_000)


def test_labels_never_act(visit: Visit) -> None:
    for address in PAGES.values():
        tab = visit.go(address)
        assert tab.evaluate("window.hacked") is None
        assert tab.locator("img, iframe, [onload], [onerror]").count() == 0
    visit.wrong = [line for line in visit.wrong if "404" not in line]


def test_rebinding_is_refused(browser: Any, page: Served) -> None:
    context = browser.new_context()
    answer = context.new_page().goto(f"http://evil.test:{page.port}{page.address.removeprefix(page.base)}")
    assert answer.status == 400 and "its own address only" in answer.text()
    context.close()


class _Evil(http.server.BaseHTTPRequestHandler):
    page = ""

    def do_GET(self) -> None:
        form = f'<form method="post" action="{self.page}/steer"><input name="prompt" value="foreign"></form>'
        body = f"<!doctype html><title>x</title>{form}<iframe src='{self.page}/'></iframe>".encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def test_another_page_can_neither_post_nor_read_nor_frame(browser: Any, page: Served) -> None:
    """A page of another port of this machine, in the browser that holds the cookie."""
    _Evil.page = page.base
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Evil) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(page.address)
        tab.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        read = tab.evaluate(
            """(base) => fetch(base + '/', {credentials: 'include'}).then((r) => r.text()).catch(() => 'refused')""",
            page.base,
        )
        assert read == "refused"
        sent = tab.evaluate(
            """(base) => fetch(base + '/steer', {method: 'POST', mode: 'no-cors', credentials: 'include',
            body: new URLSearchParams({prompt: 'foreign'})}).then((r) => r.type).catch(() => null)""",
            page.base,
        )
        assert sent in (None, "opaque")
        framed = [frame for frame in tab.frames if frame.url.startswith(page.base)]
        assert all(frame.locator("main").count() == 0 for frame in framed)
        with tab.expect_navigation():
            tab.evaluate("document.forms[0].submit()")
        assert "comes from another page" in tab.content()
        # Nothing of it was run.
        tab.goto(f"{page.base}/steer?token={page.address.partition('token=')[2]}")
        assert "foreign" not in tab.content()
        context.close()
        server.shutdown()


def test_a_sentence_weighs_a_lineage_by_keyboard(visit: Visit) -> None:
    """The form on the lineage's page, filled and sent by keys alone; what is drawn is of that token."""
    tab = visit.go(LINEAGE)
    tab.locator("input[name=text]:visible").focus()
    tab.keyboard.type(PROMPT)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/occurrence")
    assert tab.locator("input[name=text]:visible").input_value() == PROMPT
    assert " at '" in tab.locator("h1").inner_text() and tab.locator(".fa-dot").count() > 1
    assert re.search(r"\d", tab.locator("input[name=token]:visible").input_value())
    with tab.expect_download() as begun:
        tab.locator("button:has-text('attribution')").click()
    assert begun.value.suggested_filename.endswith(".attribution.json")

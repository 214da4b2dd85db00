"""Pictures of flow graphs: where things stand, what is escaped, what is said; looked at without a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from flow_graphs import HOSTILE, flow

from atlas.errors import QueryError
from atlas.rows import Rows
from queries.drawing.alone import html
from queries.drawing.counts import fitting
from queries.drawing.figure import Dot, Figure, Line
from queries.drawing.layout import Layout, lay_out
from queries.drawing.svg import MOST, svg
from queries.lineage.graph import Lineage

SPACE = "{http://www.w3.org/2000/svg}"


def elements(text: str, name: str) -> Iterator[ElementTree.Element]:
    return ElementTree.fromstring(text).iter(f"{SPACE}{name}")


def laid(graph: Lineage) -> tuple[Figure, Layout]:
    figure = graph.figure()
    return figure, lay_out(figure)


@pytest.mark.parametrize("size", [3, 40, 120, 500])
def test_no_labels_meet_each_other_or_a_glyph(size: int) -> None:
    figure, layout = laid(flow(size))
    assert len(layout.spots) == len(figure.dots) > 0
    rooms = [(id_, spot.box) for id_, spot in layout.spots.items()]
    # A glyph is at most 11 pixels wide and high.
    rooms += [(id_, (s.x - 5.5, s.y - 5.5, s.x + 5.5, s.y + 5.5)) for id_, s in layout.spots.items()]
    rooms.sort(key=lambda room: room[1][0])
    for (one, a), (other, b) in combinations(rooms, 2):
        if b[0] >= a[2]:
            continue
        assert a[1] >= b[3] or b[1] >= a[3], (one, other)


@pytest.mark.parametrize("size", [3, 40, 500])
def test_depth_goes_up_and_everything_is_on_the_paper(size: int) -> None:
    figure, layout = laid(flow(size))
    heights: dict[int, list[float]] = {}
    for dot in figure.dots:
        heights.setdefault(dot.depth, []).append(layout.spots[dot.id].y)
    ordered = [heights[depth] for depth in sorted(heights)]
    for earlier, later in pairwise(ordered):
        assert min(earlier) > max(later)
    for spot in layout.spots.values():
        left, top, right, bottom = spot.box
        assert min(left, spot.x - 9) >= 0 and max(right, spot.x + 9) <= layout.width
        assert top >= 0 and bottom <= layout.height
    # Lanes: attention left of the MLP left of the stream.
    xs = {site: {layout.spots[dot.id].x for dot in figure.dots if dot.site == site} for site in ("att", "mlp", "res")}
    assert max(xs["att"], default=0) < min(xs["mlp"], default=99) < min(xs["res"]) or not (xs["att"] and xs["mlp"])


def test_the_spine_is_straight_and_leads_along_the_best_matches() -> None:
    # 0 ← 1 ← 2 (seed) ← 3, each by 0.9; a second feature of layer 1 and of layer 3 by less.
    dots = [Dot(f"m/{layer}-res-8/{index}", layer, "res", 3 * layer + 2) for layer in range(4) for index in range(2)]
    pairs = [("1", 0, "0", 0, 0.9), ("2", 0, "1", 0, 0.9), ("2", 0, "1", 1, 0.5), ("3", 0, "2", 0, 0.9)]
    pairs.append(("3", 1, "2", 0, 0.6))
    lines = [Line(f"m/{b}-res-8/{i}", f"m/{a}-res-8/{j}", s) for b, i, a, j, s in pairs]
    layout = lay_out(Figure(tuple(dots), tuple(lines), "m/2-res-8/0"))
    assert layout.spine == {f"m/{layer}-res-8/0" for layer in range(4)}
    assert len({layout.spots[name].x for name in layout.spine}) == 1
    assert layout.spots["m/3-res-8/1"].x > layout.spots["m/3-res-8/0"].x


def test_the_same_graph_gives_the_same_bytes_and_well_formed_xml() -> None:
    assert svg(flow(60).figure(), alone=True) == svg(flow(60).figure(), alone=True)
    root = ElementTree.fromstring(svg(flow(60).figure(), alone=True))
    assert root.tag == f"{SPACE}svg" and not list(root.iter(f"{SPACE}script"))
    assert not [e for e in root.iter() if "id" in e.attrib], "two pictures on one page would share an id"
    box = [float(value) for value in root.attrib["viewBox"].split()]
    assert box == [0, 0, float(root.attrib["width"]), float(root.attrib["height"])]


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_are_text(label: str) -> None:
    graph = flow(9, 3, labels=(label,))
    graph = replace(graph, state={"model": label})
    picture = svg(graph.figure(), link=lambda id_: f"/f?x={id_}{label}", alone=True)
    for text in (picture, html(graph.figure())):
        assert "<script>alert" not in text and "<svg onload" not in text and "<img" not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe]", text)
        assert "]]>" not in text.replace("]]&gt;", "")
    tags = {element.tag for element in ElementTree.fromstring(picture).iter()}
    allowed = {"svg", "title", "style", "rect", "text", "tspan", "path", "g", "circle", "a"}
    assert tags <= {f"{SPACE}{name}" for name in allowed}


def test_the_picture_explains_itself() -> None:
    graph = flow(40)
    graph = replace(graph, state={"model": "tiny", "atlas": "abc", "state": "def"})
    text = svg(graph.figure(), alone=True)
    said = " ".join("".join(element.itertext()) for element in elements(text, "text"))
    for words in ("min res 0.5, min module floor, k 1", "model tiny, atlas abc, state def", "the feature asked about"):
        assert words in said
    assert "ids: tiny/{layer}-{site}-8k/#" in said and "persists" in said and "L13" in said
    # Colours are never alone: the life cycle stands in words where there is room for it.
    narrow = replace(graph, nodes=graph.nodes[:2], edges=(), seed=graph.nodes[0].id)
    assert str(narrow.nodes[1].lifecycle) in svg(narrow.figure()) or narrow.nodes[1].site != "res"


def one_edge(**values: float | int | None) -> str:
    dots = (Dot("m/0-res-8/0", 0, "res", 2), Dot("m/1-res-8/0", 1, "res", 5))
    line = Line("m/1-res-8/0", "m/0-res-8/0", 0.5, **values)  # type: ignore[arg-type]
    return svg(Figure(dots, (line,), "m/1-res-8/0"), alone=True)


def edge_of(text: str) -> dict[str, str]:
    (edge,) = [e for e in elements(text, "path") if "data-e" in e.attrib]
    return edge.attrib | {"told": "".join(edge.itertext())}


def test_edges_show_their_rank_and_their_evidence() -> None:
    plain = edge_of(one_edge())
    assert "stroke-dasharray" not in plain and plain["stroke-width"] == "2.5"  # 0.8 + 3.4 · 0.5
    assert edge_of(one_edge(rank=1))["stroke-dasharray"] == "6 4"
    assert edge_of(one_edge(rank=None))["stroke-dasharray"] == "6 4"
    never = edge_of(one_edge(cofire=0.0))
    assert "fa-weak" in never["class"] and never["stroke-width"] == "1.2" and "never active together" in never["told"]
    often = edge_of(one_edge(cofire=0.5, effect=0.62))
    assert often["opacity"] == "0.70" and "active together 50%" in often["told"] and "effect 0.62" in often["told"]
    assert "alike, but never active together" in one_edge(cofire=0.5) and "never active" not in one_edge()


def test_a_missing_layer_and_what_is_outside_the_cut() -> None:
    dots = (Dot("m/0-res-8/0", 0, "res", 2, outside=True), Dot("m/2-res-8/0", 2, "res", 8))
    text = svg(Figure(dots, (Line("m/2-res-8/0", "m/0-res-8/0", 0.4, outside=True),), "m/2-res-8/0"), alone=True)
    assert "just outside the cut" in text and 'class="fa-hollow fa-unexplained" fill="#ffffff"' in text
    whole = tuple(replace(dot, outside=False) for dot in dots)
    text = svg(Figure(whole, (Line("m/2-res-8/0", "m/0-res-8/0", 0.4),), "m/2-res-8/0"), alone=True)
    assert edge_of(text)["stroke-dasharray"] == "6 4"


def test_what_is_too_large_is_counted_and_the_threshold_that_would_fit_is_named() -> None:
    graph = flow(2 * MOST, layers=10, branching=True)
    figure = graph.figure()
    text = svg(figure, alone=True)
    fit = fitting(figure, MOST)
    assert fit is not None and f"--min-res {fit:.2f}" in text and "too many to draw one by one" in text
    assert "data-n" not in text
    said = ["".join(element.itertext()) for element in elements(text, "text")]
    count = sum(node.layer == 3 and node.site == "res" for node in graph.nodes)
    assert f"{count:,}" in said

    def left(threshold: float) -> int:
        """Features joined with the seed, by another way: edges merged in sets."""
        groups = {node.id: {node.id} for node in graph.nodes}
        for edge in graph.edges:
            if edge.similarity >= threshold and groups[edge.source] is not groups[edge.target]:
                merged = groups[edge.source] | groups[edge.target]
                for name in merged:
                    groups[name] = merged
        return len(groups[graph.seed])

    assert left(fit) <= MOST and (left(fit - 0.01) > MOST or len(graph.nodes) <= MOST)


def drawing_seconds(size: int) -> float:
    """Processor time of one picture of so many features, the least of five."""
    figure = flow(size).figure()
    assert len(figure.dots) > 0.9 * size
    times = []
    for _ in range(5):
        start = time.process_time()
        svg(figure)
        times.append(time.process_time() - start)
    return min(times)


def test_the_time_of_a_drawing_grows_with_its_size() -> None:
    # 4 × the features take about 4 × the time; what compares all with all would take 16 ×. Seconds: bench_lineage.
    assert drawing_seconds(2000) < 10 * drawing_seconds(500)


def test_html_is_one_file_under_a_strict_policy() -> None:
    text = html(flow(40).figure())
    policy = text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert not re.search(r"""<(?:link|img|iframe|base)|\s(?:src|href)="|url\(|@import|https?://|eval\(|style=""", text)
    assert text.count("<tr data-e=") == len(flow(40).edges)


def test_png_is_a_picture() -> None:
    pytest.importorskip("resvg_py")
    from queries.drawing.png import png

    picture = png(flow(40).figure())
    width, height = (int.from_bytes(picture[start : start + 4], "big") for start in (16, 20))
    layout = lay_out(flow(40).figure())
    assert picture.startswith(b"\x89PNG") and width >= 2 * layout.width - 2 and height > 2 * layout.height


def test_png_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from queries.drawing.png import png

    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(QueryError, match=r"pip install 'feature-atlas\[png\]'"):
        png(flow(3).figure())


def test_notebooks_get_text_and_a_picture_without_scripts_and_styles() -> None:
    made = flow(9)._repr_mimebundle_()
    assert made["text/plain"].splitlines()[0].startswith("tiny/13-res-8k/0: ")
    assert not re.search(r"<style|<script|style=|\sid=", made["text/html"])
    assert list(flow(9)._repr_mimebundle_(include=["text/plain"])) == ["text/plain"]
    rows = Rows([{"id": f"m/0-res-2k/{i}", "similarity": i / 8, "label": "<b>a\x1b[0m\n"} for i in range(120)])
    made = rows._repr_mimebundle_()
    assert made["text/html"].count("<tr>") == 101 and made["text/html"].endswith("<p>20 further rows</p>")
    assert "<td>m/0-res-2k/1</td><td>0.125</td><td>&lt;b&gt;a</td>" in made["text/html"]
    assert made["text/plain"].splitlines()[0].split() == ["id", "similarity", "label"] and "\x1b" not in str(made)
    assert "<th>a</th>" in Rows((), ("a",))._repr_mimebundle_()["text/html"]
    assert list(flow(9)._repr_mimebundle_(exclude=["text/plain"])) == ["text/html"]


def test_networkx_and_node_link_json() -> None:
    import networkx

    graph = flow(40)
    digraph = graph.to_networkx()
    assert set(digraph) == {node.id for node in graph.nodes}
    assert set(digraph.edges) == {(edge.source, edge.target) for edge in graph.edges}
    read = networkx.node_link_graph(graph.to_dict(), edges="edges")
    assert read.is_directed() and networkx.utils.graphs_equal(read, digraph)
    assert digraph.nodes[graph.seed]["dictionary"] == "tiny/13-res-8k"

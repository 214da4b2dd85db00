"""Drawn flow graphs: read back by their formats' own rules; the tree looked at line by line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width
from xml.etree import ElementTree

import pytest
from planted import Planted

from atlas.cli.main import _run
from queries.lineage.draw import FORMATS, draw
from queries.lineage.graph import Edge, Lineage, Node

NASTY = 'say "hi" <b>&\\ [x] | `y`\x00\x1b[31m\n#35;' + "語" * 60
KEY = "{http://graphml.graphdrawing.org/xmlns}"


def node(layer: int, site: str, index: int, label: str | None = None, **values: str) -> Node:
    place = 3 * layer + {"att": 0, "mlp": 1, "res": 2}[site]
    dictionary = f"tiny/{layer}-{site}-8"
    words: dict[str, Any] = {"label": label, "s_res": None, "s_mlp": 0.5, "s_att": None, "origin": None}
    words |= {"lifecycle": None} | values
    return Node(f"{dictionary}/{index}", layer, site, place, dictionary=dictionary, **words)


def graph() -> Lineage:
    """8/res/1 → 9/res/2 (seed, written by 9/mlp/3) → 10/res/4 (0.8) and 10/res/5 (0.6, written by 10/att/6)."""
    nodes = (
        node(8, "res", 1, lifecycle="start"),
        node(9, "mlp", 3, NASTY),
        node(9, "res", 2, "war, army", lifecycle="transforms", origin="mlp"),
        node(10, "att", 6),
        node(10, "res", 4, " War"),
        node(10, "res", 5),
    )
    ends = [(2, 0, 0.7, "FROM_RES"), (2, 1, 0.9, "FROM_MLP"), (4, 2, 0.8, "FROM_RES"), (5, 2, 0.6, "FROM_RES")]
    ends.append((5, 3, 0.4, "FROM_ATT"))
    edges = tuple(Edge(nodes[b].id, nodes[a].id, type_, s, 0, None) for b, a, s, type_ in ends)
    return Lineage(nodes[2].id, nodes, edges)


def columns(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def test_tree() -> None:
    lines = draw(graph()).splitlines()
    assert lines[0] == "tiny/9-res-8/2: 6 features, earliest first"
    assert re.split(r" {2,}", lines[1]) == ["○ 8-res-8/1", "0.70", "start"]
    assert lines[2].startswith('├─▪ 9-mlp-8/3   0.90                    say "hi" <b>&\\ [x] | `y` [31m #35;語')
    assert re.split(r" {2,}", lines[3]) == ["● 9-res-8/2", "transforms (mlp)", "war, army"]
    # The attention feature is joined with the branch, not with the trunk.
    assert re.split(r" {2,}", lines[4]) == ["├─▪ 10-att-8/6", "0.40", "↔ 10-res-8/5"]
    assert re.split(r" {2,}", lines[5]) == ["├─○ 10-res-8/5", "0.60"]
    assert re.split(r" {2,}", lines[6]) == ["○ 10-res-8/4", "0.80", "War"]
    assert len(lines) == 7
    # The next wide character would be columns 100 and 101 with the ellipsis.
    assert max(columns(line) for line in lines) == 99


def test_tree_of_a_feature_alone() -> None:
    alone = Lineage("tiny/9-res-8/2", (node(9, "res", 2),), ())
    assert draw(alone).splitlines() == ["tiny/9-res-8/2: alone", "● 9-res-8/2"]


def test_json() -> None:
    assert json.loads(draw(graph(), "json")) == graph().to_dict()


def test_graphml_is_well_formed_and_whole() -> None:
    root = ElementTree.fromstring(draw(graph(), "graphml"))
    names = {key.get("id"): key.get("attr.name") for key in root.iter(f"{KEY}key")}

    def values(element: ElementTree.Element) -> dict[str | None, str | None]:
        return {names[data.get("key")]: data.text for data in element.iter(f"{KEY}data")}

    nodes = {element.get("id"): values(element) for element in root.iter(f"{KEY}node")}
    assert list(nodes) == [node.id for node in graph().nodes]
    assert nodes["tiny/9-res-8/2"]["seed"] == "true"
    assert nodes["tiny/9-mlp-8/3"]["label"] == re.sub(r"[\x00\x1b\n]+", " ", NASTY)
    assert "s_res" not in nodes["tiny/8-res-8/1"]
    edges = {(e.get("source"), e.get("target")): values(e) for e in root.iter(f"{KEY}edge")}
    assert edges["tiny/9-res-8/2", "tiny/8-res-8/1"] == {"type": "FROM_RES", "similarity": "0.7", "rank": "0"}
    assert len(edges) == 5


def test_dot_quotes_what_it_must() -> None:
    text = draw(graph(), "dot")
    quoted = r'"(?:[^"\\\n]|\\.)*"'
    statement = rf"  {quoted}(?: -> {quoted})? \[label={quoted}(?:, \w+=\w+)*\];"
    lines = text.splitlines()
    assert lines[0] == "digraph lineage {" and lines[-1] == "}"
    assert all(re.fullmatch(statement, line) for line in lines[3:-1])
    assert len(lines[3:-1]) == 6 + 5
    assert '  "tiny/9-res-8/2" -> "tiny/8-res-8/1" [label="0.70"];' in lines


def test_mermaid_leaves_nothing_to_interpret() -> None:
    lines = draw(graph(), "mermaid").splitlines()
    assert lines[0] == "flowchart BT"
    labels = [line.partition('["')[2].removesuffix('"]') for line in lines if '["' in line]
    assert len(labels) == 6
    # Besides the line break, only entities like #34; may hold a quote, a bracket, a pipe or a backtick.
    assert not re.search(r'["<>\[\]|`&\\]', "".join(label.replace("<br>", "") for label in labels))
    assert "  n2 -->|0.70| n0" in lines
    assert lines[-1] == "  style n2 stroke-width:4px"


def test_pictures_and_answers_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atlas = str(Planted(range(4)).at(tmp_path / "atlas"))
    at = ("-a", atlas, "-o", str(tmp_path / "out"))
    seed = "planted/2-res-24/1"
    for format_, begins in (("svg", b"<svg xmlns="), ("html", b"<!doctype html>"), ("png", b"\x89PNG")):
        assert _run(["lineage", seed, "--min-res", "0", "--format", format_, *at]) == 0
        assert (tmp_path / "out").read_bytes().startswith(begins)
    assert _run(["ask", "strongest", "--limit", "3", "--format", "svg", *at]) == 0
    text = (tmp_path / "out").read_text()
    assert text.count('<path class="fa-edge') == 3
    assert "cut after 3 rows" in capsys.readouterr().err
    assert _run(["ask", "hubs", "--format", "csv", *at]) == 0
    assert (tmp_path / "out").read_text().startswith("feature,layer,")
    assert capsys.readouterr().out == ""
    assert _run(["ask", "hubs", "--format", "svg", *at]) == 1
    assert "the answer of hubs is a table" in capsys.readouterr().err
    assert _run(["lineage", seed, "-a", atlas, "-o", str(tmp_path / "no" / "such")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_every_format_is_deterministic() -> None:
    for format_ in FORMATS:
        assert draw(graph(), format_) == draw(graph(), format_)
        assert draw(graph(), format_).endswith("\n")

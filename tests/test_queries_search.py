"""Search and show against the planted columns, and the commands that print them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from planted import Planted

from atlas import schema
from atlas.atlas import Atlas, open_atlas
from atlas.cli.main import root
from atlas.errors import QueryError, UnknownFeature
from queries.search import search
from queries.show import COLUMNS, MATCH_COLUMNS, show

FEATURE = "planted/3-res-24/7"


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(range(5), seed=2)


@pytest.fixture(scope="module")
def folder(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.at(tmp_path_factory.mktemp("search") / "atlas")


@pytest.fixture(scope="module")
def atlas(folder: Path) -> Iterator[Atlas]:
    with open_atlas(folder) as opened:
        yield opened


@pytest.mark.parametrize("text", ["war", "WAR", "cat", "cat film", "ou", "about king", "“king”", "zebra"])
@pytest.mark.parametrize("where", [{}, {"site": "mlp"}, {"layer": 3}, {"site": "res", "layer": 2}])
def test_finds_what_a_scan_finds(planted: Planted, atlas: Atlas, text: str, where: dict[str, Any]) -> None:
    words = text.lower().split()
    expected = []
    for feature in planted.features().values():
        own = " ".join(feature[name] or "" for name in ("label", "fires_on", "promotes")).lower()
        if all(word in own for word in words) and all(feature[key] == value for key, value in where.items()):
            exact = all(word in re.split(r'[\s,"“”]+', own) for word in words)
            figures = [-(feature[name] or 0.0) for name in ("max_activation", "frequency")]
            expected.append((not exact, *figures, feature["id"]))
    rows = search(atlas, text, limit=10_000, **where)
    assert [(row["feature"], row["exact"]) for row in rows] == [(row[-1], not row[0]) for row in sorted(expected)]
    assert search(atlas, text, limit=3, **where) == rows[:3]


def test_whole_tokens_come_before_parts(atlas: Atlas) -> None:
    rows = search(atlas, "cat", limit=1000)
    assert {row["exact"] for row in rows} == {True, False}  # cat, and catalogue
    assert [row["exact"] for row in rows] == sorted((row["exact"] for row in rows), reverse=True)


@pytest.mark.parametrize(("text", "where"), [(" ", {}), ("war", {"site": "head"}), ("war", {"limit": 0})])
def test_what_cannot_be_searched(atlas: Atlas, text: str, where: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        search(atlas, text, **where)


def test_show_holds_the_record_and_the_best_matches(planted: Planted, atlas: Atlas) -> None:
    rows = show(atlas, FEATURE, most=2)
    parts = {part: [row for row in rows if row["part"] == part] for part in ("feature", "earlier", "later", "context")}
    assert parts["feature"] == [{"part": "feature", **planted.features()[FEATURE]}]
    edges = planted.edge_rows()
    expected = [(e["target"], e["rank"]) for e in edges if e["source"] == FEATURE and (e["rank"] or 0) < 2]
    assert len(parts["earlier"]) == 2 * 3  # residual, MLP, attention
    assert {(row["id"], row["rank"]) for row in parts["earlier"]} <= set(expected)
    later = {e["source"] for e in edges if e["target"] == FEATURE and e["forward_rank"] in (0, 1)}
    assert {row["id"] for row in parts["later"]} == later
    assert [row["part"] for row in rows] == ["feature"] + ["earlier"] * 6 + ["later"] * 2
    assert all(set(row) <= set(COLUMNS) for row in rows)


def test_show_needs_its_feature(atlas: Atlas) -> None:
    with pytest.raises(UnknownFeature):
        show(atlas, "planted/3-res-24/99")
    with pytest.raises(QueryError):
        show(atlas, FEATURE, most=0)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(root, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_commands_print_rows(folder: Path, atlas: Atlas) -> None:
    found = json.loads(run("search", "war", "-a", str(folder), "--format", "json", "--limit", "4", "--site", "res"))
    assert found == search(atlas, "war", limit=4, site="res")
    lines = run(
        "ask", "hubs", "-a", str(folder), "--format", "jsonl", "--param", "layer=2", "--limit", "5"
    ).splitlines()
    assert [json.loads(line)["layer"] for line in lines] == [2] * 5
    table = list(csv.DictReader(io.StringIO(run("show", FEATURE, "-a", str(folder), "--format", "csv"))))
    assert table[0]["part"] == "feature" and table[0]["id"] == FEATURE
    text = run("show", FEATURE, "-a", str(folder))
    assert "comes from" in text and "goes to" in text and all(name in text for name in MATCH_COLUMNS)


def test_lineage_command_draws_every_format(folder: Path) -> None:
    starts = {"tree": FEATURE, "json": "{", "mermaid": "flowchart", "dot": "digraph", "graphml": "<?xml"}
    for format_, start in starts.items():
        text = run("lineage", FEATURE, "-a", str(folder), "--format", format_, "--k", "2", "--min-res", "floor")
        assert text.startswith(start)
    graph = json.loads(run("lineage", FEATURE, "-a", str(folder), "--back", "0", "--forward", "0", "--format", "json"))
    assert [node["id"] for node in graph["nodes"] if node["site"] == "res"] == [FEATURE]


def test_ask_lists_and_shows_without_an_atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(json.loads(run("ask", "--format", "json"))) >= 12
    text = run("ask", "longest-lived", "--show")
    assert text.startswith("MATCH") and "LIMIT $limit" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["lineage", FEATURE, "--min-res", "high"],
        ["lineage", FEATURE, "--k", "0"],
        ["ask", "hubs", "--param", "layer"],
        ["ask", "hubs", "--param", "limit=3"],
        ["search", "war", "--site", "head"],
    ],
)
def test_usage_errors(folder: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(root, [*arguments, "-a", str(folder)]).exit_code == 2


def test_the_planted_tables_are_the_schemas(planted: Planted) -> None:
    for table in schema.NODES:
        for part in planted.nodes(table.label):
            assert part.column_names == list(table.properties)

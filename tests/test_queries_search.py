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


def whole(text: str) -> list[str]:
    return [word for word in re.split(r'[\s,"“”]+', text) if word]


@pytest.mark.parametrize("text", ["war", "WAR", "cat", "cat film", "ou", "about king", "“king”", "zebra"])
@pytest.mark.parametrize("where", [{}, {"site": "mlp"}, {"layer": 3}, {"site": "res", "layer": 2}])
def test_finds_what_a_scan_finds(planted: Planted, atlas: Atlas, text: str, where: dict[str, Any]) -> None:
    words = text.lower().split()
    expected = []
    for feature in planted.features().values():
        own = " ".join(feature[name] or "" for name in ("label", "fires_on", "promotes")).lower()
        if all(word in own for word in words) and all(feature[key] == value for key, value in where.items()):
            exact = all(word in whole(own) for word in words)
            label, fires_on = (whole((feature[name] or "").lower()) for name in ("label", "fires_on"))
            first = bool(fires_on) and fires_on[0] in words
            told = [all(word in part for word in words) for part in (label, fires_on)]
            order = (not exact, not first, not told[0], not told[1], len(fires_on), -(feature["frequency"] or 0.0))
            expected.append((*order, feature["id"]))
    rows = search(atlas, text, limit=10_000, **where)
    assert [(row["feature"], row["exact"]) for row in rows] == [(row[-1], not row[0]) for row in sorted(expected)]
    assert search(atlas, text, limit=3, **where) == rows[:3]


def test_whole_tokens_come_before_parts(atlas: Atlas) -> None:
    rows = search(atlas, "cat", limit=1000)
    assert {row["exact"] for row in rows} == {True, False}  # cat, and catalogue
    assert [row["exact"] for row in rows] == sorted((row["exact"] for row in rows), reverse=True)


def test_what_is_large_for_the_feature_comes_first_not_what_is_large(tmp_path: Path) -> None:
    planted = Planted(range(2), seed=2)
    features: dict[str, dict[str, Any]] = {
        # A sink's activations are a hundred times those of all others; war is the last of what it fires on.
        "planted/1-res-24/1": {"fires_on": "the, of, a, in, to, and, is, war", "max_activation": 5000.0},
        "planted/1-res-24/2": {"fires_on": "army, war, troops", "max_activation": 20.0},
        "planted/1-res-24/3": {"fires_on": "war, army, troops, forces", "max_activation": 30.0},
        "planted/1-res-24/4": {"fires_on": "war", "max_activation": 8.0},
        "planted/1-res-24/5": {"fires_on": "war, peace", "max_activation": 60.0, "frequency": 0.01},
        "planted/1-res-24/6": {"fires_on": "war, wars", "max_activation": 40.0, "frequency": 0.02},
        "planted/1-res-24/7": {"fires_on": "warfare", "max_activation": 70.0},
        "planted/1-res-24/8": {"fires_on": None, "label": "texts about war", "max_activation": None},
    }
    for columns in planted.columns.values():
        for i, id_ in enumerate(columns["id"]):
            words: dict[str, Any] = features.get(id_, {"fires_on": None})
            label = words.get("label") or ", ".join((words["fires_on"] or "").split(", ")[:4]) or None
            for name, value in {"label": label, "promotes": None, "frequency": 0.001, **words}.items():
                columns[name][i] = value
    with open_atlas(planted.at(tmp_path / "atlas")) as opened:
        found = [int(row["feature"].rpartition("/")[2]) for row in search(opened, "war")]
    assert found == [4, 6, 5, 3, 2, 8, 1, 7]


def test_without_labels_it_says_how_to_make_some(folder: Path, tmp_path: Path) -> None:
    planted = Planted(range(2), seed=2)
    for columns in planted.columns.values():
        for name in ("label", "fires_on", "promotes"):
            columns[name] = [None] * len(columns["id"])
    for place, says in ((planted.at(tmp_path / "atlas"), "feature-atlas label --text FILE"), (folder, "")):
        result = CliRunner().invoke(root, ["search", "zebra", "-a", str(place), "--format", "json"])
        assert (result.exit_code, result.stdout) == (0, "[]\n")
        assert says in result.stderr and bool(says) == bool(result.stderr)


@pytest.mark.parametrize(("text", "where"), [(" ", {}), ("war", {"site": "head"}), ("war", {"limit": 0})])
def test_what_cannot_be_searched(atlas: Atlas, text: str, where: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        search(atlas, text, **where)


def test_show_holds_the_record_and_the_best_matches(planted: Planted, atlas: Atlas) -> None:
    rows = show(atlas, FEATURE, most=2)
    parts = {part: [row for row in rows if row["part"] == part] for part in ("feature", "earlier", "later", "context")}
    beside = {"suppresses": None, "neuronpedia": None}
    assert parts["feature"] == [{"part": "feature", **planted.features()[FEATURE], **beside}]
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

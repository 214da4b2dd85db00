"""Exports opened by the tools they are for, and compared with what the graph answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx
import polars
import pytest
from click.testing import CliRunner
from planted_graph import PlantedGraph
from saes import planted as write_saes

from atlas import open_atlas
from atlas.cli.main import root
from atlas.errors import FolderError, QueryError, UnknownFeature
from atlas.export.folder import new_folder
from atlas.export.graphml import write_graphml
from atlas.export.job import export_atlas
from atlas.export.tables import write_tables
from atlas.graph.copying import copy_atlas
from atlas.schema import EDGES, FEATURE, MATCHED, NODES, properties
from ingest import ingest
from ingest.labels.job import label_atlas

HOSTILE = '=HYPERLINK("http://x") <b>&amp;</b>\x1b[31m\n\u202eé 电影 ￿'
FEATURE_EDGES = [edge.type for edge in EDGES if edge.type != MATCHED]
WAR = "MATCH (f:Feature) WHERE f.index < 8 AND f.layer > 0 RETURN f.id AS feature"
GEPHI = {"boolean", "int", "long", "float", "double", "string"}  # types that its importer knows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of three sites, some features with labels that no format likes."""
    place = tmp_path_factory.mktemp("export")
    ingest([write_saes(place / "saes", range(3))], place / "atlas")
    rows = [
        {"modelId": "tiny-1m", "layer": "1-res-64", "index": str(i), "description": f"{i}: {HOSTILE}" if i else HOSTILE}
        for i in range(5)
    ]
    (place / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    label_atlas(place / "atlas", imports=[str(place / "labels.jsonl")])
    return place / "atlas"


def stored(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a label or edge type, as the graph answers them, in one order."""
    columns = ", ".join(f"x.`{column}` AS `{column}`" for column in properties(name))
    pattern = f"(x:{name})" if name in {node.label for node in NODES} else f"(b)-[x:{name}]->(a)"
    ends = "" if pattern.startswith("(x") else "b.id AS later, a.id AS earlier, "
    with open_atlas(folder) as atlas:
        return sorted(atlas.read(f"MATCH {pattern} RETURN {ends}{columns}"), key=order)


def order(row: dict[str, Any]) -> tuple[str, str]:
    return str(row.get("later", row.get("id"))), str(row.get("earlier", ""))


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["parquet", "csv"])
def test_tables_hold_what_the_graph_holds(folder: Path, tmp_path: Path, format_: str) -> None:
    with open_atlas(folder) as atlas:
        exported = export_atlas(atlas, tmp_path / "out", format_)
    total = {"nodes": 0, "edges": 0}
    for part, names in (("nodes", [node.label for node in NODES]), ("edges", [edge.type for edge in EDGES])):
        assert sorted(path.stem for path in (tmp_path / "out" / part).iterdir()) == sorted(names)
        for name in names:
            path = tmp_path / "out" / part / f"{name}.{format_}"
            frame = (
                polars.read_parquet(path) if format_ == "parquet" else polars.read_csv(path, infer_schema_length=None)
            )
            rows, expected = sorted(frame.to_dicts(), key=order), stored(folder, name)
            total[part] += len(rows)
            assert len(rows) == len(expected), name
            for row, wanted in zip(rows, expected, strict=True):
                if format_ == "csv":
                    wanted = {key: as_sheet(value) for key, value in wanted.items()}
                    row = {
                        key: str(value) if isinstance(wanted[key], str) and value else value
                        for key, value in row.items()
                    }
                assert row == wanted, name
    assert (exported.nodes, exported.edges) == (total["nodes"], total["edges"]) and total["edges"] > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def as_sheet(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    clean = re.sub("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]+", " ", value)
    return f"'{clean}" if clean.startswith(("=", "+", "-", "@")) else clean


@pytest.mark.slow
def test_graphml_opens_in_networkx_and_keeps_gephis_rules(folder: Path, tmp_path: Path) -> None:
    with open_atlas(folder) as atlas:
        exported = export_atlas(atlas, tmp_path / "out", "graphml")
    path = tmp_path / "out" / "graph.graphml"
    graph = networkx.read_graphml(path)
    assert isinstance(graph, networkx.DiGraph) and not graph.is_multigraph()
    assert (graph.number_of_nodes(), graph.number_of_edges()) == (exported.nodes, exported.edges)
    for row in stored(folder, FEATURE):
        clean = {k: as_sheet(v).removeprefix("'") if k == "label" and v else v for k, v in row.items()}
        assert graph.nodes[row["id"]] == {k: v for k, v in clean.items() if k != "id" and v is not None}
    for type_ in FEATURE_EDGES:
        for row in stored(folder, type_):
            found = dict(graph.edges[row["later"], row["earlier"]])
            assert found.pop("type") == type_ and found.pop("weight") == row["similarity"] > 0
            assert found == {k: v for k, v in row.items() if k not in ("later", "earlier") and v is not None}
    # Gephi reads the file as a stream: keys first, each of a type it knows, nodes before the edges that need them.
    space = "{http://graphml.graphdrawing.org/xmlns}"
    elements = [element for _, element in ElementTree.iterparse(path, ["start"])]
    kinds = [element.tag.removeprefix(space) for element in elements if element.tag != f"{space}data"]
    assert kinds == sorted(kinds, key=["graphml", "key", "graph", "node", "edge"].index)
    keys = {element.get("id"): element for element in elements if element.tag == f"{space}key"}
    assert all(key.get("attr.type") in GEPHI and key.get("for") in ("node", "edge") for key in keys.values())
    assert all(element.get("key") in keys for element in elements if element.tag == f"{space}data")
    ids = [element.get("id") for element in elements if element.tag == f"{space}node"]
    assert len(ids) == len(set(ids))
    assert {keys[name].get("attr.name") for name in ("node-label", "edge-weight")} == {"label", "weight"}


@pytest.mark.parametrize("format_", ["parquet", "csv", "graphml"])
def test_a_selection_is_its_features_and_the_edges_among_them(folder: Path, tmp_path: Path, format_: str) -> None:
    with open_atlas(folder) as atlas:
        chosen = {row["feature"] for row in atlas.query(WAR)}
        exported = export_atlas(atlas, tmp_path / "out", format_, cypher=WAR)
    edges = {(r["later"], r["earlier"]) for t in FEATURE_EDGES for r in stored(folder, t)}
    expected = {(later, earlier) for later, earlier in edges if later in chosen and earlier in chosen}
    assert expected and len(chosen) == 6 * 8
    if format_ == "graphml":
        graph = networkx.read_graphml(tmp_path / "out" / "graph.graphml")
        assert (set(graph.nodes), set(graph.edges)) == (chosen, expected)
        assert (exported.nodes, exported.edges) == (len(chosen), len(expected))
        return
    read = polars.read_parquet if format_ == "parquet" else polars.read_csv
    assert set(read(tmp_path / "out" / "nodes" / f"Feature.{format_}")["id"]) == chosen
    found = [read(tmp_path / "out" / "edges" / f"{t}.{format_}") for t in FEATURE_EDGES]
    assert {(r["later"], r["earlier"]) for frame in found for r in frame.to_dicts()} == expected
    assert len(read(tmp_path / "out" / "nodes" / f"Dictionary.{format_}")) == 6
    assert len(read(tmp_path / "out" / "edges" / f"MATCHED.{format_}")) == 5


@pytest.mark.parametrize(
    ("cypher", "error", "says"),
    [
        ("MATCH (f:Feature) RETURN f.id AS id", QueryError, "column feature"),
        ("MATCH (f:Feature {layer: 99}) RETURN f.id AS feature", QueryError, "selects no feature"),
        ("RETURN 'tiny-1m/9-res-64/1' AS feature", UnknownFeature, "9-res-64"),
    ],
)
def test_selections_that_cannot_be_exported(
    folder: Path, tmp_path: Path, cypher: str, error: type[Exception], says: str
) -> None:
    with open_atlas(folder) as atlas, pytest.raises(error, match=says):
        export_atlas(atlas, tmp_path / "out", "parquet", cypher=cypher)
    with open_atlas(folder) as atlas, pytest.raises(FolderError, match="whole atlas"):
        export_atlas(atlas, tmp_path / "out", "neo4j-admin", cypher=WAR)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_breaks_off_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        for format_ in ("parquet", "csv", "graphml"):
            graph = PlantedGraph(edges_before_failure=1)
            with pytest.raises(FolderError, match="No space left"), new_folder(tmp_path / name) as place:
                if format_ == "graphml":
                    write_graphml(graph, place, print)
                else:
                    write_tables(graph, place, format_, print)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not any((tmp_path / "empty").iterdir())
    (tmp_path / "empty" / "mine.txt").write_text("mine")
    with open_atlas(folder) as atlas, pytest.raises(FolderError, match="not empty"):
        export_atlas(atlas, tmp_path / "empty", "csv")
    assert (tmp_path / "empty" / "mine.txt").read_text() == "mine"


def test_from_a_server_the_same(folder: Path, empty: str | None, tmp_path: Path) -> None:
    source: str | Path = folder
    if empty is not None:
        with open_atlas(folder) as atlas:
            copy_atlas(atlas, empty)
        source = empty
    with open_atlas(source) as atlas:
        export_atlas(atlas, tmp_path / "out", "parquet")
    for name in (FEATURE, *FEATURE_EDGES, MATCHED):
        part = "nodes" if name == FEATURE else "edges"
        rows = polars.read_parquet(tmp_path / "out" / part / f"{name}.parquet").to_dicts()
        assert sorted(rows, key=order) == stored(folder, name), name


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(root, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_the_command(folder: Path, tmp_path: Path) -> None:
    code, out, err = run("export", str(tmp_path / "p"), "-a", str(folder), "--format", "parquet", "--cypher", WAR)
    assert code == 0 and out.split() == sorted(map(str, (tmp_path / "p").glob("*/*.parquet")))
    assert len(out.split()) == len(NODES) + len(EDGES) and "edges written to" in err
    code, out, _ = run("export", str(tmp_path / "n"), "-a", str(folder))
    assert code == 0 and out.startswith("neo4j-admin database import full") and (tmp_path / "n" / "import.sh").exists()


def test_the_style_names_what_the_schema_names(tmp_path: Path) -> None:
    code, out, _ = run("export", str(tmp_path / "style"), "--format", "grass", "-a", str(tmp_path / "no-atlas"))
    assert code == 0 and sorted(out.split()) == sorted(str(path) for path in (tmp_path / "style").iterdir())
    text = (tmp_path / "style" / "feature-atlas.grass").read_text()
    # GraSS: selectors node, node.Label, relationship, relationship.TYPE; every rule a list of `name: value;`.
    rules = re.findall(r"^(node|relationship)(?:\.(\w+))? \{((?: [a-z-]+: [^;]+;)+) \}$", text, re.M)
    assert len(rules) == len(text.splitlines())
    names = {name for _, name, _ in rules if name}
    assert names <= {node.label for node in NODES} | {edge.type for edge in EDGES}
    for _, name, body in rules:
        captions = re.findall(r"\{(\w+)\}", body)
        assert all(caption in properties(name or FEATURE_EDGES[0]) for caption in captions), name
    assert run("export", str(tmp_path / "x"), "--format", "grass", "--cypher", WAR)[0] == 2

"""Flow graphs against the same walk over the planted arrays, written by recursion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted import Planted

from atlas.atlas import Atlas, open_atlas
from atlas.errors import QueryError, UnknownFeature
from queries.lineage.draw import draw
from queries.lineage.walk import lineage
from queries.show import show

LAYERS = (0, 1, 2, 4, 5, 6)  # layer 3 is missing: 4 is matched with 2


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(LAYERS)


@pytest.fixture(scope="module")
def atlas(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    folder = tmp_path_factory.mktemp("lineage") / "atlas"
    planted.at(folder)
    with open_atlas(folder) as opened:
        yield opened


def ranked_by_push(edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The edges of positive push, both ranks by it: in each other dictionary, equal ones by id."""
    edges = [edge | {"rank": None, "forward_rank": None} for edge in edges if (edge["push"] or 0) > 0]
    for rank, here, there in (("rank", "source", "target"), ("forward_rank", "target", "source")):
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for edge in sorted(edges, key=lambda edge: (-edge["push"], edge[there])):
            group = groups.setdefault((edge[here], edge[there].rpartition("/")[0]), [])
            edge[rank] = len(group)
            group.append(edge)
    return edges


def walked(
    planted: Planted, seed: str, back: int, forward: int, min_res: Any, min_module: Any, k: int, by: str = "cosine"
) -> tuple[set[str], set[tuple[str, str]]]:
    """Nodes and edges of the flow graph, by recursion over all edges."""
    edges = planted.edge_rows() if by == "cosine" else ranked_by_push(planted.edge_rows())
    nodes, ways = {seed}, set()

    def kept(edge: dict[str, Any], rank: str) -> bool:
        least = min_res if edge["type"] == "FROM_RES" else min_module
        least = edge["floor"] if least == "floor" else least
        return edge[rank] is not None and edge[rank] < k and edge["similarity"] >= least

    def go(name: str, steps: int, here: str, there: str, rank: str) -> None:
        for edge in edges:
            if edge[here] == name and edge["type"] == "FROM_RES" and kept(edge, rank) and steps > 0:
                nodes.add(edge[there])
                ways.add((edge["source"], edge["target"]))
                go(edge[there], steps - 1, here, there, rank)

    if "-res-" in seed:
        go(seed, back, "source", "target", "rank")
        go(seed, forward, "target", "source", "forward_rank")
    elif forward > 0:
        for edge in edges:
            if edge["target"] == seed and kept(edge, "forward_rank"):
                nodes.add(edge["source"])
                ways.add((edge["source"], seed))
                go(edge["source"], forward, "target", "source", "forward_rank")
    for edge in edges:
        if edge["type"] != "FROM_RES" and edge["source"] in set(nodes) and kept(edge, "rank"):
            nodes.add(edge["target"])
            ways.add((edge["source"], edge["target"]))
    return nodes, ways


@pytest.mark.parametrize(
    "seed", [f"planted/{place}-24/{i}" for place in ("4-res", "0-res", "6-res", "2-mlp") for i in (1, 8)]
)
@pytest.mark.parametrize(
    ("back", "forward", "min_res", "min_module", "k"),
    [
        (None, None, 0.5, 0.25, 1),
        (None, None, 0.0, 0.0, 1),
        (None, None, "floor", "floor", 2),
        (1, 2, 0.1, 0.2, 3),
        (0, None, 0.3, "floor", 2),
        (None, 0, 0.3, 0.9, 2),
    ],
)
def test_equals_the_walk_over_the_arrays(
    planted: Planted, atlas: Atlas, seed: str, back: Any, forward: Any, min_res: Any, min_module: Any, k: int
) -> None:
    graph = lineage(atlas, seed, back=back, forward=forward, min_res=min_res, min_module=min_module, k=k)
    far = len(LAYERS)
    nodes, ways = walked(
        planted, seed, far if back is None else back, far if forward is None else forward, min_res, min_module, k
    )
    assert {node.id for node in graph.nodes} == nodes
    assert {(edge.source, edge.target) for edge in graph.edges} == ways


@pytest.mark.parametrize("seed", ["planted/4-res-24/1", "planted/2-mlp-24/8", "planted/6-res-24/3"])
@pytest.mark.parametrize(("threshold", "k"), [(0.0, 1), (0.2, 2), ("floor", 3)])
def test_by_push_the_best_are_others(planted: Planted, atlas: Atlas, seed: str, threshold: Any, k: int) -> None:
    graph = lineage(atlas, seed, min_res=threshold, min_module=threshold, k=k, by="push")
    nodes, ways = walked(planted, seed, len(LAYERS), len(LAYERS), threshold, threshold, k, "push")
    assert {node.id for node in graph.nodes} == nodes
    assert {(edge.source, edge.target) for edge in graph.edges} == ways
    pushes = {(edge["source"], edge["target"]): edge["push"] for edge in planted.edge_rows()}
    told = graph.to_dict()["edges"]
    assert all(edge["push"] == pushes[edge["source"], edge["target"]] > 0 for edge in told)
    shown = draw(graph, "mermaid")
    assert all(f"|{edge['push']:.2f}|" in shown for edge in told)
    assert all(f">{edge['push']}<" in draw(graph, "graphml") for edge in told)
    if threshold == 0.0:
        plain = lineage(atlas, seed, min_res=0.0, min_module=0.0, k=k)
        assert ways and ways != {(edge.source, edge.target) for edge in plain.edges}


def test_a_figure_that_no_edge_has_is_refused_with_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Planted(LAYERS)
    for pair in bare.matched:
        pair.push[:] = float("nan")
    monkeypatch.setattr("planted._figures", lambda *_, **__: {})
    bare.at(tmp_path / "bare")
    makes = {"push": f"ingest -a {tmp_path / 'bare'}", "correlation": "evidence edges --text FILE"}
    with open_atlas(tmp_path / "bare") as opened:
        for ask in (lineage, show):
            for figure, command in makes.items():
                with pytest.raises(QueryError, match=f"no {figure} yet; make it with: feature-atlas {command}"):
                    ask(opened, "planted/4-res-24/1", by=figure)
            with pytest.raises(QueryError, match="one of cosine, push, correlation, not 'rank'"):
                ask(opened, "planted/4-res-24/1", by="rank")


@pytest.mark.slow
def test_pairs_without_push_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As attention dictionaries mapped through an output norm: their matches are left out, and not without a word."""
    some = Planted(LAYERS)
    for pair in some.matched:
        pair.push[:] = float("nan") if pair.earlier.site == "att" else 1.0
    some.at(tmp_path / "some")
    with open_atlas(tmp_path / "some") as opened:
        graph = lineage(opened, "planted/4-res-24/1", min_res=0.0, min_module=0.0, by="push")
    assert {node.site for node in graph.nodes} == {"res", "mlp"}
    assert "edges between planted/4-att-24 and planted/4-res-24 have no push and are left out" in caplog.text


def test_show_lists_matches_by_push(planted: Planted, atlas: Atlas) -> None:
    rows = [row for row in show(atlas, "planted/4-res-24/1", most=2, by="push") if row["part"] in ("earlier", "later")]
    edges = ranked_by_push(planted.edge_rows())
    earlier = [e for e in edges if e["source"] == "planted/4-res-24/1" and e["rank"] < 2]
    later = [e for e in edges if e["target"] == "planted/4-res-24/1" and e["forward_rank"] < 2]
    assert {(row["part"], row["id"], row["push"]) for row in rows} == {
        *(("earlier", e["target"], e["push"]) for e in earlier),
        *(("later", e["source"], e["push"]) for e in later),
    }
    assert len(earlier) > 3 and rows[0]["site"] == "mlp" and rows[0]["push"] >= rows[1]["push"]


def test_json_holds_what_the_graph_holds(planted: Planted, atlas: Atlas) -> None:
    graph = lineage(atlas, "planted/4-res-24/8", min_res=0.1, k=2).to_dict()
    assert json.loads(json.dumps(graph)) == graph
    assert list(graph) == ["seed", "nodes", "edges", "directed", "multigraph"]
    features = planted.features()
    names = ["id", "layer", "site", "depth", "label", "s_res", "s_mlp", "s_att", "origin", "lifecycle"]
    names += ["dictionary", "fires_on", "promotes"]
    assert graph["nodes"] == [{name: features[node["id"]][name] for name in names} for node in graph["nodes"]]
    assert graph["nodes"] == sorted(graph["nodes"], key=lambda node: (node["depth"], node["id"]))
    edges = {(edge["source"], edge["target"]): edge for edge in planted.edge_rows()}
    for edge in graph["edges"]:
        assert list(edge) == ["source", "target", "type", "similarity", "rank", "forward_rank"]
        assert edge == {name: edges[edge["source"], edge["target"]][name] for name in edge}


def test_bridges_a_missing_layer(atlas: Atlas) -> None:
    # A feature of layer 4 has its best residual match in layer 2; nothing is ever further apart.
    graph = lineage(atlas, "planted/4-res-24/1", back=1, forward=0, min_res=0.0)
    assert {node.layer for node in graph.nodes if node.site == "res"} == {2, 4}


def test_a_dead_feature_stands_alone(atlas: Atlas) -> None:
    graph = lineage(atlas, "planted/4-res-24/23", min_res=0.0, min_module=0.0)
    assert [node.id for node in graph.nodes] == ["planted/4-res-24/23"]
    assert graph.edges == ()


@pytest.mark.parametrize("feature", ["planted/3-res-24/1", "planted/4-res-24/24", "planted/4-res-24", "4"])
def test_unknown_features_are_named(atlas: Atlas, feature: str) -> None:
    with pytest.raises(UnknownFeature):
        lineage(atlas, feature)


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"back": -1}, {"forward": -1}, {"min_res": float("nan")}, {"min_module": "ceiling"}, {"min_res": 1.5}],
)
def test_numbers_out_of_range_are_refused(atlas: Atlas, wrong: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        lineage(atlas, "planted/4-res-24/1", **wrong)

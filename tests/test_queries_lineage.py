"""Flow graphs against the same walk over the planted arrays, written by recursion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from planted import Planted

from atlas.atlas import Atlas, open_atlas
from atlas.errors import QueryError, UnknownFeature
from queries.lineage import lineage

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


def walked(
    planted: Planted, seed: str, back: int, forward: int, min_res: Any, min_module: Any, k: int
) -> tuple[set[str], set[tuple[str, str]]]:
    """Nodes and edges of the flow graph, by recursion over all edges."""
    edges = planted.edge_rows()
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

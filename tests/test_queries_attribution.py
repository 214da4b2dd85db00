"""The JSON of attribution graphs: against the fields that Neuronpedia's public schema asks for, and turned edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from saes import planted

from atlas import open_atlas
from ingest import ingest
from queries import lineage
from queries.lineage.draw import draw

# Required fields and their types in hijohnnylin/neuronpedia @b8efe84, apps/webapp/app/api/graph/graph-schema.json.
METADATA = {"slug": str, "scan": str, "prompt": str, "prompt_tokens": list}
NODE: dict[str, Any] = {
    "node_id": str,
    "feature": (int, type(None)),
    "layer": (str, int),
    "ctx_idx": int,
    "feature_type": str,
    "jsNodeId": str,
    "clerp": str,
}
LINK = {"source": str, "target": str, "weight": (int, float)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("attribution")
    ingest([planted(base / "saes", range(4))], base / "a")
    return base / "a"


def typed(values: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, type_ in wanted.items():
        assert isinstance(values[name], type_) and not isinstance(values[name], bool), name


def test_it_has_the_schemas_fields_and_its_edges_are_turned(folder: Path) -> None:
    with open_atlas(folder) as atlas:
        graph = lineage(atlas, "tiny-1m/2-res-64/3", min_res=0.3, min_module=0.1, k=2)
    text = draw(graph, "attribution")
    values = json.loads(text)
    assert text == draw(graph, "attribution") and set(values) == {"metadata", "qParams", "nodes", "links"}
    typed(values["metadata"], METADATA)
    for each, wanted in ((values["nodes"], NODE), (values["links"], LINK)):
        assert each
        for one in each:
            typed(one, wanted)
    names = {node["node_id"]: node for node in values["nodes"]}
    assert len(names) == len(graph.nodes) and values["qParams"]["clickedId"] in names
    # Every link leads upwards: to a later layer, or from a module to the stream of its own.
    for link in values["links"]:
        source, target = names[link["source"]], names[link["target"]]
        assert (int(source["layer"]), source["ctx_idx"]) < (int(target["layer"]), target["ctx_idx"])
    ends = {
        (one["clerp"].split()[0], two["clerp"].split()[0])
        for link in values["links"]
        for one, two in [(names[link["source"]], names[link["target"]])]
    }
    assert ends == {(edge.target, edge.source) for edge in graph.edges}
    assert all(0 <= node["ctx_idx"] < len(values["metadata"]["prompt_tokens"]) for node in values["nodes"])

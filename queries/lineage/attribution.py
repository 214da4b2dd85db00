"""A flow graph in the JSON of attribution graphs, which Neuronpedia and circuit-tracer's page open.

That form is of one prompt, and a lineage of rows is of none. So the three columns that tokens have there are the sites
att, mlp and res; a layer is a row, as there. Links lead from the earlier feature to the later, theirs from source to
target of influence: the other way round than ours. Weights are cosines, or shares of the later feature's pre-activation
where the graph is one of an occurrence. `influence` is 1 − similarity of the node's strongest edge, since their slider
hides the nodes of large influence first. There are no error, embedding or logit nodes.
"""

from __future__ import annotations

import json
from typing import Any

from atlas.ids import ATT, MLP, RES
from queries.lineage.graph import Edge, Lineage, Node

_COLUMNS = (ATT, MLP, RES)


def attribution(graph: Lineage) -> str:
    """The graph as that JSON, ending with a newline.

    Example:
        Path("film.json").write_text(attribution(lineage(atlas, "9-res-2k/2018")))
    """
    strongest: dict[str, float] = {}
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            strongest[end] = max(strongest.get(end, 0.0), edge.weight)
    names = {node.id: _name(node) for node in graph.nodes}
    values = {
        "metadata": _metadata(graph),
        "qParams": {
            "pinnedIds": [names[node.id] for node in graph.nodes],
            "supernodes": [],
            "linkType": "both",
            "clickedId": names[graph.seed],
            "sg_pos": "",
        },
        "nodes": [_node(node, strongest.get(node.id)) for node in graph.nodes],
        "links": [_link(edge, names) for edge in graph.edges],
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _metadata(graph: Lineage) -> dict[str, Any]:
    model = graph.state.get("model", graph.seed.partition("/")[0])
    on = graph.options.get("on")
    what = f"one occurrence, at token {on['position']} ({on['token']!r})" if on else "rows alone, of no prompt"
    weights = "shares of the later feature's pre-activation" if on else "cosines of decoder rows"
    state = ", ".join(f"{name} {value}" for name, value in graph.state.items())
    known = [node.dictionary.rpartition("/")[2] for node in graph.nodes if node.id == graph.seed]
    return {
        "slug": graph.seed.replace("/", "_"),
        "scan": model,
        "prompt_tokens": [site.upper() for site in _COLUMNS],
        "prompt": on["text"] if on else f"Lineage of {graph.seed}",
        "schema_version": 1,
        "feature_details": {"neuronpedia_source_set": known[0].partition("-")[2]},
        "info": {
            "description": f"A lineage from dictionaries ({what}). Columns are sites, weights {weights}; there are no "
            f"error, embedding or logit nodes. {state}",
            "generator": {"name": "feature-atlas"},
        },
    }


def _name(node: Node) -> str:
    layer, index = node.layer, node.id.rpartition("/")[2]
    # By the dictionary too: two of one place have features of the same number.
    return f"{layer}_{index}_{_COLUMNS.index(node.site)}_{node.dictionary.rpartition('/')[2]}"


def _node(node: Node, strongest: float | None) -> dict[str, Any]:
    name = _name(node)
    return {
        "node_id": name,
        "feature": int(node.id.rpartition("/")[2]),
        "layer": str(node.layer),
        "ctx_idx": _COLUMNS.index(node.site),
        "feature_type": "cross layer transcoder",  # what their pages draw as a feature
        "jsNodeId": name,
        "clerp": f"{node.id}  {node.label}" if node.label else node.id,
        "influence": None if strongest is None else 1 - strongest,
        "activation": getattr(node, "activation", None),
    }


def _link(edge: Edge, names: dict[str, str]) -> dict[str, Any]:
    return {"source": names[edge.target], "target": names[edge.source], "weight": edge.weight}

"""Flow graphs of any size, made from a seed, for drawings: layers, lanes, branches, labels of every script."""

from __future__ import annotations

import random
from dataclasses import replace

from queries.lineage.graph import Edge, Lineage, Node

HOSTILE = (
    "<script>alert(1)</script>",
    "]]><svg onload=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "\u202eright to left\u202c \x00\x1b[31m",
    "&amp; {{7*7}} ${x} `y`",
    "语言模型的特征地图" * 3,
    "שלום עולם שלום",
    "\ud800 lone, \ufffe",
)
_SITES = ("att", "mlp", "res")
_CYCLES = ("start", "persists", "transforms", "appears", "unexplained", None)


def flow(
    size: int,
    layers: int = 26,
    seed: int = 0,
    labels: tuple[str, ...] = ("film, world", "war", *HOSTILE),
    branching: bool = False,
) -> Lineage:
    """A lineage of about `size` features: a spine, branches beside it, modules that write to both."""
    source = random.Random(seed)
    nodes: list[Node] = []
    edges: list[Edge] = []
    before: list[Node] = []
    each = max(1, size // layers)
    for layer in range(layers):
        stream = [_node(source, layer, "res", i, labels) for i in range(max(1, each // 2))]
        modules = [_node(source, layer, source.choice(_SITES[:2]), i, labels) for i in range(each - len(stream))]
        for node in stream if before else ():
            edges.append(_edge(source, node, source.choice(before)))
            if branching:  # every feature is joined with what is below and with what is beside it there
                edges += [
                    _edge(source, node, other) for other in source.sample(before, 3) if other.id != edges[-1].target
                ]
        edges += [_edge(source, source.choice(stream), module) for module in modules]
        nodes += stream + modules
        before = stream
    nodes.sort(key=lambda node: (node.depth, node.id))
    place = {node.id: i for i, node in enumerate(nodes)}
    edges.sort(key=lambda edge: (place[edge.source], place[edge.target]))
    seed_node = next(node for node in nodes if node.site == "res" and node.layer == layers // 2)
    return Lineage(seed_node.id, tuple(nodes), tuple(edges), {"min_res": 0.5, "min_module": "floor", "k": 1})


def renamed(graph: Lineage, labels: dict[str, str]) -> Lineage:
    """The same graph, some of its features labelled otherwise."""
    nodes = tuple(replace(node, label=labels.get(node.id, node.label)) for node in graph.nodes)
    return replace(graph, nodes=nodes)


def _node(source: random.Random, layer: int, site: str, index: int, labels: tuple[str, ...]) -> Node:
    dictionary = f"tiny/{layer}-{site}-8k"
    cycle = source.choice(_CYCLES) if site == "res" else None
    depth = 3 * layer + _SITES.index(site)
    origin = source.choice(("res", "mlp", "att", "none")) if site == "res" else None
    label = source.choice(labels)
    return Node(f"{dictionary}/{index}", layer, site, depth, label, 0.5, None, None, origin, cycle, dictionary)


def _edge(source: random.Random, later: Node, earlier: Node) -> Edge:
    rank = source.choice((0, 0, 0, 1, None))
    return Edge(later.id, earlier.id, f"FROM_{earlier.site.upper()}", round(source.uniform(0.2, 1.0), 3), rank, 0)

"""A flow graph as a tree of lines for people."""

from __future__ import annotations

from collections import defaultdict

from atlas.cli.output import fit, printable
from atlas.ids import RES
from queries.lineage.graph import Edge, Lineage, Node

WIDTH = 100  # columns of a tree
Link = tuple[Edge, str]  # an edge and the feature at its end that is nearer to the seed


def tree(graph: Lineage, width: int = WIDTH) -> str:
    """The graph from its earliest to its latest feature, a line each, at most `width` columns wide.

    The line that leads through the best residual matches is drawn at the left; what is written into it or branches off
    hangs on it. The number (`Edge.weight`, a cosine as a rule) is that with the feature one step nearer to the seed,
    named where it is not on that line.
    """
    links = _links(graph)
    trunk = _trunk(graph, links)

    def place(node: Node) -> tuple[int, bool, float, str]:
        return node.depth, node.id in trunk, -links[node.id][0].weight if node.id in links else 0.0, node.id

    nodes = sorted(graph.nodes, key=place)
    cells = [_cells(node, links.get(node.id), trunk) for node in nodes]
    marks = _marks([node.id in trunk for node in nodes], [node.id == graph.seed for node in nodes])
    name = max(len(cell[0]) for cell in cells)
    state = max(len(cell[2]) for cell in cells)
    number = max(4, *(len(cell[1]) for cell in cells))
    lines = [f"{graph.seed}: {len(nodes)} features, earliest first" if len(nodes) > 1 else f"{graph.seed}: alone"]
    for mark, (left, similarity, state_, words) in zip(marks, cells, strict=True):
        lines.append(fit(f"{mark}{left:<{name}}  {similarity:>{number}}  {state_:<{state}}  {words}", width).rstrip())
    return "\n".join([*lines, *graph.notes]) + "\n"


def words(node: Node) -> str:
    """The label on one line; empty where there is none."""
    return printable(node.label or "")


def short(feature: str) -> str:
    """A feature's id without its model, which all features of a graph share."""
    return feature.partition("/")[2]


def _cells(node: Node, link: Link | None, trunk: set[str]) -> tuple[str, str, str, str]:
    """Name, similarity, life cycle, words."""
    arm = " " if node.id in trunk else "─○ " if node.site == RES else "─▪ "
    similarity = link[0].shown if link else ""
    aside = f"↔ {short(link[1])}  " if link and link[1] not in trunk else ""
    return arm + short(node.id), similarity, node.state, aside + words(node)


def _marks(on_trunk: list[bool], is_seed: list[bool]) -> list[str]:
    """The first column: the trunk's features, and the line that joins them."""
    first, last = on_trunk.index(True), len(on_trunk) - 1 - on_trunk[::-1].index(True)
    marks = []
    for i, trunk in enumerate(on_trunk):
        end = "┌" if i == 0 and i < first else "└" if i == len(on_trunk) - 1 and i > last else "├"
        marks.append("●" if is_seed[i] else "○" if trunk else end)
    return marks


def _links(graph: Lineage) -> dict[str, Link]:
    """For each feature but the seed its best edge one step nearer to the seed, and the feature there."""
    sites = {node.id: node.site for node in graph.nodes}
    joined: dict[str, list[Link]] = defaultdict(list)
    for edge in graph.edges:
        joined[edge.source].append((edge, edge.target))
        joined[edge.target].append((edge, edge.source))
    links: dict[str, Link] = {}
    frontier = [graph.seed]
    while frontier:
        found: dict[str, list[Link]] = defaultdict(list)
        for name in frontier:
            # A module's feature that two residual features share is no way from one to the other.
            if sites[name] == RES or name == graph.seed:
                for edge, other in joined[name]:
                    if other != graph.seed and other not in links:
                        found[other].append((edge, name))
        # After the whole ring: a feature that several lead to at the same distance takes its best edge.
        for name, ways in found.items():
            links[name] = min(ways, key=lambda way: (-way[0].weight, way[1]))
        frontier = list(found)
    return links


def _trunk(graph: Lineage, links: dict[str, Link]) -> set[str]:
    """The seed and the residual features that the best matches lead to from it, in both directions."""
    sites = {node.id: node.site for node in graph.nodes}
    following: dict[tuple[str, bool], list[tuple[float, str]]] = defaultdict(list)
    for name, (edge, parent) in links.items():
        if sites[name] == RES:
            following[parent, name == edge.source].append((-edge.weight, name))
    trunk = {graph.seed}
    for later in (False, True):
        ways = following[graph.seed, later]
        while ways:
            _, best = min(ways)
            trunk.add(best)
            ways = following[best, later]
    return trunk

"""The answer of a question whose rows are edges, as a flow graph that can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.schema import EDGE_OF_SITE, FEATURE
from queries.lineage.graph import COLUMNS, Edge, Lineage, Node, node_of
from queries.questions.questions import QUESTIONS, Question

if TYPE_CHECKING:
    from atlas.atlas import Atlas

_ENDS = (("source", "target"), ("later", "earlier"))  # columns that hold the later and the earlier feature
# One statement a feature, and features by a list that is unwound: this is what both stores answer by index.
_BEFORE = f"""
MATCH (b:{FEATURE} {{id: $id}})-[r:{"|".join(EDGE_OF_SITE.values())}]->(a:{FEATURE})
WHERE r.rank = 0 OR r.forward_rank = 0
RETURN a.id AS target, a.site AS site, r.similarity AS similarity, r.rank AS rank, r.forward_rank AS forward_rank
"""
_NODES = f"UNWIND $ids AS name MATCH (g:{FEATURE} {{id: name}}) RETURN {COLUMNS}"


def answer_graph(atlas: Atlas, question: Question, rows: Sequence[Mapping[str, Any]]) -> Lineage:
    """The features that the rows join, and the rows as edges; the latest feature stands as the one asked about.

    Raises QueryError where the rows are no edges, or there is none.
    """
    ends = _ends(question)
    if ends is None:
        drawable = ", ".join(name for name, other in QUESTIONS.items() if _ends(other))
        raise QueryError(f"the answer of {question.name} is a table; pictures are drawn of: {drawable}, and of lineage")
    if not rows:
        raise QueryError(f"{question.name} has no answer here, so there is nothing to draw")
    nodes = nodes_of(atlas, {row[end] for row in rows for end in ends})
    sites = {node.id: node.site for node in nodes}
    edges: dict[tuple[str, str], Edge] = {}
    for row in rows:
        later, earlier = (row[end] for end in ends)
        match = (row["similarity"], row.get("rank", 0), row.get("forward_rank"))
        # The same edge may be found from either end.
        edges.setdefault((later, earlier), Edge(later, earlier, EDGE_OF_SITE[sites[earlier]], *match))
    place = {node.id: i for i, node in enumerate(nodes)}
    ordered = sorted(edges.values(), key=lambda edge: (place[edge.source], place[edge.target]))
    manifest = atlas.manifest
    state = {"question": question.name, "atlas": manifest.id[:8], "state": str(manifest.state)[:8]}
    return Lineage(nodes[-1].id, tuple(nodes), tuple(ordered), state=state)


def joined_graph(atlas: Atlas, features: set[str]) -> Lineage:
    """These features and the best matches among them; the latest one that has any stands as the one asked about."""
    nodes = nodes_of(atlas, features)
    ids = [node.id for node in nodes]
    edges = [
        Edge(id_, row["target"], EDGE_OF_SITE[row["site"]], row["similarity"], row["rank"], row["forward_rank"])
        for id_, rows in zip(ids, atlas.read_each(_BEFORE, [{"id": id_} for id_ in ids]), strict=True)
        for row in rows
        if row["target"] in features
    ]
    place = {node.id: i for i, node in enumerate(nodes)}
    ordered = sorted(edges, key=lambda edge: (place[edge.source], place[edge.target]))
    seed = ordered[-1].source if ordered else ids[-1]
    state = {"atlas": atlas.manifest.id[:8], "state": str(atlas.manifest.state)[:8]}
    return Lineage(seed, tuple(nodes), tuple(ordered), state=state)


def nodes_of(atlas: Atlas, ids: set[str]) -> list[Node]:
    """These features as nodes, in the order of (depth, id)."""
    rows = atlas.read(_NODES, ids=sorted(ids))
    return sorted(map(node_of, rows), key=lambda node: (node.depth, node.id))


def _ends(question: Question) -> tuple[str, str] | None:
    return next((ends for ends in _ENDS if {*ends, "similarity"} <= set(question.columns)), None)

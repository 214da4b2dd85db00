"""The flow graph of a feature (paper §3.4, App. B, E).

1. Back: from a residual feature to its k best matches in the residual dictionary before it, and on from there, as long
   as the similarity reaches `min_res`.
2. Forward: to the residual features of the next dictionary that it matches best, seen from the earlier one
   (`forward_rank`), cut likewise.
3. At every residual feature on the way: its k best matches among the MLP and the attention features of its own layer,
   where they reach `min_module`.

A seed in mlp or att starts forward: to the residual features of its layer that it matches best, then as in 2 and 3.
One statement a feature: the embedded store answers it by index in about 0.1 ms, where one variable-length pattern over
the whole walk takes it 60 to 250 ms, and time exponential in k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from atlas.errors import QueryError
from atlas.ids import RES
from atlas.rows import Rows
from atlas.schema import DICTIONARY, EDGE_OF_SITE, FEATURE, MATCHED

if TYPE_CHECKING:
    import pandas as pd

    from atlas.atlas import Atlas

Threshold = float | Literal["floor"]
Row = dict[str, Any]

_RES, _ANY = EDGE_OF_SITE[RES], "|".join(EDGE_OF_SITE.values())
_FIELDS = ("id", "layer", "site", "depth", "label", "s_res", "s_mlp", "s_att", "origin", "lifecycle")  # of the json
_NODE = ", ".join(f"g.{name} AS {name}" for name in (*_FIELDS, "dictionary"))
_MATCH = "r.similarity AS similarity, r.rank AS rank, r.forward_rank AS forward_rank"

SEED = f"MATCH (g:{FEATURE} {{id: $id}}) RETURN {_NODE}"
EARLIER = f"MATCH (f:{FEATURE} {{id: $id}})-[r:{_ANY}]->(g:{FEATURE}) WHERE r.rank < $k RETURN {_NODE}, {_MATCH}"
LATER = f"MATCH (f:{FEATURE} {{id: $id}})<-[r:{_ANY}]-(g:{FEATURE}) WHERE r.forward_rank < $k RETURN {_NODE}, {_MATCH}"
FLOORS = (
    f"MATCH (b:{DICTIONARY})-[m:{MATCHED}]->(a:{DICTIONARY}) RETURN b.id AS later, a.id AS earlier, m.floor AS floor"
)


@dataclass(frozen=True)
class Node:
    """A feature on the flow graph."""

    id: str
    layer: int
    site: str  # res, mlp or att
    depth: int  # order along the forward pass
    label: str | None  # its own, else tokens it fires on, else tokens it promotes
    s_res: float | None  # best cosine with the residual dictionary before it (paper §3.3)
    s_mlp: float | None  # with its layer's MLP dictionary
    s_att: float | None  # with its layer's attention dictionary
    origin: str | None  # res, mlp, att or none
    lifecycle: str | None  # start, persists, transforms, appears or unexplained
    dictionary: str  # its dictionary's id


@dataclass(frozen=True)
class Edge:
    """A match on the flow graph."""

    source: str  # id of the later feature
    target: str  # id of the earlier one
    type: str  # FROM_RES, FROM_MLP or FROM_ATT
    similarity: float  # cosine
    rank: int | None  # 0: the later feature's best match in that dictionary; None: outside its top k
    forward_rank: int | None  # the same seen from the earlier feature


@dataclass(frozen=True)
class Lineage:
    """A flow graph: nodes in the order of (depth, id), edges in that of their ends."""

    seed: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)  # what it was drawn with: thresholds, steps

    def to_dict(self) -> dict[str, Any]:
        """`seed`, `nodes`, `edges` as plain values, for json; an edge's source is the later feature."""
        nodes = [{name: getattr(node, name) for name in _FIELDS} for node in self.nodes]
        return {"seed": self.seed, "nodes": nodes, "edges": [vars(edge).copy() for edge in self.edges]}

    def to_pandas(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Nodes and edges as two frames with the columns of `to_dict`; raises AtlasError where pandas is missing.

        Example:
            nodes, edges = lineage(atlas, "smollm2-135m-instruct/9-res-2k/2018").to_pandas()
            print(nodes[["id", "lifecycle"]], edges["similarity"].mean())
        """
        values, edge = self.to_dict(), [each.name for each in fields(Edge)]
        return Rows(values["nodes"], _FIELDS).to_pandas(), Rows(values["edges"], edge).to_pandas()


def lineage(
    atlas: Atlas,
    feature: str,
    *,
    back: int | None = None,
    forward: int | None = None,
    min_res: Threshold | None = None,
    min_module: Threshold | None = None,
    k: int = 1,
) -> Lineage:
    """The flow graph of a feature.

    back, forward: most steps from one residual dictionary to the next (None: all the way).
    min_res, min_module: smallest cosine of a residual step and of a module's match, or "floor": the noise floor of each
    pair of dictionaries; None: the thresholds that the atlas was made with.
    k: matches followed in each dictionary, up to the atlas's own k.
    Raises UnknownFeature; QueryError where k, a number of steps or a threshold is out of range or a pair has no noise
    floor.

    Example:
        graph = lineage(atlas, "smollm2-135m-instruct/9-res-2k/2018", min_res="floor")
        earliest, *_ = graph.nodes
        print(earliest.id, earliest.label)
    """
    feature = atlas.full_id(feature)
    # Raises what the user can act on; the graph would answer an unknown id with no rows.
    atlas.locate(feature)
    if k < 1 or any(steps is not None and steps < 0 for steps in (back, forward)):
        raise QueryError("a lineage needs k of at least 1, and numbers of steps back and forward that are not negative")
    res: Any = atlas.manifest.min_res if min_res is None else min_res
    module: Any = atlas.manifest.min_module if min_module is None else min_module
    for threshold in (res, module):
        if threshold != "floor" and not (isinstance(threshold, int | float) and -1 <= threshold <= 1):
            raise QueryError(f"a threshold is a cosine or floor, not {threshold!r}")
    walk = _Walk(atlas, k, _cut(atlas, res, module))
    seed = walk.start(feature)
    if seed.site == RES:
        _follow(walk.earlier, [seed], back)
        _follow(walk.later, [seed], forward)
    elif forward != 0:
        # Its own layer's residual features are no step from one residual dictionary to the next.
        _follow(walk.later, walk.later([seed]), forward)
    # Last, when all residual features are known: modules hang on them and lead nowhere.
    walk.add_modules()
    nodes = sorted(walk.nodes.values(), key=lambda node: (node.depth, node.id))
    place = {node.id: i for i, node in enumerate(nodes)}
    # By the nodes' order: what a store gives first must not show.
    edges = sorted(walk.edges.values(), key=lambda edge: (place[edge.source], place[edge.target]))
    options = {"min_res": res, "min_module": module, "back": back, "forward": forward, "k": k}
    return Lineage(feature, tuple(nodes), tuple(edges), options)


class _Walk:
    """What has been reached so far; every feature is asked once in each direction."""

    def __init__(self, atlas: Atlas, k: int, keep: Callable[[str, str, str, float], bool]) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], Edge] = {}
        self._atlas, self._k, self._keep = atlas, k, keep
        self._earlier: dict[str, list[Row]] = {}

    def start(self, feature: str) -> Node:
        """The seed's node."""
        # There is one: the id was located in the records, for which the graph stands.
        row = self._atlas.read(SEED, id=feature)[0]
        return self._add(row)

    def earlier(self, nodes: list[Node]) -> list[Node]:
        """The residual features that the nodes' best matches lead back to."""
        return [self._link(node, row, back=True) for node, row in self._before(nodes) if row["site"] == RES]

    def later(self, nodes: list[Node]) -> list[Node]:
        """The later residual features that the nodes match best."""
        return [
            self._link(node, row, back=False)
            for node, rows in zip(nodes, self._asked(LATER, nodes), strict=True)
            for row in rows
            if self._keep(row["dictionary"], node.dictionary, node.site, row["similarity"])
        ]

    def add_modules(self) -> None:
        """The modules' features that match the residual features reached so far."""
        for node, row in self._before([node for node in self.nodes.values() if node.site == RES]):
            if row["site"] != RES:
                self._link(node, row, back=True)

    def _before(self, nodes: list[Node]) -> list[tuple[Node, Row]]:
        """The nodes' matches that are kept, each with its node."""
        new = [node for node in nodes if node.id not in self._earlier]
        for node, rows in zip(new, self._asked(EARLIER, new), strict=True):
            # Kept: modules are asked for later of features that the walk back has asked already.
            self._earlier[node.id] = [
                row for row in rows if self._keep(node.dictionary, row["dictionary"], row["site"], row["similarity"])
            ]
        return [(node, row) for node in nodes for row in self._earlier[node.id]]

    def _asked(self, cypher: str, nodes: list[Node]) -> list[list[Row]]:
        return self._atlas.read_each(cypher, [{"id": node.id, "k": self._k} for node in nodes]) if nodes else []

    def _link(self, node: Node, row: Row, *, back: bool) -> Node:
        """Add the row's feature and its edge with the node; `back`: the row is the earlier one."""
        other = self._add(row)
        later, earlier = (node, other) if back else (other, node)
        match = (row["similarity"], row["rank"], row["forward_rank"])
        self.edges[later.id, earlier.id] = Edge(later.id, earlier.id, EDGE_OF_SITE[earlier.site], *match)
        return other

    def _add(self, row: Row) -> Node:
        return self.nodes.setdefault(row["id"], Node(**{name: row[name] for name in (*_FIELDS, "dictionary")}))


def _follow(step: Callable[[list[Node]], list[Node]], frontier: list[Node], steps: int | None) -> None:
    """Go on from these, breadth first, as long as there are steps and features not seen on this way."""
    seen = {node.id for node in frontier}
    while frontier and steps != 0:
        reached = {node.id: node for node in step(frontier)}
        frontier = [node for name, node in reached.items() if name not in seen]
        # Also those that were met again: edges to them are drawn, but none is walked twice.
        seen.update(reached)
        steps = None if steps is None else steps - 1


def floors_of(atlas: Atlas) -> dict[tuple[str, str], float | None]:
    """The noise floor of each pair of dictionaries, (later, earlier); None where none is stored."""
    return {(row["later"], row["earlier"]): row["floor"] for row in atlas.read(FLOORS)}


def _cut(atlas: Atlas, min_res: Threshold, min_module: Threshold) -> Callable[[str, str, str, float], bool]:
    """Whether a match (later dictionary, earlier dictionary, earlier site, similarity) is kept."""
    floors = floors_of(atlas) if "floor" in (min_res, min_module) else {}

    def keep(later: str, earlier: str, site: str, similarity: float) -> bool:
        # The earlier feature's site decides: it is what the match says where something comes from.
        least: float | str | None = min_res if site == RES else min_module
        if least == "floor":
            least = floors.get((later, earlier))
        if least is None:
            raise QueryError(f"no noise floor is stored for {later} and {earlier}; give a number instead of floor")
        return similarity >= float(least)

    return keep

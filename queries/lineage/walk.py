"""The flow graph of a feature (paper §3.4, App. B, E).

1. Back: from a residual feature to its k best matches in the residual dictionary before it, and on from there, as long
   as the similarity reaches `min_res`.
2. Forward: to the residual features of the next dictionary that it matches best, seen from the earlier one
   (`forward_rank`), cut likewise.
   Best by cosine, or by another figure of the edges (queries.lineage.matches); what is cut is cut by cosine.
3. At every residual feature on the way: its k best matches among the MLP and the attention features of its own layer,
   where they reach `min_module`.

A seed in mlp or att starts forward: to the residual features of its layer that it matches best, then as in 2 and 3.
One statement a feature: the embedded store answers it by index in about 0.1 ms, where one variable-length pattern over
the whole walk takes it 60 to 250 ms, and time exponential in k.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from atlas.errors import QueryError
from atlas.ids import RES
from atlas.schema import DICTIONARY, EDGE_OF_SITE, FEATURE, MATCHED
from queries.lineage.graph import COLUMNS, Edge, Lineage, Node, Row, node_of
from queries.lineage.matches import COSINE, Matches

if TYPE_CHECKING:
    from atlas.atlas import Atlas

Threshold = float | Literal["floor"]

SEED = f"MATCH (g:{FEATURE} {{id: $id}}) RETURN {COLUMNS}"
FLOORS = (
    f"MATCH (b:{DICTIONARY})-[m:{MATCHED}]->(a:{DICTIONARY}) RETURN b.id AS later, a.id AS earlier, m.floor AS floor"
)


def lineage(
    atlas: Atlas,
    feature: str,
    *,
    back: int | None = None,
    forward: int | None = None,
    min_res: Threshold | None = None,
    min_module: Threshold | None = None,
    k: int = 1,
    by: str = COSINE,
    min_cofire: float | None = None,
    on: str | None = None,
    token: int | None = None,
    verify: bool = False,
    model: Any = None,
    tokenizer: Any = None,
) -> Lineage:
    """The flow graph of a feature; `on` a text that of one occurrence.

    back, forward: most steps from one residual dictionary to the next (None: all the way).
    min_res, min_module: smallest cosine of a residual step and of a module's match, or "floor": the noise floor of each
    pair of dictionaries; None: the thresholds that the atlas was made with.
    k: matches followed in each dictionary, up to the atlas's own k. by: what the best matches are best by: cosine, push
    or correlation. min_cofire: smallest share of the later feature's active positions at which the earlier fires too
    (queries.evidence); edges whose support was too small have none and are left out with it.
    on: a text; the graph is then that of the feature at one of its tokens, from activations (queries.occurrence.flow),
    with k predecessors a dictionary, as far back as `back` says; thresholds, forward and by have no part in it.
    token: position in the text (None: where the feature is strongest). verify: each predecessor is taken away in a
    forward pass. model, tokenizer: as `activate` takes them.
    Raises UnknownFeature; QueryError where k, a number of steps or a threshold is out of range, a pair has no noise
    floor, or the edges have no such figure.

    Example:
        graph = lineage(atlas, "smollm2-135m-instruct/9-res-2k/2018", min_res="floor")
        earliest, *_ = graph.nodes
        print(earliest.id, earliest.label)
    """
    feature = atlas.full_id(feature)
    # Raises what the user can act on; the graph would answer an unknown id with no rows.
    atlas.locate(feature)
    if on is None and (token is not None or verify):
        raise QueryError("a token, and what is verified, belong to a text: give one with on (--on)")
    if on is not None and (forward is not None or (min_res, min_module, min_cofire, by) != (*[None] * 3, COSINE)):
        raise QueryError("the graph of a text goes back, by shares: no forward, thresholds or by with it")
    if k < 1 or any(steps is not None and steps < 0 for steps in (back, forward)):
        raise QueryError("a lineage needs k of at least 1, and numbers of steps back and forward that are not negative")
    res: Any = atlas.manifest.min_res if min_res is None else min_res
    module: Any = atlas.manifest.min_module if min_module is None else min_module
    for threshold in (res, module):
        if threshold != "floor" and not (isinstance(threshold, int | float) and -1 <= threshold <= 1):
            raise QueryError(f"a threshold is a cosine or floor, not {threshold!r}")
    if on is not None:
        # By name: it runs the model, and needs this file.
        flow = importlib.import_module("queries.occurrence.flow").flow
        graph: Lineage = flow(atlas, model, tokenizer, on, feature, token=token, k=k, back=back, verify=verify)
        return graph
    walk = _Walk(atlas, Matches(atlas, COLUMNS, k, by, min_cofire), _cut(atlas, res, module))
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
    options = {"min_res": res, "min_module": module, "back": back, "forward": forward, "k": k, "by": by}
    options |= {} if min_cofire is None else {"min_cofire": min_cofire}
    return Lineage(feature, tuple(nodes), tuple(edges), options, walk.outside(), state_of(atlas, seed))


def state_of(atlas: Atlas, seed: Node) -> dict[str, str]:
    """What a graph was made of."""
    state = str(atlas.manifest.state)[:8]
    return {"model": seed.dictionary.rpartition("/")[0], "atlas": atlas.manifest.id[:8], "state": state}


class _Walk:
    """What has been reached so far; every feature is asked once in each direction."""

    def __init__(self, atlas: Atlas, matches: Matches, keep: Callable[[str, str, str, float], bool]) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], Edge] = {}
        self._atlas, self._matches, self._keep = atlas, matches, keep
        self._earlier: dict[str, list[Row]] = {}
        self._ended: list[tuple[Node, Edge]] = []

    def start(self, feature: str) -> Node:
        """The seed's node."""
        # There is one: the id was located in the records, for which the graph stands.
        row = self._atlas.read(SEED, id=feature)[0]
        return self._add(row)

    def earlier(self, nodes: list[Node]) -> list[Node]:
        """The residual features that the nodes' best matches lead back to."""
        return [self._link(node, row, back=True) for node, row in self._before(nodes, ends=True) if row["site"] == RES]

    def later(self, nodes: list[Node]) -> list[Node]:
        """The later residual features that the nodes match best."""
        reached = []
        for node, rows in zip(nodes, self._matches.later([node.id for node in nodes]), strict=True):
            for row in rows:
                if self._keep(row["dictionary"], node.dictionary, node.site, row["similarity"]):
                    reached.append(self._link(node, row, back=False))
                elif row["first"]:
                    self._end(node, row, back=False)
        return reached

    def outside(self) -> tuple[tuple[Node, Edge], ...]:
        """Where the walk ended: best residual matches below the cut that it met nowhere else, by id."""
        ended = {node.id: (node, edge) for node, edge in self._ended if node.id not in self.nodes}
        return tuple(ended[name] for name in sorted(ended))

    def add_modules(self) -> None:
        """The modules' features that match the residual features reached so far."""
        for node, row in self._before([node for node in self.nodes.values() if node.site == RES]):
            if row["site"] != RES:
                self._link(node, row, back=True)

    def _before(self, nodes: list[Node], *, ends: bool = False) -> list[tuple[Node, Row]]:
        """The nodes' matches that are kept, each with its node; `ends`: residual ones that are not end the walk."""
        new = [node for node in nodes if node.id not in self._earlier]
        for node, rows in zip(new, self._matches.earlier([node.id for node in new]), strict=True):
            # Kept: modules are asked for later of features that the walk back has asked already.
            kept = [
                row for row in rows if self._keep(node.dictionary, row["dictionary"], row["site"], row["similarity"])
            ]
            self._earlier[node.id] = kept
            for row in rows if ends else ():
                if row["site"] == RES and row["first"] and row not in kept:
                    self._end(node, row, back=True)
        return [(node, row) for node in nodes for row in self._earlier[node.id]]

    def _link(self, node: Node, row: Row, *, back: bool) -> Node:
        """Add the row's feature and its edge with the node; `back`: the row is the earlier one."""
        other = self._add(row)
        edge = _edge(node, other, row, back=back)
        self.edges[edge.source, edge.target] = edge
        return other

    def _end(self, node: Node, row: Row, *, back: bool) -> None:
        other = node_of(row)
        self._ended.append((other, _edge(node, other, row, back=back)))

    def _add(self, row: Row) -> Node:
        return self.nodes.setdefault(row["id"], node_of(row))


def _edge(node: Node, other: Node, row: Row, *, back: bool) -> Edge:
    """The match of a node with the feature of a row; `back`: that is the earlier one."""
    later, earlier = (node, other) if back else (other, node)
    match = (row["similarity"], row["rank"], row["forward_rank"], row.get("push"), row.get("correlation"))
    return Edge(later.id, earlier.id, EDGE_OF_SITE[earlier.site], *match)


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

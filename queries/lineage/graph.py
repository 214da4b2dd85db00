"""A flow graph as a value: its nodes, its edges, and the forms that they leave in."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from atlas.ids import ATT, MLP
from atlas.rows import Rows
from queries.lineage.matches import COSINE

if TYPE_CHECKING:
    import pandas as pd

    from queries.drawing.figure import Figure

Row = dict[str, Any]

_FIELDS = ("id", "layer", "site", "depth", "label", "s_res", "s_mlp", "s_att", "origin", "lifecycle")  # of the json
_WORDS = ("dictionary", "fires_on", "promotes")  # of the json too
COLUMNS = ", ".join(f"g.{name} AS {name}" for name in (*_FIELDS, *_WORDS))


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
    fires_on: str | None = None  # tokens it fires on, comma separated
    promotes: str | None = None  # tokens its direction promotes, comma separated

    @property
    def state(self) -> str:
        """What a line about it says beside its name."""
        # The module that wrote it is worth naming; that it came down the stream is what persisting means.
        return (self.lifecycle or "") + (f" ({self.origin})" if self.origin in (MLP, ATT) else "")


@dataclass(frozen=True)
class Edge:
    """A match on the flow graph."""

    source: str  # id of the later feature
    target: str  # id of the earlier one
    type: str  # FROM_RES, FROM_MLP or FROM_ATT
    similarity: float  # cosine
    rank: int | None  # 0: the later feature's best match in that dictionary; None: outside its top k
    forward_rank: int | None  # the same seen from the earlier feature
    push: float | None = None  # where matches were ordered by it (queries.lineage.matches)
    correlation: float | None = None  # likewise

    @property
    def weight(self) -> float:
        """What it was chosen and is drawn by."""
        return next(value for value in (self.push, self.correlation, self.similarity) if value is not None)

    @property
    def shown(self) -> str:
        """The same as it is written beside it."""
        return f"{self.weight:.2f}"


@dataclass(frozen=True)
class Lineage:
    """A flow graph: nodes in the order of (depth, id), edges in that of their ends."""

    seed: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)  # what it was drawn with: thresholds, steps
    # Best residual matches at which the walk ended, since they are below the cut: no part of the graph.
    outside: tuple[tuple[Node, Edge], ...] = field(default=(), compare=False, repr=False)
    state: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)  # model, atlas id, its state
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)  # what is to be said beneath it

    def to_dict(self) -> dict[str, Any]:
        """The node-link form, for json: `seed`, `nodes`, `edges`; an edge's source is the later feature."""
        nodes, edges = [_told(node) for node in self.nodes], [_told(edge) for edge in self.edges]
        values = {"seed": self.seed, "nodes": nodes, "edges": edges, "directed": True, "multigraph": False}
        return values | ({"on": self.options["on"]} if "on" in self.options else {})

    def to_networkx(self) -> Any:
        """A networkx.DiGraph with every field of the json form; edges lead from the later feature to the earlier.

        Example:
            digraph = graph.to_networkx()
            print(digraph.number_of_nodes(), digraph.in_degree(graph.seed))
        """
        import networkx

        values = self.to_dict()
        digraph = networkx.DiGraph()
        digraph.add_nodes_from((node.pop("id"), node) for node in values["nodes"])
        digraph.add_edges_from((edge.pop("source"), edge.pop("target"), edge) for edge in values["edges"])
        return digraph

    def figure(self) -> Figure:
        """The graph as it is drawn, with what lies just outside the cut (queries.drawing)."""
        from queries.drawing.figure import Figure

        nodes, edges = ([vars(pair[place]) for pair in self.outside] for place in (0, 1))
        return Figure.of(self.to_dict(), title=self.seed, about=self._about(), outside=(nodes, edges))

    def _about(self) -> list[str]:
        """What a picture of it says beneath: thresholds, steps, the atlas's state."""
        names = {"min_res": "min res", "min_module": "min module", "k": "k", "back": "back", "forward": "forward"}
        names |= {"min_cofire": "min cofire"} | ({} if self.options.get("by") == COSINE else {"by": "by"})
        said = [f"{names[key]} {value}" for key, value in self.options.items() if key in names and value is not None]
        state = [f"{name} {value}" for name, value in self.state.items()]
        return [*self.notes, *(", ".join(part) for part in (said, state) if part)]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The tree and the picture, for notebooks."""
        from atlas.notebook import bundle
        from queries.drawing.svg import svg

        # By name: the tree is drawn from lineages, and two files do not import each other.
        tree: Callable[[Lineage], str] = importlib.import_module("queries.lineage.tree").tree
        return bundle(tree(self), svg(self.figure()), include, exclude)

    def to_pandas(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Nodes and edges as two frames with the columns of `to_dict`; raises AtlasError where pandas is missing.

        Example:
            nodes, edges = lineage(atlas, "smollm2-135m-instruct/9-res-2k/2018").to_pandas()
            print(nodes[["id", "lifecycle"]], edges["similarity"].mean())
        """
        values = self.to_dict()
        frames = []
        for rows, kind in ((values["nodes"], Node), (values["edges"], Edge)):
            # Known also where there are no rows; what only some graphs have stands behind.
            known = [each.name for each in fields(kind) if each.name in _ALWAYS]
            frames.append(Rows(rows, tuple(dict.fromkeys([*known, *(n for row in rows for n in row)]))).to_pandas())
        return frames[0], frames[1]


def node_of(row: Row) -> Node:
    """A row of COLUMNS as a node."""
    return Node(**{name: row[name] for name in (*_FIELDS, *_WORDS)})


def _told(each: Node | Edge) -> Row:
    """The fields of a node or an edge; those that not every graph has, only where they have a value."""
    return {name: value for name, value in vars(each).items() if value is not None or name in _ALWAYS}


_ALWAYS = {each.name for each in (*fields(Node), *fields(Edge))} - {"push", "correlation"}

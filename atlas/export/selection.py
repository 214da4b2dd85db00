"""The part of a graph that a user's statement selects: its features, and the edges among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.graph.store import Batch, Row
from atlas.graph.stored import StoredGraph
from atlas.graph.tables import table_of
from atlas.schema import DICTIONARY, FEATURE, MATCHED

if TYPE_CHECKING:
    import pyarrow as pa

    from atlas.atlas import Atlas


class SelectedGraph:
    """An `atlas.graph.store.Graph` of some features of another; its dictionaries and pairs are those that hold them."""

    def __init__(self, graph: StoredGraph, indices: dict[str, pa.Array]) -> None:
        """`indices`: int64, the rows of the selected features by dictionary."""
        self.graph, self.indices = graph, indices
        self.matched = [pair for pair in graph.matched if pair["later"] in indices and pair["earlier"] in indices]

    @property
    def state(self) -> str:
        """The state of the whole graph."""
        return self.graph.state

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables of that label."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for table in self.graph.nodes(label):
            if label == DICTIONARY:
                table = table.filter(pc.is_in(table["id"], pa.array(self.indices)))
            elif label == FEATURE and len(table):
                own = self.indices.get(table["dictionary"][0].as_py())
                table = table.slice(0, 0) if own is None else table.filter(pc.is_in(table["index"], own))
            yield table

    def pairs(self) -> pa.Table:
        """The edges MATCHED between their dictionaries; what they say is true of the whole pair."""
        return table_of(MATCHED, self.matched)

    def edges(self, type_: str, among: Iterable[Row] | None = None) -> Iterator[Batch]:
        """One batch a pair: the edges both of whose ends are selected."""
        import pyarrow.compute as pc

        for batch in self.graph.edges(type_, self.matched if among is None else among):
            ends = (("later", batch.later), ("earlier", batch.earlier))
            later, earlier = (pc.is_in(batch.table[end].cast("int64"), self.indices[name]) for end, name in ends)
            yield Batch(type_, batch.key, batch.later, batch.earlier, batch.table.filter(pc.and_(later, earlier)))


def select(atlas: Atlas, graph: StoredGraph, cypher: str) -> SelectedGraph:
    """The part of the graph that a statement names in its column `feature`.

    Raises QueryError where it has no such column or no rows, UnknownFeature for an id that the atlas does not hold, and
    what `Atlas.query` raises.
    """
    import pyarrow as pa

    rows: Iterable[dict[str, Any]] = atlas.query(cypher)
    found: dict[str, set[int]] = {}
    for row in rows:
        feature = row.get("feature")
        if not isinstance(feature, str):
            raise QueryError(
                f"an export needs a column feature with ids: RETURN f.id AS feature (found {', '.join(row)})"
            )
        dictionary, index = atlas.locate(feature)
        found.setdefault(dictionary.id, set()).add(index)
    if not found:
        raise QueryError("the statement selects no feature, so there is nothing to export")
    return SelectedGraph(graph, {name: pa.array(sorted(indices), pa.int64()) for name, indices in found.items()})

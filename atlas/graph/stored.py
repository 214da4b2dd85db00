"""A graph read back from the store that holds it, part by part, so that it can be written to another.

Parts come in one order, whatever the store: features by index, edges by the later feature's index, then the earlier's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from atlas.folder.manifest import Manifest
from atlas.graph.store import Batch, Row, Store
from atlas.graph.tables import arrow_schema, table_of
from atlas.schema import DICTIONARY, EDGE_FIGURES, EDGE_OF_SITE, FEATURE, FIRES_WITH, FLOAT, MATCHED, properties

if TYPE_CHECKING:
    import pyarrow as pa

_MATCHED = ", ".join(f"m.{name} AS {name}" for name in properties(MATCHED))
PAIRS = f"""
MATCH (b:{DICTIONARY})-[m:{MATCHED}]->(a:{DICTIONARY})
RETURN b.id AS later, a.id AS earlier, a.site AS site, b.d_sae AS d_sae, {_MATCHED}
ORDER BY b.model, b.depth, b.id, a.depth, a.id
"""
SLICE = 16_384  # later features whose edges are read at a time
# Stand for null, which `collect` would leave out: no rank is negative, no figure as far below 0.
ABSENT, ABSENT_FIGURE = -1, -(2.0**53)
_NULLABLE = {
    "rank": ABSENT,
    "forward_rank": ABSENT,
    **{name: ABSENT_FIGURE if type_ == FLOAT else ABSENT for name, type_ in EDGE_FIGURES.items()},
}


def _columns(variable: str, name: str) -> str:
    return ", ".join(f"{variable}.`{column}` AS `{column}`" for column in properties(name))


def _edges(type_: str) -> str:
    """Lists of the edges' values: a driver takes four times as long over a record for each edge."""
    values = {"later": "b.`index`", "earlier": "a.`index`"} | {
        name: f"coalesce(r.`{name}`, {_NULLABLE[name]})" if name in _NULLABLE else f"r.`{name}`"
        for name in properties(type_)
    }
    lists = ", ".join(f"collect({value}) AS `{name}`" for name, value in values.items())
    return f"""
MATCH (b:{FEATURE} {{dictionary: $later}})-[r:{type_}]->(a:{FEATURE} {{dictionary: $earlier}})
WHERE b.`index` >= $start AND b.`index` < $below
RETURN {lists}
"""


def types_of(pair: Row) -> list[str]:
    """The types of edges that there are between the features of a pair."""
    return [EDGE_OF_SITE[pair["site"]], *([FIRES_WITH] if pair["fires_with"] else [])]


class StoredGraph:
    """An `atlas.graph.store.Graph` over an opened store; one dictionary or pair in memory at a time."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self.matched: list[Row] = store.read(PAIRS)

    @property
    def state(self) -> str:
        """The state that the manifest names."""
        return str(self.manifest.state)

    @property
    def size(self) -> int:
        """Number of features and edges."""
        features: int = self.store.read(f"MATCH (f:{FEATURE}) RETURN count(*) AS n")[0]["n"]
        edges: int = sum(pair["edges"] + (pair["fires_with"] or 0) for pair in self.matched)
        # The edges MATCHED too, which a store reports as progress like the others.
        return features + edges + len(self.matched)

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables of that label; of features one a dictionary."""
        if label != FEATURE:
            yield table_of(label, self.store.read(f"MATCH (n:{label}) RETURN {_columns('n', label)} ORDER BY n.id"))
            return
        cypher = f"MATCH (n:{label} {{dictionary: $id}}) RETURN {_columns('n', label)} ORDER BY n.`index`"
        for id_ in self.manifest.dictionaries:
            yield table_of(label, self.store.read(cypher, {"id": id_}))

    def pairs(self) -> pa.Table:
        """The edges MATCHED."""
        return table_of(MATCHED, self.matched)

    def edges(self, type_: str, among: Iterable[Row] | None = None) -> Iterator[Batch]:
        """One batch a pair, of all pairs or of those given."""
        for pair in self.matched if among is None else among:
            if type_ in types_of(pair):
                yield Batch(type_, pair["key"], pair["later"], pair["earlier"], self._table(type_, pair))

    def whole(self, pair: Row) -> pa.Table:
        """All edges between features of a pair."""
        import pyarrow as pa

        return pa.concat_tables([self._table(type_, pair) for type_ in types_of(pair)])

    def _table(self, type_: str, pair: Row) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        ends = {"later": pair["later"], "earlier": pair["earlier"]}
        parts = []
        for start in range(0, pair["d_sae"], SLICE):
            (lists,) = self.store.read(_edges(type_), ends | {"start": start, "below": start + SLICE})
            part = pa.table(lists, arrow_schema(type_))
            # collect promises no order.
            parts.append(part.sort_by([("later", "ascending"), ("earlier", "ascending")]))
        table = pa.concat_tables(parts)
        for name, absent in _NULLABLE.items():
            there = pc.not_equal(table[name], absent)
            column = pc.if_else(there, table[name], pa.scalar(None, table[name].type))
            table = table.set_column(table.column_names.index(name), name, column)
        return table

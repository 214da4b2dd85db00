"""Tables of a graph's nodes and edges as Arrow: the schema's columns, in its order and types.

Edges between features name their ends by the rows of two dictionaries; ids are made of them where a store wants ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atlas.errors import IngestError
from atlas.schema import BOOLEAN, EDGE_FIGURES, EDGES, FEATURE, FLOAT, INTEGER, STRING, properties

if TYPE_CHECKING:
    import pyarrow as pa

    from atlas.graph.store import Batch

_ENDS = {table.type: INTEGER if table.label == FEATURE else STRING for table in EDGES}


def columns_of(name: str) -> dict[str, str]:
    """The columns of a label's or an edge type's table and their types: an edge's two ends, then the properties."""
    ends = {"later": _ENDS[name], "earlier": _ENDS[name]} if name in _ENDS else {}
    return ends | properties(name)


def arrow_schema(name: str) -> pa.Schema:
    """The same as an Arrow schema."""
    import pyarrow as pa

    types = {STRING: pa.string(), INTEGER: pa.int64(), FLOAT: pa.float64(), BOOLEAN: pa.bool_()}
    return pa.schema([(column, types[type_]) for column, type_ in columns_of(name).items()])


def table_of(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The table of a label's or an edge type's rows."""
    import pyarrow as pa

    return pa.Table.from_pylist(rows, arrow_schema(name))


def conform(name: str, table: pa.Table) -> pa.Table:
    """The table with exactly the columns of its label or edge type; figures that an edge lacks are null.

    Raises IngestError where it lacks another column or holds a value that is not a number: NaN sorts first under DESC
    in both engines, so one would head every ranking.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = arrow_schema(name)
    for figure in EDGE_FIGURES.keys() & set(schema.names) - set(table.column_names):
        table = table.append_column(figure, pa.nulls(len(table), schema.field(figure).type))
    try:
        table = table.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException) as error:
        raise IngestError(f"a part of {name} has not the columns of the schema ({error})") from None
    for field in schema:
        if field.type == pa.float64() and pc.any(pc.is_nan(table[field.name])).as_py():
            raise IngestError(f"a part of {name} has a {field.name} that is not a number; nothing was changed")
    return table


def feature_ids(dictionary: str, rows: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """string: the ids of a dictionary's features, by their rows (int64)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(dictionary, rows.cast(pa.string()), "/")


def with_ids(batch: Batch) -> pa.Table:
    """The batch's table, of its schema, with the ids of both ends in the place of their rows."""
    table = conform(batch.type, batch.table)
    for place, (end, dictionary) in enumerate((("later", batch.later), ("earlier", batch.earlier))):
        table = table.set_column(place, end, feature_ids(dictionary, table[end]))
    return table


def written_schema(name: str) -> pa.Schema:
    """The Arrow schema of a label's table, or of an edge type's with ids for its ends."""
    import pyarrow as pa

    schema = arrow_schema(name)
    for place, end in enumerate(("later", "earlier") if name in _ENDS else ()):
        schema = schema.set(place, pa.field(end, pa.string()))
    return schema

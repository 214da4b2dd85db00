"""Tables of a graph's nodes and edges as Arrow: the schema's columns, in its order and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atlas.errors import IngestError
from atlas.schema import BOOLEAN, FLOAT, INTEGER, STRING

if TYPE_CHECKING:
    import pyarrow as pa

END_COLUMNS = {"later": STRING, "earlier": STRING}  # of an edge table, before its properties


def arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    """The columns as an Arrow schema."""
    import pyarrow as pa

    types = {STRING: pa.string(), INTEGER: pa.int64(), FLOAT: pa.float64(), BOOLEAN: pa.bool_()}
    return pa.schema([(column, types[type_]) for column, type_ in columns.items()])


def conform(name: str, table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The table with exactly these columns.

    `name` is its label or edge type, for messages. Raises IngestError where it lacks a column or holds a value that is
    not a number: NaN sorts first under DESC in both engines, so one would head every ranking.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = arrow_schema(columns)
    try:
        table = table.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException) as error:
        raise IngestError(f"a part of {name} has not the columns of the schema ({error})") from None
    for field in schema:
        if field.type == pa.float64() and pc.any(pc.is_nan(table[field.name])).as_py():
            raise IngestError(f"a part of {name} has a {field.name} that is not a number; nothing was changed")
    return table


def row_indices(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """int64: the row indices that feature ids end with."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.struct_field(pc.extract_regex(ids, r"/(?P<i>\d+)$"), "i").cast(pa.int64())

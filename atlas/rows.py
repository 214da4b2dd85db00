"""Rows of an answer: a list of dicts that a notebook shows as a table, and that can become a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from atlas.errors import AtlasError

if TYPE_CHECKING:
    import pandas as pd


MOST = 100  # rows that a notebook is given


class Rows(list[dict[str, Any]]):
    """A list of rows, each a dict; `columns` are their names in order, also where there are no rows."""

    def __init__(self, rows: Iterable[dict[str, Any]] = (), columns: Sequence[str] | None = None) -> None:
        super().__init__(rows)
        self.columns = tuple(dict.fromkeys(name for row in self for name in row)) if columns is None else tuple(columns)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: a table, which also reads where styles and scripts are stripped."""
        from atlas.cli.output import render
        from atlas.notebook import bundle, table

        shown, columns = list(self[:MOST]), list(self.columns)
        more = f"{len(self) - MOST:,} further rows" if len(self) > MOST else ""
        html = table(shown, columns=columns) + (f"<p>{more}</p>" if more else "")
        return bundle(render(shown, columns, "table") + more, html, include, exclude)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas.DataFrame, columns in their order; raises AtlasError where pandas is not installed.

        Whole numbers and truth values stay such where some are missing (Int64, boolean), instead of becoming floats.

        Example:
            frame = atlas.query("MATCH (f:Feature {layer: 9}) RETURN f.id AS id, f.s_mlp AS s_mlp").to_pandas()
            print(frame.describe())
        """
        try:
            import pandas as pd
        except ImportError:
            raise AtlasError("pandas is not installed; pip install pandas, or use the rows as they are") from None
        columns = {name: [row.get(name) for row in self] for name in self.columns}
        return pd.DataFrame({name: pd.Series(values, dtype=_dtype(values)) for name, values in columns.items()})


def _dtype(values: list[Any]) -> str | None:
    """The type of pandas that keeps these values as they are; None: its own choice does."""
    kinds = {type(value) for value in values}
    # An empty column would become one of floats.
    if not values:
        return "object"
    if kinds == {int, type(None)}:
        return "Int64"
    return "boolean" if kinds == {bool, type(None)} else None

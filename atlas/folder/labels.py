"""What is known of a dictionary's features in words, one Parquet file beside its rows.

`labels.parquet`, one row a feature in the order of their index: `label` (a name, imported or made from tokens),
`promotes` and `fires_on` (tokens, most telling first), `frequency` (share of text positions at which it is active),
`max_activation`, `contexts` (texts, best first). Any of them may be null.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.errors import CorruptAtlas
from atlas.folder.manifest import replacing

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "labels.parquet"
WORDS = ("promotes", "fires_on")
TEXTS = ("label", *WORDS)
FIGURES = ("frequency", "max_activation")


@dataclass(frozen=True)
class Labels:
    """The label table of one dictionary, or None where no labels were made."""

    table: pa.Table | None

    @classmethod
    def load(cls, folder: Path) -> Labels:
        """Read a dictionary folder's labels; raises CorruptAtlas where the file is damaged."""
        path = folder / FILE
        if not path.exists():
            return cls(None)
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return cls(pq.read_table(path))
        except (OSError, pa.ArrowException) as error:
            raise CorruptAtlas(f"{path} is damaged ({error}); delete it and run feature-atlas label again") from None

    def column(self, name: str, size: int) -> pa.ChunkedArray | pa.Array:
        """A column as the graph holds it: token lists joined by commas; nulls where there are no labels.

        A feature without a label of its own is named by the first tokens it fires on, else by those it promotes.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if name == "label":
            named, fires_on = self._texts("label", size), self._texts("fires_on", size, 4)
            return pc.coalesce(named, fires_on, self._texts("promotes", size, 4))
        if name in TEXTS:
            return self._texts(name, size)
        if self.table is None or name not in self.table.column_names:
            return pa.nulls(size, pa.float64())
        return self.table[name].cast(pa.float64())

    def _texts(self, name: str, size: int, most: int | None = None) -> pa.ChunkedArray | pa.Array:
        """A column as text, of a list its first `most` entries."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.table is None or name not in self.table.column_names:
            return pa.nulls(size, pa.string())
        column = self.table[name]
        if not pa.types.is_list(column.type):
            return column.cast(pa.string())
        return pc.binary_join(pc.list_slice(column, 0, most) if most else column, ", ")

    def contexts(self, index: int) -> list[str]:
        """The best contexts of one feature."""
        if self.table is None or "contexts" not in self.table.column_names:
            return []
        return self.table["contexts"][index].as_py() or []

    def updated(self, columns: dict[str, pa.Array]) -> Labels:
        """These labels with columns added or replaced; a null keeps what stood there."""
        import pyarrow as pa
        import pyarrow.compute as pc

        old = {} if self.table is None else {name: self.table[name] for name in self.table.column_names}
        for name, column in columns.items():
            old[name] = pc.coalesce(column, _as(old[name], column.type)) if name in old else column
        return Labels(pa.table(old))

    def with_contexts_of(self, other: Labels) -> Labels:
        """These labels with the other's contexts where a feature has none; themselves where the other has none."""
        mine, theirs = self.table, other.table
        if mine is None or theirs is None or len(mine) != len(theirs) or "contexts" not in theirs.column_names:
            return self
        kept = Labels(theirs.select(["contexts"]))
        if "contexts" in mine.column_names:
            kept = kept.updated({"contexts": mine["contexts"]})
        return self.updated({"contexts": kept.table["contexts"]})  # type: ignore[index]

    def following(self, graph: pa.Table) -> Labels:
        """These labels brought to what a graph says of the same features; themselves where that is the same.

        Words come back as lists. A label that is only made of them stays unnamed, so that other words can name it anew.
        """
        import pyarrow as pa

        size = len(graph)
        differing = [name for name in (*TEXTS, *FIGURES) if not _equal(self.column(name, size), graph[name])]
        if not differing:
            return self
        new = {} if self.table is None else {name: self.table[name] for name in self.table.column_names}
        for name in differing:
            new[name] = _listed(graph[name]) if name in WORDS else graph[name]
        if not {*FIGURES}.issuperset(differing):
            made = Labels(pa.table({name: new[name] for name in WORDS if name in new} or {"label": pa.nulls(size)}))
            new["label"] = _unless(graph["label"], made.column("label", size))
        return Labels(pa.table(new))

    def save(self, folder: Path) -> None:
        """Write the table, atomically."""
        import pyarrow.parquet as pq

        with replacing(folder / FILE) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")


def _equal(one: pa.Array | pa.ChunkedArray, other: pa.Array | pa.ChunkedArray) -> bool:
    import pyarrow as pa

    whole = [pa.chunked_array(c.chunks if isinstance(c, pa.ChunkedArray) else [c], c.type) for c in (one, other)]
    return bool(whole[0].equals(whole[1]))


def _listed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Words that were joined by commas."""
    import pyarrow.compute as pc

    return pc.split_pattern(column, ", ")


def _unless(column: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column, null where the other one says the same."""
    import pyarrow.compute as pc

    return pc.if_else(pc.fill_null(pc.equal(column, other), False), None, column)


def _as(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Words as a list or as one text, whichever is wanted: a graph keeps one text, a measurement gives a list."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(type_) and not pa.types.is_list(column.type):
        words = [None if text is None else [text] for text in column.to_pylist()]
        return pa.chunked_array([pa.array(words, type_)])
    if pa.types.is_list(column.type) and not pa.types.is_list(type_):
        column = pc.binary_join(column, ", ")
    return column.cast(type_)

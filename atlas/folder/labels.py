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
from atlas.folder.paths import LABELS, labels_of_state

if TYPE_CHECKING:
    import pyarrow as pa

WORDS = ("promotes", "fires_on")
TEXTS = ("label", *WORDS)
FIGURES = ("frequency", "max_activation")
NAMING = 4  # words that name a feature which has no label


@dataclass(frozen=True)
class Labels:
    """The label table of one dictionary, or None where no labels were made."""

    table: pa.Table | None

    @classmethod
    def load(cls, folder: Path, state: str | None = None, *, only: str | None = None) -> Labels:
        """Read a dictionary folder's labels, those that wait for `state` before all others; `only`: this column.

        Raises CorruptAtlas where the file is damaged.
        """
        waiting = None if state is None else labels_of_state(folder, state)
        path = waiting if waiting is not None and waiting.exists() else folder / LABELS
        if not path.exists():
            return cls(None)
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if only is not None and only not in pq.read_schema(path).names:
                return cls(None)
            return cls(pq.read_table(path, columns=None if only is None else [only]))
        except (OSError, pa.ArrowException) as error:
            raise CorruptAtlas(f"{path} is damaged ({error}); delete it and run feature-atlas label again") from None

    def column(self, name: str, size: int) -> pa.ChunkedArray | pa.Array:
        """A column as the graph holds it: words joined by commas; nulls where there are no labels.

        A feature without a label of its own is named by the first tokens it fires on, else by those it promotes.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if name == "label":
            own = self._own("label", size, pa.string())
            return pc.coalesce(own, *(self._joined(words, size, NAMING) for words in ("fires_on", "promotes")))
        return self._joined(name, size) if name in WORDS else self._own(name, size, pa.float64())

    def _own(self, name: str, size: int, type_: pa.DataType) -> pa.ChunkedArray | pa.Array:
        import pyarrow as pa

        there = self.table is not None and name in self.table.column_names
        return self.table[name].cast(type_) if there else pa.nulls(size, type_)  # type: ignore[index]

    def _joined(self, name: str, size: int, most: int | None = None) -> pa.ChunkedArray | pa.Array:
        """A column of words as text, of each list its first `most`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        words = self._own(name, size, pa.list_(pa.string()))
        return pc.binary_join(pc.list_slice(words, 0, most) if most else words, ", ")

    def contexts(self, index: int) -> list[str]:
        """The best contexts of one feature."""
        if self.table is None or "contexts" not in self.table.column_names:
            return []
        return self.table["contexts"][index].as_py() or []

    def updated(self, columns: dict[str, pa.Array], *, whole: bool = False) -> Labels:
        """These labels with columns added or replaced; a null keeps what stood there, unless they are taken whole."""
        import pyarrow as pa
        import pyarrow.compute as pc

        old = {} if self.table is None else {name: self.table[name] for name in self.table.column_names}
        for name, column in columns.items():
            old[name] = pc.coalesce(column, old[name].cast(column.type)) if name in old and not whole else column
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
        import pyarrow.compute as pc

        size = len(graph)
        differing = [name for name in (*TEXTS, *FIGURES) if not _equal(self.column(name, size), graph[name])]
        if not differing:
            return self
        new = {} if self.table is None else {name: self.table[name] for name in self.table.column_names}
        for name in differing:
            new[name] = pc.split_pattern(graph[name], ", ") if name in WORDS else graph[name]
        if not {*FIGURES}.issuperset(differing):
            made = Labels(pa.table({name: new[name] for name in WORDS if name in new} or {"label": pa.nulls(size)}))
            # Two nulls compare as null; counted as different, the label stays null all the same.
            same = pc.fill_null(pc.equal(graph["label"], made.column("label", size)), False)
            new["label"] = pc.if_else(same, None, graph["label"])
        return Labels(pa.table(new))

    def save(self, folder: Path, state: str | None = None) -> None:
        """Write the table, atomically; with `state`, to wait for it (`settle`)."""
        import pyarrow.parquet as pq

        with replacing(folder / LABELS if state is None else labels_of_state(folder, state)) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")


def settle(folder: Path, state: str | None) -> None:
    """Make the labels that waited for the state, now the current one, those of the dictionary; drop all that waited.

    Labels and graph change in two places. Readers take what waits for the state that the manifest names, so they see
    the new labels from the moment on at which it names the new graph, wherever the writer was broken off.
    """
    # The pattern leaves labels.parquet itself out.
    for path in folder.glob("labels.*.parquet"):
        if state is not None and path == labels_of_state(folder, state):
            path.replace(folder / LABELS)
        else:
            path.unlink()


def _equal(one: pa.Array | pa.ChunkedArray, other: pa.Array | pa.ChunkedArray) -> bool:
    import pyarrow as pa

    # Arrow does not compare an array with a chunked one.
    whole = [pa.chunked_array(c.chunks if isinstance(c, pa.ChunkedArray) else [c], c.type) for c in (one, other)]
    return bool(whole[0].equals(whole[1]))

"""What is known of a dictionary's features in words, one Parquet file beside its rows.

`labels.parquet`, one row a feature in the order of their index: `label` (a name, imported or made from tokens),
`promotes` and `fires_on` (tokens, most telling first), `frequency` (share of text positions at which it is active),
`max_activation`; and what the graph does not hold: `contexts` (texts, best first), `traces` (of each the ends of its
tokens in it and the activations there), `histogram` (positions by activation), `suppresses`. Any of them may be null.
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
MEASURED = ("contexts", "traces", "histogram")  # of one text, so they stay together
BESIDE = (*MEASURED, "suppresses")  # what the graph does not hold
NAMING = 4  # words that name a feature which has no label
_GROUP = 512  # rows that are read together: one feature's detail is asked for at a time


@dataclass(frozen=True)
class Labels:
    """The label table of one dictionary, or None where no labels were made."""

    table: pa.Table | None

    @classmethod
    def load(cls, folder: Path, state: str | None = None) -> Labels:
        """Read a dictionary folder's labels, those that wait for `state` before all others.

        Raises CorruptAtlas where the file is damaged.
        """
        path = labels_path(folder, state)
        if not path.exists():
            return cls(None)
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return cls(pq.read_table(path))
        except (OSError, pa.ArrowException) as error:
            raise cls.damaged(path, error) from None

    @staticmethod
    def damaged(path: Path, error: Exception) -> CorruptAtlas:
        """What to raise where a file of labels cannot be read."""
        return CorruptAtlas(f"{path} is damaged ({error}); delete it and run feature-atlas label again")

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

    def updated(self, columns: dict[str, pa.Array], *, whole: bool = False) -> Labels:
        """These labels with columns added or replaced; a null keeps what stood there, unless they are taken whole."""
        import pyarrow as pa
        import pyarrow.compute as pc

        old = {} if self.table is None else {name: self.table[name] for name in self.table.column_names}
        for name, column in columns.items():
            old[name] = pc.coalesce(column, old[name].cast(column.type)) if name in old and not whole else column
        return Labels(pa.table(old))

    def with_beside_of(self, other: Labels) -> Labels:
        """These labels with what the other has beside the graph where a feature has none; itself where that is nothing.

        Contexts, traces and histogram come from one text: they are taken together.
        """
        mine, theirs = self.table, other.table
        if mine is None or theirs is None or len(mine) != len(theirs) or not {*BESIDE} & {*theirs.column_names}:
            return self
        import numpy as np
        import pyarrow as pa

        columns = {name: mine[name] for name in mine.column_names}
        for names in (MEASURED, ("suppresses",)):
            types = {name: table.schema.field(name).type for table in (theirs, mine) for name in table.column_names}
            own = [mine[name].is_valid().to_numpy() for name in names if name in columns]
            here, places = np.any([np.zeros(len(mine), dtype=bool), *own], axis=0), np.arange(len(mine))
            taken = pa.array(np.where(here, places, len(mine) + places))
            for name in names:
                if name in types:
                    parts = (Labels(table)._own(name, len(mine), types[name]) for table in (mine, theirs))
                    columns[name] = pa.chunked_array(chunk for part in parts for chunk in _chunks(part)).take(taken)
        return Labels(pa.table(columns))

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
            pq.write_table(self.table, temporary, compression="zstd", row_group_size=_GROUP)


def labels_path(folder: Path, state: str | None) -> Path:
    """The labels of a dictionary folder: those that wait for `state` before all others. It need not exist."""
    waiting = None if state is None else labels_of_state(folder, state)
    return waiting if waiting is not None and waiting.exists() else folder / LABELS


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
    whole = [pa.chunked_array(_chunks(column), column.type) for column in (one, other)]
    return bool(whole[0].equals(whole[1]))


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    import pyarrow as pa

    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]

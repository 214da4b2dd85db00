"""Words of an atlas's features, indexed: what `queries.search` finds by a scan of the graph, found in milliseconds.

1. Each dictionary's label table is read as it lies in the folder; its texts are cut into pieces between spaces.
2. A piece's number stands for it; of each dictionary there are, by piece, the features that have it.
3. A search looks through the pieces (some hundred thousand) for those that contain a word, and joins their features.

The rows come from the graph, and are those of `search`, in its order: a test holds both to each other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import AtlasError
from atlas.folder.labels import Labels
from atlas.folder.paths import dictionary_folder
from queries.search import ROW, checked, search

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from atlas.folder.dictionary import Dictionary

_FEW = 200  # pieces whose features are joined one by one
_APART = re.compile(r'[\s,"“”]+')  # what stands between whole words
ROWS = f"UNWIND $ids AS name MATCH (f:Feature {{id: name}}) RETURN {ROW}"


@dataclass(frozen=True)
class Part:
    """One dictionary's features by piece."""

    record: Dictionary
    pieces: np.ndarray  # int32 [n], ascending: numbers of the pieces that occur
    starts: np.ndarray  # int64 [n + 1]: where each one's features begin
    features: np.ndarray  # int32: rows of the dictionary
    frequency: np.ndarray  # float64 [d_sae], 0 where unknown
    label: Any  # arrow strings: lower case, between spaces, marks taken out as the search of the graph does
    fires_on: Any  # the same
    spaces: np.ndarray  # int32 [d_sae]: in fires_on

    def order(self, features: np.ndarray, whole: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """float64 [6, features], as the search of the graph orders rows: smaller ones first, the first row decides.

        All words whole; fires first on one; named by all; fires on all; few words; often active.
        """
        import pyarrow.compute as pc

        label, fires_on = self.label.take(features), self.fires_on.take(features)
        alone = [f" {word} " for word in words]
        first, named, among = (
            join.reduce([test(texts, word).to_numpy(zero_copy_only=False) for word in alone])
            for join, test, texts in (
                (np.logical_or, pc.starts_with, fires_on),
                (np.logical_and, pc.match_substring, label),
                (np.logical_and, pc.match_substring, fires_on),
            )
        )
        return np.stack([~whole, ~first, ~named, ~among, self.spaces[features], -self.frequency[features]])

    def having(self, wanted: np.ndarray) -> np.ndarray:
        """bool [d_sae]: the features that have any of the pieces wanted, bool by number."""
        has = np.zeros(self.record.d_sae, dtype=bool)
        here = wanted[self.pieces]
        places = np.flatnonzero(here)
        if len(places) <= _FEW:
            for place in places:
                has[self.features[self.starts[place] : self.starts[place + 1]]] = True
        else:
            has[self.features[np.repeat(here, np.diff(self.starts))]] = True
        return has


class WordIndex:
    """The index of one open atlas."""

    def __init__(self, atlas: Atlas) -> None:
        """Read every label table once; raises CorruptAtlas where one is damaged."""
        self.atlas = atlas
        self._numbers: dict[str, int] = {}
        self._parts = [self._part(record) for record in atlas.dictionaries.values()]
        self._pieces = list(self._numbers)

    def search(
        self, text: str, *, limit: int, site: str | None = None, layer: int | None = None
    ) -> list[dict[str, Any]]:
        """The rows of `queries.search.search`; raises QueryError as it does."""
        words = checked(text, limit, site)
        holding = [self._holding(word) for word in words]
        found: list[tuple[Part, np.ndarray, np.ndarray]] = []
        for part in self._parts:
            if site in (None, part.record.site) and layer in (None, part.record.layer):
                partly, whole = (
                    np.logical_and.reduce([part.having(pieces[place]) for pieces in holding]) for place in (0, 1)
                )
                features = np.flatnonzero(partly)
                if len(features):
                    found.append((part, features, part.order(features, whole[features], words)))
        return self._rows(found, limit)

    def _holding(self, word: str) -> tuple[np.ndarray, np.ndarray]:
        """bool by number: the pieces that contain a word, and those in which it stands alone."""
        partly, wholly = np.zeros((2, len(self._pieces)), dtype=bool)
        numbers = [number for number, piece in enumerate(self._pieces) if word in piece]
        partly[numbers] = True
        wholly[[number for number in numbers if word in _APART.split(self._pieces[number])]] = True
        return partly, wholly

    def _rows(self, found: Sequence[tuple[Part, np.ndarray, np.ndarray]], limit: int) -> list[dict[str, Any]]:
        """The best of what was found, as rows."""
        best: list[tuple[list[float], str]] = []
        for part, features, keys in found:
            order = np.lexsort(keys[::-1])
            # Where all else is equal ids decide, as text: all that are equal with the last one kept are looked at.
            last = keys[:, order[min(limit, len(order)) - 1]]
            most = int(np.flatnonzero((keys[:, order] == last[:, None]).all(0))[-1]) + 1
            best += [(keys[:, place].tolist(), f"{part.record.id}/{features[place]}") for place in order[:most]]
        chosen = sorted(best)[:limit]
        if not chosen:
            return []
        rows = {row["feature"]: row for row in self.atlas.read(ROWS, ids=[id_ for _, id_ in chosen])}
        return [rows[id_] | {"exact": not keys[0]} for keys, id_ in chosen if id_ in rows]

    def _part(self, record: Dictionary) -> Part:
        """One dictionary's pieces."""
        import pyarrow as pa
        import pyarrow.compute as pc

        assert self.atlas.path is not None
        labels = Labels.load(dictionary_folder(self.atlas.path, record.id), self.atlas.manifest.state)
        columns = {name: _whole(labels.column(name, record.d_sae)) for name in ("label", "fires_on", "promotes")}
        texts = [pc.utf8_lower(pc.coalesce(column, pa.scalar(""))) for column in columns.values()]
        lists = pc.utf8_split_whitespace(pc.binary_join_element_wise(*texts, " "))
        words = pc.list_flatten(lists)
        owners = pc.list_parent_indices(lists).to_numpy().astype(np.int32)
        coded = words.dictionary_encode()
        own = coded.dictionary.to_pylist()
        numbers = np.array([self._numbers.setdefault(piece, len(self._numbers)) for piece in own], dtype=np.int32)
        codes = numbers[coded.indices.to_numpy()] if own else np.empty(0, np.int32)
        order = np.argsort(codes, kind="stable")
        pieces, starts = np.unique(codes[order], return_index=True)
        frequency = _whole(labels.column("frequency", record.d_sae)).cast(pa.float64()).to_numpy(zero_copy_only=False)
        label, fires_on = _spaced(texts[0], ',"“”'), _spaced(texts[1], ",")
        spaces = pc.count_substring(fires_on, " ").to_numpy()
        where = np.append(starts, len(codes))
        return Part(record, pieces, where, owners[order], np.nan_to_num(frequency), label, fires_on, spaces)


class Searcher:
    """Searches by the index once it is there, which is made beside; by the graph until then and where no folder is."""

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self.index: WordIndex | None = None
        self._thread = threading.Thread(target=self._make, daemon=True)

    def start(self) -> None:
        """Begin to make the index, where the atlas has a folder."""
        if self.atlas.path is not None:
            self._thread.start()

    def wait(self) -> None:
        """Until the index is there."""
        if self._thread.ident is not None:
            self._thread.join()

    def search(self, text: str, **options: Any) -> list[dict[str, Any]]:
        """As queries.search.search."""
        return search(self.atlas, text, **options) if self.index is None else self.index.search(text, **options)

    def _make(self) -> None:
        try:
            self.index = WordIndex(self.atlas)
        except AtlasError:
            # A damaged label table: the graph has the same words, and answers.
            return


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _spaced(texts: Any, marks: str) -> Any:
    """Texts between two spaces, each of these marks a space."""
    import pyarrow.compute as pc

    for mark in marks:
        texts = pc.replace_substring(texts, mark, " ")
    return pc.binary_join_element_wise("", texts, "", " ")

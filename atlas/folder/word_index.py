"""Words of an atlas's features, indexed beside its graph: what `queries.search` finds by a scan, found in milliseconds.

In `words/{state}/`, made when a state of the graph is published; its texts are cut into pieces between spaces:

- `dictionaries.json`  id, layer, site, first feature and number of features of each; features count through all
- `pieces.txt`         every piece once, lower case, a line each; `places.npy` int64 [n + 1], where its line begins
- `features.npy`       int32, the features that have each piece, ascending; `starts.npy` int64 [n + 1], where its begin
- `spaces.npy` int32, `frequency.npy` float64 [features]; `texts.arrow`, what rows are ordered by, a batch a dictionary
- `checks.npy`         uint32, CRC-32 of each piece's features, of what each dictionary's are ordered by, of the pieces,
  of their places and of dictionaries.json

All of it is mapped, so that a search reads what it needs. Where anything is missing or damaged there is no index, and
the graph, which has the same words, is asked.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.folder.labels import Labels
from atlas.folder.paths import dictionary_folder, words_folder

if TYPE_CHECKING:
    import numpy as np

    from atlas.folder.dictionary import Dictionary

_APART = re.compile('[,"“”]')  # what the search of the graph takes for a space
_ABOUT, _PIECES, _TEXTS = "dictionaries.json", "pieces.txt", "texts.arrow"
_ARRAYS = ("places", "starts", "features", "checks", "spaces", "frequency")


@dataclass(frozen=True)
class Found:
    """A feature, and whether all words are whole ones of it."""

    id: str
    exact: bool


@dataclass(frozen=True)
class WordIndex:
    """The index of one state, mapped."""

    dictionaries: list[dict[str, Any]]
    pieces: bytes
    texts: Any  # an Arrow file with columns label and fires_on, lower case, between spaces, marks taken out
    arrays: dict[str, np.ndarray]
    sound: set[int] = field(default_factory=set)  # dictionaries whose order was found to be what was written

    @classmethod
    def open(cls, folder: Path, state: str | None) -> WordIndex | None:
        """The index of an atlas folder's state; None where it is not there or damaged."""
        if state is None or not (place := words_folder(folder) / state).is_dir():
            return None
        import numpy as np
        import pyarrow as pa

        try:
            listed = (place / _ABOUT).read_bytes()
            about = json.loads(listed)
            # A few megabytes, looked through whole by every search; the rest stays on disk.
            pieces = (place / _PIECES).read_bytes()
            arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
            texts = _mapped(place)
            whole = [zlib.crc32(each) for each in (pieces, np.ascontiguousarray(arrays["places"]).data, listed)]
            sound = texts.num_record_batches == len(about) and arrays["checks"][-3:].tolist() == whole
        except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException):
            return None
        return cls(about, pieces, texts, arrays) if sound else None

    @property
    def size(self) -> int:
        """Number of features."""
        return len(self.arrays["spaces"])

    def search(self, words: Sequence[str], limit: int, site: str | None, layer: int | None) -> list[Found] | None:
        """The features that have all words (lower case), in the order of `queries.search`; None where it is damaged."""
        import numpy as np

        partly, wholly = np.ones((2, self.size), dtype=bool)
        # Each word may stand in another piece of the feature.
        for word in words:
            having = self._having(word)
            if having is None:
                return None
            partly &= having[0]
            wholly &= having[1]
        best: list[tuple[list[float], str]] = []
        for number, about in enumerate(self.dictionaries):
            if site in (None, about["site"]) and layer in (None, about["layer"]):
                first = about["first"]
                features = np.flatnonzero(partly[first : first + about["size"]])
                if len(features):
                    if not self._is_sound(number):
                        return None
                    keys = self._order(number, features, wholly[first + features], words)
                    best += _first(keys, features, about["id"], limit)
        return [Found(id_, not keys[0]) for keys, id_ in sorted(best)[:limit]]

    def _having(self, word: str) -> tuple[np.ndarray, np.ndarray] | None:
        """bool [features] twice: those that have a piece which contains the word, and one in which it stands alone."""
        import numpy as np

        places, starts, features, checks = (self.arrays[name] for name in ("places", "starts", "features", "checks"))
        at = [found.start() for found in re.finditer(re.escape(word.encode()), self.pieces)]
        partly, wholly = np.zeros((2, self.size), dtype=bool)
        for n in np.unique(np.searchsorted(places, at, side="right") - 1).tolist():
            piece = self.pieces[places[n] : places[n + 1] - 1].decode()
            its = features[starts[n] : starts[n + 1]]
            # Only what is used is looked at: reading all of it would take longer than the search.
            if zlib.crc32(np.ascontiguousarray(its).data) != checks[n]:
                return None
            partly[its] = True
            if word in _APART.split(piece):
                wholly[its] = True
        return partly, wholly

    def _is_sound(self, number: int) -> bool:
        """Whether what a dictionary's features are ordered by is what was written; looked at once."""
        if number not in self.sound:
            about, batch = self.dictionaries[number], self.texts.get_batch(number)
            where = slice(about["first"], about["first"] + about["size"])
            found = _crc(batch, self.arrays["spaces"][where], self.arrays["frequency"][where])
            if found != self.arrays["checks"][number - 3 - len(self.dictionaries)]:
                return False
            self.sound.add(number)
        return True

    def _order(self, number: int, features: np.ndarray, whole: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """float64 [6, features], as the search of the graph orders rows: smaller ones first, the first row decides.

        All words whole; fires first on one; named by all; fires on all; few words; often active.
        """
        import numpy as np
        import pyarrow.compute as pc

        batch = self.texts.get_batch(number)
        label, fires_on = (batch.column(name).take(features) for name in ("label", "fires_on"))
        alone = [f" {word} " for word in words]
        first, named, among = (
            join.reduce([test(texts, word).to_numpy(zero_copy_only=False) for word in alone])
            for join, test, texts in (
                (np.logical_or, pc.starts_with, fires_on),
                (np.logical_and, pc.match_substring, label),
                (np.logical_and, pc.match_substring, fires_on),
            )
        )
        there = self.dictionaries[number]["first"] + features
        spaces, frequency = self.arrays["spaces"][there], self.arrays["frequency"][there]
        return np.stack([~whole, ~first, ~named, ~among, spaces, -frequency])


def _first(keys: np.ndarray, features: np.ndarray, dictionary: str, limit: int) -> list[tuple[list[float], str]]:
    """The best of one dictionary with their keys; of those equal with the last one all: ids decide, as text."""
    import numpy as np

    order = np.lexsort(keys[::-1])
    last = keys[:, order[min(limit, len(order)) - 1]]
    most = int(np.flatnonzero((keys[:, order] == last[:, None]).all(0))[-1]) + 1
    return [(keys[:, place].tolist(), f"{dictionary}/{features[place]}") for place in order[:most]]


def write_words(folder: Path, state: str, records: Iterable[Dictionary]) -> None:
    """Make the index of a state whose labels are there; a folder that is there already is made anew."""
    import numpy as np
    import pyarrow as pa

    place = words_folder(folder) / state
    partial = place.with_name(f".{state}.tmp")
    # Left by a write that was broken off.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    numbers: dict[str, int] = {}
    about: list[dict[str, Any]] = []
    parts: list[tuple[np.ndarray, ...]] = []
    total = 0
    schema = pa.schema([("label", pa.large_string()), ("fires_on", pa.large_string())])
    with pa.OSFile(str(partial / _TEXTS), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for record in records:
            texts, frequency = _texts(folder, record, state)
            codes, owners = _coded(texts, numbers)
            label, fires_on = _spaced(texts[0], ',"“”'), _spaced(texts[1], ",")
            writer.write_batch(pa.record_batch([label, fires_on], schema=schema))
            parts.append((codes, owners + np.int32(total), _spaces(fires_on), frequency))
            about.append(
                {"id": record.id, "layer": record.layer, "site": record.site, "first": total, "size": record.d_sae}
            )
            total += record.d_sae
    # As they lie there, which is how a search will see them.
    texts = _mapped(partial)
    checks_of_order = [_crc(texts.get_batch(n), *part[2:]) for n, part in enumerate(parts)]
    codes, owners, spaces, frequency = (np.concatenate(each) for each in zip(*parts, strict=True))
    lines = [f"{piece}\n".encode() for piece in numbers]
    # Stable, so that each piece's features stay in their order, in which a bitmap is filled fastest.
    order = np.argsort(codes, kind="stable")
    owners = owners[order]
    starts = np.searchsorted(codes[order], np.arange(len(lines) + 1))
    pieces, places = b"".join(lines), np.cumsum([0, *map(len, lines)], dtype=np.int64)
    listed = json.dumps(about).encode()
    checks = [zlib.crc32(owners[a:b].data) for a, b in itertools.pairwise(starts)] + checks_of_order
    checks += [zlib.crc32(each) for each in (pieces, places.data, listed)]
    arrays = {"places": places, "starts": starts.astype(np.int64), "features": owners, "spaces": spaces}
    for name, array in (arrays | {"checks": np.array(checks, np.uint32), "frequency": frequency}).items():
        np.save(partial / f"{name}.npy", array)
    (partial / _PIECES).write_bytes(pieces)
    (partial / _ABOUT).write_bytes(listed)
    # Nobody reads it yet: the manifest names the state only once this is there.
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)


def retire_words(folder: Path, state: str) -> None:
    """Remove the indexes of other states, and what interrupted writes left."""
    for place in words_folder(folder).glob("*"):
        if place.name != state:
            shutil.rmtree(place, ignore_errors=True)


def _texts(folder: Path, record: Dictionary, state: str) -> tuple[list[Any], np.ndarray]:
    """label, fires_on, promotes in lower case, empty where there is none; and float64 frequencies, 0 where unknown."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    labels = Labels.load(dictionary_folder(folder, record.id), state)
    columns = (_whole(labels.column(name, record.d_sae)) for name in ("label", "fires_on", "promotes"))
    frequency = _whole(labels.column("frequency", record.d_sae)).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return [pc.utf8_lower(pc.coalesce(column, pa.scalar(""))) for column in columns], np.nan_to_num(frequency)


def _coded(texts: Sequence[Any], numbers: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """int32 twice: the number of each piece that each feature has, each once, and the feature. New pieces get one."""
    import numpy as np
    import pyarrow.compute as pc

    # At spaces alone, as the search of the graph knows words: a tab or a narrow space stands within one.
    lists = pc.split_pattern(pc.binary_join_element_wise(*texts, " "), " ")
    words = pc.list_flatten(lists)
    there = pc.not_equal(words, "")
    owners = pc.list_parent_indices(lists).filter(there).to_numpy().astype(np.int32)
    coded = words.filter(there).dictionary_encode()
    own = coded.dictionary.to_pylist()
    known = np.array([numbers.setdefault(piece, len(numbers)) for piece in own], dtype=np.int32)
    codes = known[coded.indices.to_numpy()] if own else np.empty(0, np.int32)
    # A word that stands in a label and in its tokens counts once. As one number each: sorting pairs takes ten times it.
    once = np.unique(codes.astype(np.int64) << 32 | owners)
    return (once >> 32).astype(np.int32), once.astype(np.int32)


def _mapped(place: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(place / _TEXTS)))


def _crc(batch: Any, spaces: np.ndarray, frequency: np.ndarray) -> int:
    """CRC-32 of what one dictionary's features are ordered by."""
    found = 0
    for column in batch.columns:
        for buffer in column.buffers():
            found = zlib.crc32(buffer or b"", found)
    for array in (spaces, frequency):
        found = zlib.crc32(array.data, found)
    return found


def _spaces(texts: Any) -> np.ndarray:
    import pyarrow.compute as pc

    counts: np.ndarray = pc.count_substring(texts, " ").to_numpy().astype("i4")
    return counts


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _spaced(texts: Any, marks: str) -> Any:
    """Texts between two spaces, each of these marks a space."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for mark in marks:
        texts = pc.replace_substring(texts, mark, " ")
    return pc.binary_join_element_wise("", texts, "", " ").cast(pa.large_string())

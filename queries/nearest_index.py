"""An index of an atlas's decoder rows, by which the nearest of a million are found exactly without reading them all.

In `nearest/{rows_sha256}.faiss` of the atlas folder, one a dictionary: its rows with 8 bits a number (FAISS's scalar
quantiser), and beside it e, the largest distance of a row from what the index holds of it.

1. The index gives each dictionary's candidates, and the largest product b that any other row has in it.
2. Candidates' cosines are computed from the rows themselves, in float64; the best of all dictionaries are the answer.
3. No row that was left out has a cosine above b + e, for the direction has length 1. A dictionary where that is not
   below the worst of the answer is computed whole.

So the answer is that of all rows, proven for each question, and not one that is right most of the time.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.manifest import disk_errors, replacing
from atlas.folder.paths import nearest_file
from atlas.folder.stored_rows import blocks_of

if TYPE_CHECKING:
    import numpy as np

    from atlas.atlas import Atlas
    from atlas.cli.progress import Progress

SPARE = 50  # candidates of each dictionary besides those that are wanted
NOTHING_ELSE = -2.0  # below every cosine
_ROUNDING = 1e-5  # what float32 may add to a product of unit vectors in the index


@dataclass(frozen=True)
class Candidates:
    """Rows of one dictionary that may be nearest, and a bound for all that are not among them."""

    ids: np.ndarray  # int64 [m]
    bound: float  # no other row has a larger cosine; NOTHING_ELSE where there is no other


class NearestIndex:
    """The index of one dictionary, mapped from its file."""

    def __init__(self, path: Path) -> None:
        """Raises QueryError where it is missing, damaged, or another than was written."""
        import faiss

        try:
            about = json.loads(_about(path).read_text())
            # Before anything is proven by it: a flipped bit could hide the nearest row of all.
            if _crc(path) != about["crc32"]:
                raise ValueError("its bytes have changed")
            self._index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            self._error = float(about["error"])
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
            raise QueryError(f"{path} is missing or damaged ({error}); make it anew with --index") from None

    @classmethod
    @lru_cache(maxsize=1024)
    def open(cls, path: Path) -> NearestIndex:
        """The same one for every question of a process: a file's name says what rows it holds."""
        return cls(path)

    def candidates(self, direction: np.ndarray, count: int) -> Candidates:
        """At least so many rows that may have the largest cosines with a unit direction, float32 [d]."""
        count = min(count, self._index.ntotal)
        products, ids = self._index.search(direction[None], count)
        if count == self._index.ntotal:
            return Candidates(ids[0], NOTHING_ELSE)
        return Candidates(ids[0], float(products[0, -1]) + self._error + _ROUNDING)


def index_of(atlas: Atlas, name: str) -> NearestIndex | None:
    """The index of a dictionary; None where none was made. Raises QueryError where it is damaged."""
    path = _path(atlas, name)
    return NearestIndex.open(path) if path is not None and path.exists() else None


def _path(atlas: Atlas, name: str) -> Path | None:
    return atlas.path and nearest_file(atlas.path, atlas.dictionaries[name].rows_sha256)


def make_index(atlas: Atlas, names: Sequence[str], progress: Progress) -> None:
    """Make the index of these dictionaries where it is missing or damaged; broken off, the same call goes on.

    Raises QueryError for an atlas without a folder, FolderError where that cannot be written to.
    """
    if atlas.path is None:
        raise QueryError("the index lies in the atlas folder, and this atlas has none: copy it to one first")
    with progress.steps("index", len(names), "dictionaries") as advance, disk_errors(atlas.path):
        for name in names:
            path = nearest_file(atlas.path, atlas.dictionaries[name].rows_sha256)
            try:
                NearestIndex.open(path)
            except QueryError:
                _make(path, atlas.dictionaries[name], atlas.rows(name))
            advance(1)


def _make(path: Path, record: Dictionary, rows: Rows) -> None:
    import faiss
    import numpy as np

    rows.check(record)
    index = faiss.IndexScalarQuantizer(record.d_model, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    # It learns each number's range, for which some thousand rows do; what lies beyond is cut off and shows in e.
    some = np.sort(np.random.default_rng(0).choice(record.d_sae, min(record.d_sae, 65_536), replace=False))
    index.train(np.ascontiguousarray(rows.decoder[some]))
    error = 0.0
    for start, block in blocks_of(rows.decoder):
        index.add(np.ascontiguousarray(block))
        held = index.reconstruct_n(start, len(block))
        error = max(error, float(np.linalg.norm((held - block).astype(np.float64), axis=1).max()))
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))
        about = {"dictionary": record.id, "error": error, "crc32": _crc(temporary)}
        # Before it is there by its name: an index has its error beside it.
        with replacing(_about(path)) as beside:
            beside.write_text(json.dumps(about))


def _crc(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return zlib.crc32(data)


def _about(path: Path) -> Path:
    return path.with_suffix(".json")

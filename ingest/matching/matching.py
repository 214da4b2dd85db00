"""Matching of two dictionaries by the cosine of their decoder rows, exactly as an atlas's edges are defined.

1. The nearest few rows of each dictionary to every row of the other, from one product in tiles: in FAISS's heaps on a
   CPU (`ingest.matching.candidates`), large pairs in bfloat16 where it has units for that
   (`ingest.matching.low_precision`), or on a GPU (`ingest.matching.gpu`).
2. Their exact order, equal ones by index (`ingest.matching.ties`).
3. The union of both sides' matches: one edge a pair of rows, with its rank seen from each side.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atlas.errors import IngestError
from ingest.matching.blocks import Floats, Mask, UnitRows
from ingest.matching.ties import SPARE, Ranked, settle

if TYPE_CHECKING:
    from ingest.matching.gpu import Device


@dataclass(frozen=True)
class Matches:
    """The edges of a pair, ordered by (later, rank with −1 last, forward_rank with −1 last, earlier)."""

    later: NDArray[np.int32]  # [n_edges], row of the later dictionary
    earlier: NDArray[np.int32]  # [n_edges], row of the earlier dictionary
    similarity: Floats  # [n_edges], cosine in (0, 1]
    rank: NDArray[np.int32]  # [n_edges], 0 for the later feature's best match; −1 outside its top k
    forward_rank: NDArray[np.int32]  # [n_edges], the same seen from the earlier feature

    def __len__(self) -> int:
        return len(self.later)


def match(
    later: Floats | UnitRows,
    earlier: Floats | UnitRows,
    k: int,
    *,
    later_alive: Mask | None = None,
    earlier_alive: Mask | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
    block: int | None = None,
) -> Matches:
    """The union of every later row's top k in `earlier` and every earlier row's top k in `later`, positive ones only.

    The paper's data-free matching (§3.2, k = 1 there), seen from both sides. Similarities are within 2e-6 of float64;
    order and ties (by index) are those of float64, whatever the block. Memory is bounded: one tile of products (16 MB
    on a CPU), 256 MB of rows, and a few numbers a row.

    Args:
        later: unit rows, float32 [n_later, d], possibly memory-mapped; or checked ones, which saves a pass over them.
        earlier: the same, float32 [n_earlier, d].
        k: matches kept on each side, at least 1.
        later_alive, earlier_alive: bool [n]; rows to leave out are False. Rows that are zero or not finite always are.
        device: what `resolve_device` takes.
        progress: called after every tile with its number of products; they add up to n_later · n_earlier.
        block: rows a tile's side; the default suits the device.

    Raises:
        IngestError: rows of different width or not of unit length, masks that do not fit, k, block or device unusable.
    """
    if k < 1:
        raise IngestError(f"k must be at least 1, not {k}")
    if block is not None and block < 1:
        raise IngestError(f"block must be at least 1 row, not {block}")
    gpus = open_gpus(device)
    if len(gpus) > 1:
        raise IngestError("one pair is matched on one GPU; use cuda:0, or another by its number")
    b, a = UnitRows.of(later, later_alive), UnitRows.of(earlier, earlier_alive)
    widths = b.array.shape[1], a.array.shape[1]
    if widths[0] != widths[1]:
        raise IngestError(f"rows of {widths[0]} and {widths[1]} dimensions cannot be matched")
    return match_rows(b, a, k, gpus[0] if gpus else None, progress, block)


def match_rows(
    later: UnitRows,
    earlier: UnitRows,
    k: int,
    gpu: Device | None = None,
    progress: Callable[[int], None] | None = None,
    block: int | None = None,
) -> Matches:
    """`match` of rows that were checked, on a GPU that may hold some of them already; None: on the CPU."""
    if not later.alive.any() or not earlier.alive.any():
        return _union(_nothing(len(later)), _nothing(len(earlier)))
    keep = min(k, max(len(earlier), len(later))) + SPARE
    if gpu is None:
        from ingest.matching import candidates, low_precision

        how = low_precision if low_precision.pays(later, earlier) else candidates
        found = how.nearest(later, earlier, keep, block, progress)
    else:
        from ingest.matching import gpu as on_gpu

        found = on_gpu.nearest(gpu, later, earlier, keep, block, progress)
    return _union(
        settle(found[0], later, earlier, min(k, len(earlier))), settle(found[1], earlier, later, min(k, len(later)))
    )


def open_gpus(device: str) -> list[Device]:
    """The GPUs that `resolve_device` names, with nothing on them yet; none where it names the CPU."""
    names = resolve_device(device)
    if names == ["cpu"]:
        return []
    from ingest.matching.gpu import Device

    return [Device(name) for name in names]


def resolve_device(device: str = "auto") -> list[str]:
    """Where to match: ["cpu"] or GPUs as "cuda:N".

    device: "auto" (the first GPU, else the CPU), "cpu", "cuda" (every GPU) or "cuda:N".

    Raises IngestError, naming the valid values, for anything else and for a GPU that is not there.
    """
    if device == "cpu":
        return [device]
    gpus = [f"cuda:{n}" for n in range(_gpus())]
    wanted = {"auto": gpus[:1] or ["cpu"], "cuda": gpus}.get(device, [device] if device in gpus else [])
    if not wanted:
        valid = ["auto", "cpu", *(["cuda"] if gpus else []), *gpus]
        raise IngestError(f"device {device!r} is not available here; use one of {', '.join(valid)}")
    return wanted


def _gpus() -> int:
    """How many GPUs torch can use."""
    try:
        # The driver's library: without it there is nothing to ask torch for, whose import takes seconds and 1 GB.
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count()


def _nothing(n: int) -> Ranked:
    return Ranked(np.zeros((n, 1), np.float32), np.full((n, 1), -1, np.int64), np.zeros(n, bool))


def _union(from_later: Ranked, from_earlier: Ranked) -> Matches:
    """One edge a pair of rows. Where the sides differ in the last bits, the float64 value is taken, or the later's."""
    n = max(1, len(from_earlier.ids))
    later, rank = np.nonzero(from_later.ids >= 0)  # in the order of the result
    column, forward = np.nonzero(from_earlier.ids >= 0)
    earlier, row = from_later.ids[later, rank], from_earlier.ids[column, forward]

    # For each edge of the later side the same one of the earlier side, if that has it. The last key is nobody's.
    order = np.argsort(row * n + column)
    keys = np.append((row * n + column)[order], -1)
    place = np.searchsorted(keys[:-1], later * n + earlier)
    both = keys[place] == later * n + earlier
    twin = np.append(order, 0)[place[both]]
    similarity, forward_rank = from_later.values[later, rank], np.full(len(later), -1, np.int32)
    forward_rank[both] = forward[twin]
    better = from_earlier.exact[column[twin]] & ~from_later.exact[later[both]]
    similarity[np.flatnonzero(both)[better]] = from_earlier.values[column, forward][twin[better]]

    # Of the earlier side what the later has not: behind the later's own, by forward rank, then by index.
    alone = np.ones(len(row), bool)
    alone[twin] = False
    rest = np.flatnonzero(alone)
    rest = rest[np.argsort((row[rest] * from_earlier.ids.shape[1] + forward[rest]) * n + column[rest])]
    behind = np.argsort(np.concatenate([later, row[rest]]), kind="stable")

    def merged(own: NDArray[Any], others: NDArray[Any], dtype: type) -> NDArray[Any]:
        return np.concatenate([own, others])[behind].astype(dtype)

    return Matches(
        merged(later, row[rest], np.int32),
        merged(earlier, column[rest], np.int32),
        merged(similarity, from_earlier.values[column[rest], forward[rest]], np.float32),
        merged(rank, np.full(len(rest), -1), np.int32),
        merged(forward_rank, forward[rest], np.int32),
    )

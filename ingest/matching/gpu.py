"""The nearest rows of two dictionaries on a GPU, both directions from one product.

1. Rows go to the device in blocks and stay there while pairs share them, as far as its memory goes (`Device`).
2. Two blocks give a tile of fp32 products. Along its rows, and along its columns, the products are cut into groups of
   `GROUP`; the groups with the largest maxima hold the largest products, and only they are looked into.
3. The best of all tiles stay on the device until the pair is done.

Where the device's memory runs out, blocks are halved and the pair begins again.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from atlas.errors import IngestError
from ingest.matching.blocks import GROUP, Floats, Nearest, UnitRows, spans

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 16384  # rows a tile's side: 1 GB of products
_SMALLEST = 256  # of blocks; a device that cannot hold two of them is full of other work
_SHARE = 0.5  # of the memory that is free at the start, for rows that stay


class Device:
    """A GPU and the rows that lie on it; of these the block used longest ago goes first."""

    def __init__(self, name: str, room: int | None = None) -> None:
        """`name`: "cuda:N", or "cpu", which takes the same way. `room`: bytes of rows that may stay."""
        import torch

        self.device = torch.device(name)
        if room is None:
            room = int(torch.cuda.mem_get_info(self.device)[0] * _SHARE) if self.device.type == "cuda" else 0
        self.room, self.held = room, 0
        self.lock = threading.Lock()  # one pair at a time
        # The rows themselves are kept beside their copy: another's could get their identity once they are gone.
        self._blocks: OrderedDict[tuple[int, int, int], tuple[UnitRows, Tensor]] = OrderedDict()
        self._pinned: Tensor | None = None

    def block(self, rows: UnitRows, low: int, high: int) -> Tensor:
        """Rows low … high − 1 on the device, fp32 [high − low, d]."""
        key = (id(rows), low, high)
        if key not in self._blocks:
            size = (high - low) * rows.array.shape[1] * 4
            while self._blocks and self.held + size > self.room:
                _, gone = self._blocks.popitem(last=False)[1]
                self.held -= gone.nbytes
            self._blocks[key] = rows, self._upload(rows.block(low, high))
            self.held += size
        self._blocks.move_to_end(key)
        return self._blocks[key][1]

    def clear(self) -> None:
        """Forget all rows and give their memory back."""
        import torch

        self._blocks.clear()
        self.held, self._pinned = 0, None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _upload(self, block: Floats) -> Tensor:
        import torch

        if self.device.type == "cpu":
            return torch.from_numpy(block.copy())
        # Copied through memory that cannot be paged out, which is several times as fast.
        if self._pinned is None or self._pinned.numel() < block.size:
            self._pinned = torch.empty(block.size, dtype=torch.float32, pin_memory=True)
        host = self._pinned[: block.size].view(block.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that rows mapped from a file cannot be written
            host.copy_(torch.from_numpy(block))  # by all cores, as NumPy does not
        return host.to(self.device)


def nearest(
    device: Device,
    later: UnitRows,
    earlier: UnitRows,
    keep: int,
    block: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Nearest, Nearest]:
    """The `keep` nearest rows of `earlier` to each row of `later`, and the reverse; sorted, ties in any order.

    Args:
        device: where the products are made.
        later, earlier: unit rows of one width.
        keep: nearest rows of each.
        block: rows a tile's side; less is taken where memory runs out.
        progress: called after each tile with its number of products.

    Raises IngestError where not even small blocks fit.
    """
    import torch

    step, told = block or BLOCK, 0
    with device.lock, torch.inference_mode(), _exact():
        while True:
            done = 0
            try:
                best = _Best(len(later), keep, device), _Best(len(earlier), keep, device)
                for i, i_end in spans(len(later), step):
                    for j, j_end in spans(len(earlier), step):
                        tile = device.block(later, i, i_end) @ device.block(earlier, j, j_end).T
                        best[0].scan(tile, i, j, columns=False)
                        best[1].scan(tile, j, i, columns=True)
                        del tile  # before the next one is made
                        done += (i_end - i) * (j_end - j)
                        if progress and done > told:  # what a pair that begins again repeats was told already
                            progress(done - told)
                            told = done
                return best[0].found(), best[1].found()
            except torch.OutOfMemoryError:
                if step <= _SMALLEST:
                    raise IngestError(
                        f"{device.device} has no room for {step} rows; free its memory or use --device cpu"
                    ) from None
                step = max(_SMALLEST, min(step, max(len(later), len(earlier))) // 2)
                device.clear()


class _Best:
    """The largest products so far of each row, on the device."""

    def __init__(self, n: int, keep: int, device: Device) -> None:
        import torch

        self.keep = keep
        self.values = torch.full((n, keep), -torch.inf, device=device.device)
        self.ids = torch.full((n, keep), -1, dtype=torch.int64, device=device.device)

    def scan(self, tile: Tensor, first: int, id_: int, *, columns: bool) -> None:
        """Offer a tile whose first line is `first` and whose products' first id is `id_`; its rows, or its columns."""
        import torch

        lines, width = (tile.shape[1], tile.shape[0]) if columns else (tile.shape[0], tile.shape[1])
        peaks = _peaks(tile, 0) if columns else _peaks(tile, 1)
        if columns:
            peaks = peaks.T.contiguous()
        groups = peaks.shape[1]
        group = peaks.topk(min(self.keep, groups), dim=1).indices
        # A group may lack its last product: what lies beyond the tile reads the tile's last one and is struck out.
        along = (group[:, :, None] + torch.arange(0, width, groups, device=tile.device)).view(lines, -1)
        inside = along.clamp_max(width - 1)
        line = torch.arange(lines, device=tile.device)[:, None]
        values = tile[inside, line] if columns else tile[line, inside]
        values = values.masked_fill(along >= width, -torch.inf)
        where = slice(first, first + lines)
        values, ids = torch.cat([self.values[where], values], 1), torch.cat([self.ids[where], along + id_], 1)
        self.values[where], order = values.topk(self.keep, dim=1)
        self.ids[where] = ids.gather(1, order)

    def found(self) -> Nearest:
        """What was found, in the host's memory."""
        import torch

        ids = self.ids.masked_fill(self.values == -torch.inf, -1)
        return Nearest(self.values.cpu().numpy(), ids.cpu().numpy())


def _peaks(tile: Tensor, dim: int) -> Tensor:
    """The maximum of each group along `dim`: group g is the lines g, g + groups, g + 2 groups, …"""
    import torch

    width = tile.shape[dim]
    groups = -(-width // GROUP)
    full = width // groups
    peaks: Tensor = torch.unflatten(tile.narrow(dim, 0, full * groups), dim, (full, groups)).amax(dim)
    if rest := width - full * groups:
        head = peaks.narrow(dim, 0, rest)
        torch.maximum(head, tile.narrow(dim, full * groups, rest), out=head)
    return peaks


@contextmanager
def _exact() -> Iterator[None]:
    """Within it products of float32 are those of float32, whatever the process has set."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

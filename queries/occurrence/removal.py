"""Predecessors taken away at one token, each in a forward pass of its own, and by how much their targets fall.

1. The context up to the token is repeated: one row as it is, and one for each predecessor.
2. Where a predecessor writes, what it adds is taken from the hidden state at the last column of its row; the rest of
   the state stays, the dictionary's error with it, and the rest of the pass is computed anew.
3. Targets are read in all rows; the row as it is comes from the same pass, so that no number depends on the batch.

Rows of head space are taken away where they reach the stream, with the token's scale of an output norm held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hooked.hookpoints import HookPoint, read_point, write_point
from queries.occurrence.reading import last_block, states

if TYPE_CHECKING:
    from atlas.folder.dictionary import Dictionary
    from queries.occurrence.firing import Firing

Feature = tuple[str, int]  # a dictionary's id, and the row there
ROWS = 64  # of a pass


def removals(
    model: Any,
    ids: torch.Tensor,
    records: Mapping[str, Dictionary],
    pairs: Iterable[tuple[Feature, Feature]],
    firing: Callable[[str], Firing],
) -> dict[tuple[Feature, Feature], dict[str, float]]:
    """For each pair of a target and a predecessor: `measured`, the fall of the target's pre-activation when the
    predecessor is taken away, and `left`, the share of its activation that is left then.

    ids: int64 [1, columns], the context up to the token. firing: what a dictionary does there.
    """
    pairs = list(pairs)
    earlier = list(dict.fromkeys(pair[1] for pair in pairs))
    later = {pair[0][0] for pair in pairs}
    found: dict[tuple[Feature, Feature], dict[str, float]] = {}
    for start in range(0, len(earlier), ROWS):
        part = earlier[start : start + ROWS]
        removed = [_written(firing(dictionary), index) for dictionary, index in part]
        read = _without(model, ids, records, [each[0] for each in part], removed, later)
        for target in later:
            encoder = firing(target).encoder
            hidden = read[target].float().cpu()
            before, values = encoder.before(hidden).double(), encoder(hidden).values.double()
            for pair in pairs:
                if pair[0][0] == target and pair[1] in part:
                    row, index = 1 + part.index(pair[1]), pair[0][1]
                    found[pair] = {
                        "measured": float(before[0, index] - before[row, index]),
                        "left": float(values[row, index] / values[0, index]),
                    }
    return found


def _written(here: Firing, index: int) -> torch.Tensor:
    place = int(np.flatnonzero(here.active == index)[0])
    return here.writes[place]


def _without(
    model: Any,
    ids: torch.Tensor,
    records: Mapping[str, Dictionary],
    dictionaries: list[str],
    removed: list[torch.Tensor],
    later: set[str],
) -> dict[str, torch.Tensor]:
    """What the later dictionaries read at the last column, [1 + removed, d_in] each; row 0 is as it is."""
    points: dict[Any, HookPoint] = {id_: read_point(model, records[id_]) for id_ in later}
    last = last_block(records[id_] for id_ in later)
    with ExitStack() as stack:
        # Before those that look: a target may be read where a predecessor is taken away.
        for id_ in dict.fromkeys(dictionaries):
            rows = [1 + n for n, each in enumerate(dictionaries) if each == id_]
            change = torch.stack([removed[row - 1] for row in rows])
            handle = write_point(model, records[id_]).register(_subtracting(rows, change))
            stack.callback(handle.remove)
        seen = states(model, ids.repeat(1 + len(removed), 1), points, last)
    return {id_: seen[id_][:, -1] for id_ in later}


def _subtracting(rows: list[int], change: torch.Tensor) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    def subtract(hidden: torch.Tensor, _module_input: torch.Tensor | None) -> torch.Tensor:
        changed = hidden.clone()
        # In the wide type first, so that what is taken away is not rounded on its own.
        wide = changed[rows, -1].double() - change.to(changed.device)
        changed[rows, -1] = wide.to(changed.dtype)
        return changed

    return subtract

"""Tokens and copies of one of them in one sequence: what each is, and what it attends to (removals.copies)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Change:
    """What one intervention adds where a dictionary writes."""

    dictionary: str  # its id
    vector: torch.Tensor  # float32 [d_model]
    before: bool = False  # at the token before this one


@dataclass(frozen=True)
class Layout:
    """A sequence of tokens and copies."""

    ids: torch.Tensor  # int64 [n]
    positions: torch.Tensor  # int64 [n]
    visible: torch.Tensor  # bool [n, n]: what each attends to
    unchanged: int  # place of the copy that is not changed
    places: list[int]  # of the copy at which each change is read
    edited: list[int]  # of the copy that each change is added to

    @classmethod
    def of(cls, tokens: Sequence[int], changes: Sequence[Change]) -> Layout:
        here = len(tokens) - 1
        ids, positions, links, places, edited = [*tokens], [*range(len(tokens))], [], [], []

        def copy(position: int, seen: Sequence[int] = ()) -> int:
            ids.append(tokens[position])
            positions.append(position)
            links.append((position, seen))
            return len(ids) - 1

        unchanged = copy(here)
        for change in changes:
            if change.before and here > 0:
                edited.append(copy(here - 1))
                places.append(copy(here, edited[-1:]))
            else:
                places.append(copy(here))
                edited.append(places[-1])
        visible = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        for place, (position, seen) in enumerate(links, len(tokens)):
            visible[place] = False
            # Not the token that the copy seen stands for.
            visible[place, : position - len(seen)] = True
            visible[place, [*seen, place]] = True
        return cls(torch.tensor(ids), torch.tensor(positions), visible, unchanged, places, edited)

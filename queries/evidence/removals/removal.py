"""Predecessors taken away at one token, in every way that is compared (paper §5.2), and what becomes of the targets.

Every active predecessor is removed alone: a change serves all targets at once, so that trying all of them costs no more
than one each. What is removed is what the feature writes, activation × decoder row, from the hidden state where it
writes it; the rest of the state, the dictionary's error with it, stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from atlas.errors import ModelError
from queries.evidence.controls.frozen import Frozen
from queries.evidence.readers import Reader
from queries.evidence.removals.copies import Context, run_changed
from queries.evidence.removals.layout import Change
from queries.evidence.sources import Source

METHODS = (
    "top1",  # the best match by cosine
    "topk",  # the five best together, where at least one is active
    "permutation",  # its partner where all are matched one to one, where asked
    "pearson",  # the one whose activations correlate most on a text
    "exhaustive",  # the best of all active ones, after trying each
    "random",  # an active one of the same dictionary, drawn
    "norm_matched",  # as much as top1 in the direction of a living row that is not active
    "best_of_random",  # the best of as many such rows as exhaustive tries
    "shifted",  # what top1 removes, at the token before
    "wrong_layer",  # the best match in the dictionary of this site that is farthest off, where it is active here
    "frozen",  # the best match among frozen random rows, where it is active (removals.frozen), where asked
    "best_of_frozen",  # the best of all of those that are active, after trying each, where asked
)
MOST_TARGETS = 25  # of one dictionary at one token (paper §5.2)


@dataclass(frozen=True)
class Trial:
    """What the methods did to some targets at one token, and what every single removal did."""

    source: Source
    targets: np.ndarray  # int64 [n], features of the later dictionary
    old: np.ndarray  # float32 [n], their activations
    margin: np.ndarray  # float32 [n], activation over threshold; NaN where there is none
    new: dict[str, np.ndarray]  # by method float32 [n], NaN where it had nothing to remove
    active: np.ndarray  # int64 [m], features of the earlier dictionary
    amount: np.ndarray  # float32 [m], length of what each writes
    change: np.ndarray  # float32 [m, n]: share of the target's activation that goes with each; 1: all of it
    removed: list[Change]  # what `top1` removes, each once


def trials(
    model: Any,
    context: Context,
    last: int,
    hidden: Mapping[str, torch.Tensor],
    pairs: list[Source],
    readers: Mapping[str, Reader],
    wrong: Mapping[str, tuple[Reader, np.ndarray]],
    rng: np.random.Generator,
    permutation: bool = False,
    frozen: Mapping[str, Frozen] | None = None,
) -> list[Trial]:
    """Remove predecessors of one residual dictionary's active features at one token of a context.

    Args:
        last: place of the token in the context, the start token counted.
        hidden: by dictionary id what its encoder reads at the token, `[d_in]`.
        pairs: those of the later dictionary.
        wrong: by key of the pair a dictionary of another layer, and its best matches, int64 [d_sae later].
        permutation: also remove the partner of a one-to-one matching (Source.permuted).
        frozen: by key of the pair random rows to be removed too.
    """
    frozen = frozen or {}
    target = readers[pairs[0].later.id]
    values = target.encoder(hidden[target.record.id]).values.cpu().numpy()
    active = np.flatnonzero(values > 0)
    targets = np.sort(rng.permutation(active)[:MOST_TARGETS])
    plans = [
        _Plan.of(pair, targets, hidden, readers, wrong.get(pair.key), rng, permutation, frozen.get(pair.key))
        for pair in pairs
    ]
    changes = [change for plan in plans for change in plan.changes]
    if not changes or not len(targets):
        return []
    written = {pair.earlier.id: pair.earlier for pair in pairs}
    plain, changed = run_changed(model, context, last, changes, written, {target.record.id: target.record})
    _check_copies(plain[target.record.id], hidden[target.record.id])
    old = target.encoder(plain[target.record.id]).values.cpu().numpy()[targets]
    new = target.encoder(changed[target.record.id]).values.cpu().numpy()[:, targets]
    # At its threshold a feature may be on in the one pass and off in the other, by rounding: it is no target then.
    kept = old > 0
    found, first = [], 0
    for plan in plans:
        part = new[first : first + len(plan.changes)]
        first += len(plan.changes)
        found.append(plan.trial(target, old, part, kept))
    return found


def _check_copies(copied: torch.Tensor, read: torch.Tensor) -> None:
    """Raise ModelError where an unchanged copy of the token does not compute what the token computes."""
    off = float((copied - read).float().norm() / read.float().norm())
    if off > (1e-3 if read.dtype == torch.float32 else 5e-2):
        raise ModelError(
            f"on this model a copy of a token does not compute what the token computes (off by {off:.1%}): removals "
            "cannot be tried on it"
        )


@dataclass(frozen=True)
class _Plan:
    """The changes that one pair's methods need, singles first, and where each method finds its own."""

    source: Source
    targets: np.ndarray
    active: np.ndarray
    amount: np.ndarray
    changes: list[Change]
    chosen: dict[str, np.ndarray]  # by method int64 [n_targets], place among the changes; −1: nothing to remove
    frozen: range  # places of the changes that remove frozen random rows

    @classmethod
    def of(
        cls,
        pair: Source,
        targets: np.ndarray,
        hidden: Mapping[str, torch.Tensor],
        readers: Mapping[str, Reader],
        wrong: tuple[Reader, np.ndarray] | None,
        rng: np.random.Generator,
        permutation: bool,
        frozen: Frozen | None,
    ) -> _Plan:
        id_ = pair.earlier.id
        here = hidden[id_]
        active, writes = readers[id_].writes(here)
        amount = writes.norm(dim=1)
        place = np.full(pair.earlier.d_sae, -1)
        place[active] = np.arange(len(active))
        changes = [Change(id_, -write) for write in writes]
        idle = np.setdiff1d(np.flatnonzero(readers[id_].rows.alive), active)
        drawn = rng.choice(idle, len(active), replace=len(idle) < len(active)) if len(idle) else active[:0]
        units = torch.from_numpy(np.array(readers[id_].rows.decoder[drawn])).to(writes.device)
        other = len(changes)
        changes += [Change(id_, -length * unit) for length, unit in zip(amount, units, strict=False)]
        chosen = {"top1": _placed(place, pair.best[targets])}
        if permutation:
            chosen["permutation"] = _placed(place, pair.permuted[targets])
        if pair.measured:
            chosen["pearson"] = _placed(place, pair.correlated[targets])
        if len(active):
            chosen["random"] = rng.integers(0, len(active), len(targets))
        if len(drawn):
            chosen["norm_matched"] = np.where(chosen["top1"] >= 0, chosen["top1"] + other, -1)
        chosen["topk"] = _together(pair, targets, place, writes, changes)
        chosen["shifted"] = _shifted(chosen["top1"], changes)
        if wrong is not None:
            chosen["wrong_layer"] = _wrong(wrong, targets, here, id_, changes)
        first = len(changes)
        if frozen is not None:
            its, writes = frozen.writes(here, len(active))
            changes += [Change(id_, -write) for write in writes]
            where = np.full(len(frozen.rows), -1)
            where[its] = first + np.arange(len(its))
            chosen["frozen"] = _placed(where, frozen.best[targets])
        return cls(pair, targets, active, amount.cpu().numpy(), changes, chosen, range(first, len(changes)))

    def trial(self, target: Reader, old: np.ndarray, new: np.ndarray, kept: np.ndarray) -> Trial:
        """The outcome; `new`: activations `[n_changes, n_targets]`."""
        count = len(self.active)
        column = np.arange(len(self.targets))
        found = {
            method: np.where(places >= 0, new[places, column], np.nan)[kept] for method, places in self.chosen.items()
        }
        # Singles come first, and behind them as many of other rows.
        if count:
            found["exhaustive"] = new[:count].min(axis=0)[kept]
        if "norm_matched" in self.chosen:
            found["best_of_random"] = new[count : 2 * count].min(axis=0)[kept]
        if self.frozen:
            found["best_of_frozen"] = new[self.frozen].min(axis=0)[kept]
        threshold = target.encoder.threshold
        old, targets = old[kept], self.targets[kept]
        margin = old / threshold.cpu().numpy()[targets] if threshold is not None else np.full(len(old), np.nan)
        change = 1 - new[:count][:, kept] / old
        top = self.chosen["top1"][kept]
        removed = [self.changes[place] for place in np.unique(top[top >= 0]).tolist()]
        return Trial(self.source, targets, old, margin, found, self.active, self.amount, change, removed)


def _placed(place: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Places of features among the active ones; −1 where there is none, or it is not active."""
    return np.where(features >= 0, place[features], -1)


def _together(
    pair: Source, targets: np.ndarray, place: np.ndarray, writes: torch.Tensor, changes: list[Change]
) -> np.ndarray:
    """Places of the changes that remove each target's active ones of the best five, added where needed."""
    found = np.full(len(targets), -1)
    top = pair.best_five
    for n, feature in enumerate(targets.tolist()):
        active = place[top.get(feature, np.empty(0, dtype=int))]
        active = active[active >= 0]
        if len(active) == 1:
            found[n] = active[0]
        elif len(active):
            found[n] = len(changes)
            changes.append(Change(pair.earlier.id, -writes[active].sum(dim=0)))
    return found


def _shifted(top: np.ndarray, changes: list[Change]) -> np.ndarray:
    """Places of the changes of `top`, made at the token before."""
    found = np.full(len(top), -1)
    for each in np.unique(top[top >= 0]).tolist():
        found[top == each] = len(changes)
        changes.append(Change(changes[each].dictionary, changes[each].vector, before=True))
    return found


def _wrong(
    wrong: tuple[Reader, np.ndarray], targets: np.ndarray, here: torch.Tensor, id_: str, changes: list[Change]
) -> np.ndarray:
    """Places of the changes that remove what the wrong layer's best matches would write here."""
    reader, best = wrong
    active, writes = reader.writes(here)
    found = np.full(len(targets), -1)
    for feature, write in zip(active.tolist(), writes, strict=True):
        its = best[targets] == feature
        if its.any():
            found[its] = len(changes)
            changes.append(Change(id_, -write))
    return found

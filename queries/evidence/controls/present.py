"""Is a feature's best match active where the feature is, and how often would chance be? By layer and site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from atlas.folder.dictionary import Dictionary
from atlas.rows import Rows
from queries.evidence.controls.frozen import Frozen
from queries.evidence.controls.impossible import impossible
from queries.evidence.intervals import row_of, shares
from queries.evidence.nearest import best_matches
from queries.evidence.readers import Reader
from queries.evidence.sources import Source

METHODS = (
    "top1",  # the best match by cosine
    "random",  # a living feature of that dictionary, drawn: the share of them that is active at the token
    "frozen",  # the best match among random rows that nobody trained, as many of them active
    "impossible",  # the best match in a dictionary that writes only behind the feature
)
COLUMNS = ("layer", "site", "method", "n", "share", "share_low", "share_high")
Seen = dict[str, np.ndarray]


@dataclass(frozen=True)
class Control:
    """What stands beside the best matches of one pair."""

    pair: Source
    living: int  # features of the earlier dictionary
    frozen: Frozen | None
    impossible: str | None  # id of a dictionary
    impossible_best: np.ndarray  # int64 [d_sae later], best matches in it

    @classmethod
    def of(cls, pair: Source, readers: Mapping[str, Reader], among: Mapping[str, Dictionary], seed: int) -> Control:
        """`among`: the dictionaries whose activations are there."""
        other = impossible(among, pair.later, pair.earlier)
        best = best_matches(pair.rows[0], readers[other.id].rows)[0] if other else np.zeros(0, np.int64)
        reader = readers[pair.earlier.id]
        living = int(reader.rows.alive.sum())
        return cls(pair, living, Frozen.of(pair, reader, seed), other.id if other else None, best)

    def seen(self, active: Mapping[str, np.ndarray], hidden: torch.Tensor, text: int) -> Seen:
        """Each active later feature at one token: whether what stands for its predecessor is active too, by method.

        Args:
            active: bool [d_sae] by dictionary.
            hidden: what the earlier dictionary reads there, [d_model].
        """
        features, earlier = np.flatnonzero(active[self.pair.later.id]), active[self.pair.earlier.id]
        best = self.pair.best[features]
        unknown = np.full(len(features), np.nan)
        found = dict.fromkeys(METHODS, unknown)
        found["top1"] = ((best >= 0) & earlier[best]).astype(float)
        found["random"] = np.full(len(features), earlier.sum() / self.living)
        if self.frozen is not None:
            count = torch.tensor([int(earlier.sum())], device=hidden.device)
            along = self.frozen.lengths(hidden[None], count)[0].cpu().numpy() > 0
            found["frozen"] = along[self.frozen.best[features]].astype(float)
        if self.impossible is not None:
            found["impossible"] = active[self.impossible][self.impossible_best[features]].astype(float)
        where = {"layer": self.pair.later.layer, "site": self.pair.earlier.site, "text": text}
        return found | {name: np.full(len(features), value) for name, value in where.items()}


def control_rows(seen: Sequence[Seen], seed: int) -> Rows:
    """Shares of a layer's occurrences at which the predecessor by each method is active, with intervals by text."""
    table = {name: np.concatenate([each[name] for each in seen]) for name in seen[0]}
    rows = []
    for layer in np.unique(table["layer"]):
        for site in dict.fromkeys(table["site"][table["layer"] == layer].tolist()):
            for method in METHODS:
                own = (table["layer"] == layer) & (table["site"] == site) & np.isfinite(table[method])
                if own.any():
                    share = shares(table[method][own], np.ones(own.sum()), table["text"][own], seed)
                    rows.append(row_of(COLUMNS, (int(layer), site, method, int(own.sum()), *share)))
    return Rows(rows, COLUMNS)

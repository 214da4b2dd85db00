"""What was tried and what came of it, as tables: by method, by ranking, by cosine, of the loss.

A method's rows count the targets at which it had something to remove. Methods differ in that, `n` says how many, and
targets whose best match is active are not like the others: `common` compares all methods on those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atlas.rows import Rows
from queries.evidence.intervals import row_of, shares
from queries.evidence.removals import recall
from queries.evidence.removals.copies import Context, losses
from queries.evidence.removals.recall import cosine_rows, pairs_of, recall_rows
from queries.evidence.removals.removal import METHODS, Trial

MARGINS = (("all", -np.inf, np.inf), ("below 1.1", -np.inf, 1.1), ("1.1-1.5", 1.1, 1.5), ("above 1.5", 1.5, np.inf))
LOSS_COLUMNS = ("layer", "site", "n", "loss_change", "loss_low", "loss_high")
COLUMNS = ("layer", "site", "method", "margin", "n", "success", "success_low", "success_high", "change")
Row = dict[str, Any]


@dataclass
class Outcome:
    """Everything that was tried: columns of equal length."""

    seed: int
    record: dict[str, Any]  # of the text, as an atlas keeps it
    targets: list[dict[str, np.ndarray]] = field(default_factory=list)  # of targets, by method and where they are
    pairs: list[dict[str, np.ndarray]] = field(default_factory=list)  # of targets with each active predecessor
    losses: list[dict[str, np.ndarray]] = field(default_factory=list)  # of the next token, without and with removals
    effects: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by pair: later, earlier, change

    def add(self, trial: Trial, text: int) -> None:
        """Take in what one token gave."""
        source, count = trial.source, len(trial.targets)
        where = {"layer": source.later.layer, "site": source.earlier.site, "text": text}
        none = np.full(count, np.nan)
        found = {method: trial.new.get(method, none) for method in METHODS}
        columns = {name: np.full(count, value) for name, value in where.items()}
        self.targets.append(columns | {"old": trial.old, "margin": trial.margin} | found)
        pairs = pairs_of(trial)
        size = len(pairs["change"])
        self.pairs.append({name: np.full(size, value) for name, value in where.items()} | pairs)
        if size:
            ends = np.repeat(trial.targets, len(trial.active)), np.tile(trial.active, count)
            self.effects.setdefault(source.key, []).append(np.stack([*ends, pairs["change"]]))

    def take(self, other: Outcome) -> None:
        """Take in what another part of the text gave."""
        self.targets += other.targets
        self.pairs += other.pairs
        self.losses += other.losses
        for key, found in other.effects.items():
            self.effects.setdefault(key, []).extend(found)

    def guard(self, model: Any, context: Context, place: int, trial: Trial, text: int) -> None:
        """Take in what removing best matches does to the loss of the token behind."""
        if not trial.removed:
            return
        source = trial.source
        written = {source.earlier.id: source.earlier}
        old, new = losses(model, context, place, context.tokens[place + 1], trial.removed, written)
        count = len(new)
        where = {"layer": source.later.layer, "site": source.earlier.site, "text": text, "old": old}
        self.losses.append({name: np.full(count, value) for name, value in where.items()} | {"new": np.array(new)})

    def rows(self, *, common: bool = False) -> Rows:
        """The table: a row for each layer, site, method and margin that anything was tried in.

        common: only targets whose best match is active, so that methods are compared on the same ones.
        """
        table = _joined(self.targets)
        if common:
            there = np.isfinite(table["top1"])
            table = {name: column[there] for name, column in table.items()}
        return Rows(
            row
            for layer, site in _places(table)
            for method in METHODS
            for margin in MARGINS
            if (row := self._row(table, layer, site, method, margin)) is not None
        )

    def recall(self) -> Rows:
        """Of the strong effects, the share that each ranking names (queries.evidence.removals.recall)."""
        pairs = _joined(self.pairs)
        return Rows(recall_rows(pairs, _places(pairs), self.seed), recall.COLUMNS)

    def loss(self) -> Rows:
        """Share by which the next token's loss rises where a best match is removed: the guard of the forward pass."""
        if not self.losses:
            return Rows((), LOSS_COLUMNS)
        table, rows = _joined(self.losses), []
        for layer, site in _places(table):
            kept = (table["layer"] == layer) & (table["site"] == site)
            old, new = table["old"][kept], table["new"][kept]
            values = (layer, site, int(kept.sum()), *shares(new - old, old, table["text"][kept], self.seed))
            rows.append(row_of(LOSS_COLUMNS, values))
        return Rows(rows, LOSS_COLUMNS)

    def by_cosine(self) -> Rows:
        """Success of removing the best match, by its cosine."""
        pairs = _joined(self.pairs)
        return Rows(cosine_rows(pairs, _places(pairs), self.seed), recall.COSINE_COLUMNS)

    def _row(self, table: Mapping[str, np.ndarray], layer: int, site: str, method: str, margin: Any) -> Row | None:
        name, low, high = margin
        kept = (table["layer"] == layer) & (table["site"] == site) & np.isfinite(table[method])
        if name != "all":  # where a dictionary has no threshold, no margin holds
            kept &= (table["margin"] >= low) & (table["margin"] < high)
        if not kept.any():
            return None
        new, old, texts = (table[each][kept] for each in (method, "old", "text"))
        success = shares((new == 0).astype(float), np.ones(len(new)), texts, self.seed)
        values = (layer, site, method, name, int(kept.sum()), *success, float((1 - new / old).mean()))
        return row_of(COLUMNS, values)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _places(table: Mapping[str, np.ndarray]) -> list[tuple[int, str]]:
    """Layers and sites, layers ascending, res before mlp and att."""
    order = {"res": 0, "mlp": 1, "att": 2}
    found = {(int(layer), str(site)) for layer, site in zip(table["layer"], table["site"], strict=True)}
    return sorted(found, key=lambda each: (each[0], order[each[1]]))

"""Does removing a feature's predecessor stop it? The paper's table (§5.2, Table 1) with the controls that it lacks.

1. Contexts of a text are drawn, and PER_TEXT tokens of each; start tokens and attention sinks are never among them.
2. At each token the active features of every residual dictionary are targets, and predecessors in each dictionary that
   it is matched with are removed there in the ways of queries.evidence.removals.removal.
3. Success is the target's activation becoming 0, change the share of it that goes. Intervals by contexts.

A method's rows count the targets at which it had something to remove; methods differ in that, and `n` says how many.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atlas.atlas import Atlas
from atlas.cli.progress import Progress
from atlas.errors import QueryError
from queries.evidence.intervals import shares
from queries.evidence.readers import Reader, readers_of
from queries.evidence.removals.copies import Context, first_block
from queries.evidence.removals.recall import cosine_rows, recall_rows
from queries.evidence.removals.removal import METHODS, Trial, pairs_of, trials
from queries.evidence.sampling import PER_TEXT, WIDTH, chosen_places, draw, runnable, starts
from queries.evidence.sources import Source, sources

POSITIONS = 100  # in all, unless said otherwise
MARGINS = (("all", -np.inf, np.inf), ("below 1.1", -np.inf, 1.1), ("1.1-1.5", 1.1, 1.5), ("above 1.5", 1.5, np.inf))
COLUMNS = ("layer", "site", "method", "margin", "n", "success", "success_low", "success_high", "change")
_log = logging.getLogger(__name__)
Row = dict[str, Any]


@dataclass
class Outcome:
    """Everything that was tried: columns of equal length."""

    seed: int
    record: dict[str, Any]  # of the text, as an atlas keeps it
    targets: list[dict[str, np.ndarray]] = field(default_factory=list)  # of targets, by method and where they are
    pairs: list[dict[str, np.ndarray]] = field(default_factory=list)  # of targets with each active predecessor
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

    def rows(self) -> list[Row]:
        """The table: a row for each layer, site, method and margin that anything was tried in."""
        table = _joined(self.targets)
        return [
            row
            for layer, site in _places(table)
            for method in METHODS
            for margin in MARGINS
            if (row := self._row(table, layer, site, method, margin)) is not None
        ]

    def recall(self) -> list[Row]:
        """Of the strong effects, the share that each ranking names (queries.evidence.removals.recall)."""
        pairs = _joined(self.pairs)
        return recall_rows(pairs, _places(pairs), self.seed)

    def by_cosine(self) -> list[Row]:
        """Success of removing the best match, by its cosine."""
        pairs = _joined(self.pairs)
        return cosine_rows(pairs, _places(pairs), self.seed)

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
        return dict(zip(COLUMNS, (None if v != v else v for v in values), strict=True))


def deactivation(
    atlas: Atlas,
    texts: Sequence[Path],
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    model: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Outcome:
    """Remove predecessors at tokens of a text, and record what becomes of the targets.

    Args:
        texts: files; contexts and tokens in them are drawn by `seed`.
        positions: tokens in all, PER_TEXT of each context.
        model: name or folder; None: the one that the dictionaries name.
        device: auto, cpu or cuda:N.

    Example:
        outcome = deactivation(atlas, [Path("wiki.txt")], positions=20)
        print([row for row in outcome.rows() if row["method"] == "top1"])

    Raises QueryError where the atlas has no pair to try, IngestError for a text, ModelError for the model.
    """
    from hooked.load import load_model

    progress = progress or Progress(quiet=True)
    records = runnable(atlas.dictionaries)
    pairs = [pair for pair in sources(atlas) if {pair.later.id, pair.earlier.id} <= records.keys()]
    if not pairs:
        raise QueryError("the atlas has no residual dictionary with an earlier one that both can be run")
    if not all(pair.measured for pair in pairs):
        _log.warning("without `evidence edges` no correlation is known: method pearson is left out where it is missing")
    name = model or next(iter(records.values())).model_name
    loaded, tokenizer = load_model(name, device=device)
    sample = draw(texts, tokenizer, -(-positions // PER_TEXT) * WIDTH, seed)
    readers = readers_of(atlas, records, loaded)
    wrong = {pair.key: found for pair in pairs if (found := _wrong_layer(pair, readers)) is not None}
    outcome = Outcome(seed, sample.record("effects", name) | {"tokens": positions})
    groups = starts(tokenizer, records)
    # Both read in one pass: what the one writes and the other reads belongs to one forward pass.
    pairs = [pair for pair in pairs if pair.later.prepend_bos == pair.earlier.prepend_bos]
    later = {pair.later.id: [each for each in pairs if each.later.id == pair.later.id] for pair in pairs}
    with progress.steps("removals", positions * len(later), "tokens") as advance:
        for start, group in groups.items():
            own = {id_: found for id_, found in later.items() if id_ in group}
            blocks = {first_block(pair.earlier) for its in own.values() for pair in its}
            for text, place, context, hidden in _positions(
                loaded, start, group, blocks, sample.tokens, positions, seed
            ):
                for its in own.values():
                    rng = np.random.default_rng([seed, text, place, its[0].later.depth])
                    together = [pair for pair in its if pair.earlier.id in group]
                    for trial in (
                        trials(loaded, context, place, hidden, together, readers, wrong, rng) if together else []
                    ):
                        outcome.add(trial, text)
                    advance(1)
    if not outcome.targets:
        raise QueryError("no residual feature was active at the tokens drawn; take more with --tokens")
    return outcome


def _positions(
    model: Any,
    start: int | None,
    group: Mapping[str, Any],
    blocks: Collection[int],
    tokens: np.ndarray,
    most: int,
    seed: int,
) -> Iterator[tuple[int, int, Context, dict[str, Any]]]:
    """The drawn tokens: number of the context, place in it, the context up to the last, what each encoder reads."""
    from hooked.reading import read

    for text, part in enumerate(read(model, start, group, tokens, 1)):
        if text * PER_TEXT >= most:
            return
        chosen = chosen_places(part.counted()[0].cpu().numpy(), text, most, seed)
        ids = ([] if start is None else [start]) + tokens[text * WIDTH : (text + 1) * WIDTH].tolist()
        first = 0 if start is None else 1  # place of the text's first token
        if not chosen:
            continue
        context = Context.read(model, ids[: chosen[-1] + first + 1], blocks)
        for place in chosen:
            yield text, place + first, context, {id_: hidden[0, place] for id_, hidden in part.hidden.items()}


def _wrong_layer(pair: Source, readers: Mapping[str, Reader]) -> tuple[Reader, np.ndarray] | None:
    """The dictionary of the earlier one's site that is farthest from it and its best matches; None for no other."""
    others = [
        reader
        for reader in readers.values()
        if reader.record.site == pair.earlier.site
        and reader.record.d_in == pair.earlier.d_in
        and reader.record.layer not in (pair.earlier.layer, pair.later.layer)
    ]
    if not others:
        return None
    far = max(others, key=lambda reader: (abs(reader.record.layer - pair.earlier.layer), reader.record.id))
    best = np.empty(pair.later.d_sae, dtype=np.int64)
    for first in range(0, len(best), 4096):
        part = slice(first, first + 4096)
        best[part] = (pair.rows[0].decoder[part] @ far.rows.decoder.T).argmax(axis=1)
    return far, best


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _places(table: Mapping[str, np.ndarray]) -> list[tuple[int, str]]:
    """Layers and sites, layers ascending, res before mlp and att."""
    order = {"res": 0, "mlp": 1, "att": 2}
    found = {(int(layer), str(site)) for layer, site in zip(table["layer"], table["site"], strict=True)}
    return sorted(found, key=lambda each: (each[0], order[each[1]]))


def write_effects(folder: Path, outcome: Outcome, progress: Progress | None = None) -> int:
    """Write to every stored edge that was tried the mean share of the target's activation that went; how many they are.

    What an earlier measurement wrote is replaced whole.
    Raises QueryError where the atlas was changed since, LockedAtlas where another process writes to it.

    Example:
        write_effects(atlas.path, deactivation(atlas, [Path("wiki.txt")]))
    """
    from queries.evidence.figures import figures_of, with_column

    written = 0
    with figures_of(folder) as figures:
        if not outcome.effects.keys() <= set(figures.manifest.pairs):
            raise QueryError(f"{folder} was changed since the removals were tried: effects are not written; repeat it")
        for name in figures.manifest.pairs:
            table = figures.read(name)
            if name in outcome.effects or "effect" in table.column_names:
                ends = table["later"].to_numpy(), table["earlier"].to_numpy()
                effect = _mean_effects(outcome.effects.get(name, []), *ends)
                written += int(np.isfinite(effect).sum())
                figures.stage(name, with_column(table, "effect", effect))
        figures.publish(outcome.record, progress or Progress(quiet=True))
    return written


def _mean_effects(tried: list[np.ndarray], b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """float64 [n_edges]: the mean change of each edge (b, a) over what was tried; NaN where it never was."""
    if not tried:
        return np.full(len(b), np.nan)
    later, earlier, change = np.concatenate(tried, axis=1)
    names, place = np.unique(np.stack([later, earlier]), axis=1, return_inverse=True)
    means = dict(
        zip(
            map(tuple, names.T.astype(int).tolist()),
            np.bincount(place.ravel(), weights=change) / np.bincount(place.ravel()),
            strict=True,
        )
    )
    return np.array([means.get(ends, np.nan) for ends in zip(b.tolist(), a.tolist(), strict=True)])

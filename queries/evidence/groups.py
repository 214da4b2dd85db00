"""Where does an active feature come from at a token? The eight predecessor groups of the paper (§5.1), by layer.

1. Contexts of a text are drawn, and PER_TEXT tokens of each, as for removals.
2. At each token every active feature of every residual dictionary is an occurrence. Its group says which of its best
   matches, one for each site, are active there too: res, mlp, att, several of them, or none (nowhere).
3. Cosines of groups are compared with one row a feature and group (Mann-Whitney): occurrences of one feature are not
   independent, and with enough of them any difference is significant. So the effect size stands beside p.
4. Where asked, what chance gives stands beside how often a best match is active (queries.evidence.controls.present).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.atlas import Atlas
from atlas.cli.progress import Progress
from atlas.errors import QueryError
from atlas.ids import SITES
from atlas.rows import Rows
from queries.evidence.controls.present import Control, control_rows
from queries.evidence.intervals import auc, row_of, shares
from queries.evidence.readers import Reader, readers_of
from queries.evidence.sampling import PER_TEXT, WIDTH, chosen_places, draw, of_set, runnable, starts
from queries.evidence.sources import Source, sources

if TYPE_CHECKING:
    from hooked.reading import Batch

POSITIONS = 500  # tokens, unless said otherwise
BATCH = 8  # contexts
SMALLEST = 10  # features of a group that is compared
GROUPS = ("nowhere", "res", "mlp", "res & mlp", "att", "res & att", "mlp & att", "res & mlp & att")  # by SITES as bits
SHARES = (
    *("layer", "group", "n", "share", "share_low", "share_high", "features"),
    *(f"s_{site}" for site in SITES),
)
TESTS = ("layer", "score", "group", "other", "n", "n_other", "auc", "auc_low", "auc_high", "p")
RATES = ("dictionary", "layer", "site", "features", "dead", "silent", "l0", "positions")
Row = dict[str, Any]


@dataclass
class Occurrences:
    """Active features at tokens: columns of equal length, and how often each dictionary's features were active."""

    seed: int
    columns: list[dict[str, np.ndarray]] = field(default_factory=list)  # layer, feature, text, group, s_res …
    fires: dict[str, np.ndarray] = field(default_factory=dict)  # by dictionary: positions at which each was active
    positions: dict[str, int] = field(default_factory=dict)  # by dictionary: positions read
    readers: Mapping[str, Reader] = field(default_factory=dict)
    seen: list[dict[str, np.ndarray]] = field(default_factory=list)  # beside controls, where asked

    def shares(self) -> Rows:
        """Each layer's occurrences by group, and mean cosines over the features seen in it."""
        table, rows = self._table(), []
        for layer in np.unique(table["layer"]):
            own = {name: column[table["layer"] == layer] for name, column in table.items()}
            for group, name in enumerate(GROUPS):
                inside = own["group"] == group
                if not inside.any():
                    continue
                share = shares(inside.astype(float), np.ones(len(inside)), own["text"], self.seed)
                kept = _each_feature_once(own, group)
                cosines = [_mean(own[f"s_{site}"][kept]) for site in SITES]
                rows.append(row_of(SHARES, (int(layer), name, int(inside.sum()), *share, len(kept), *cosines)))
        return Rows(rows, SHARES)

    def tests(self) -> Rows:
        """Every two groups of a layer compared by each cosine; AUC: how often the first group's feature has more."""
        from scipy.stats import mannwhitneyu

        table, rows = self._table(), []
        for layer in np.unique(table["layer"]):
            own = {name: column[table["layer"] == layer] for name, column in table.items()}
            kept = {group: _each_feature_once(own, group) for group in range(len(GROUPS))}
            large = [group for group, found in kept.items() if len(found) >= SMALLEST]
            for site in SITES:
                score = own[f"s_{site}"]
                for one, other in combinations(large, 2):
                    values = [score[kept[group]] for group in (one, other)]
                    if not all(np.isfinite(each).all() for each in values):
                        continue
                    effect = auc((values[0], values[1]), (_presence(own, one), _presence(own, other)), self.seed)
                    sizes, p = map(len, values), float(mannwhitneyu(*values).pvalue)
                    rows.append(row_of(TESTS, (int(layer), site, GROUPS[one], GROUPS[other], *sizes, *effect, p)))
        return Rows(rows, TESTS)

    def rates(self) -> Rows:
        """How much each dictionary is used: dead and silent features, and active ones a token."""
        rows = []
        for id_, reader in self.readers.items():
            record, fires = reader.record, self.fires[id_]
            dead = int((~reader.rows.alive).sum())
            silent = int(((fires == 0) & reader.rows.alive).sum())
            l0 = float(fires.sum() / self.positions[id_])
            rows.append(
                row_of(RATES, (id_, record.layer, record.site, record.d_sae, dead, silent, l0, self.positions[id_]))
            )
        return Rows(rows, RATES)

    def controls(self) -> Rows:
        """How often the best match is active too, by layer and site, beside what chance gives; [] where not asked."""
        return control_rows(self.seen, self.seed) if self.seen else Rows()

    def _table(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([part[name] for part in self.columns]) for name in self.columns[0]}


def groups(
    atlas: Atlas,
    texts: Sequence[Path],
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    set_name: str | None = None,
    controls: bool = False,
    model: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Occurrences:
    """Active features of every residual dictionary at tokens of a text, by the sites whose best matches are active.

    Args:
        texts: files; contexts and tokens in them are drawn by `seed`.
        positions: tokens in all, PER_TEXT of each context.
        controls: also look at random features, random rows, and dictionaries that cannot be the source.
        set_name: of several dictionaries at one place those of this set (`of_set`); None: all together.
        model: name or folder; None: the one that the dictionaries name.
        device: auto, cpu or cuda:N.

    Raises QueryError where nothing can be compared, IngestError for a text, ModelError for the model.

    Example:
        for row in groups(atlas, [Path("wiki.txt")], positions=50).shares():
            print(row["layer"], row["group"], row["share"])
    """
    import torch

    from hooked.load import load_model
    from hooked.reading import read

    progress = progress or Progress(quiet=True)
    records = of_set(runnable(atlas.dictionaries), set_name)
    pairs = [pair for pair in sources(atlas) if {pair.later.id, pair.earlier.id} <= records.keys()]
    later: dict[str, list[Source]] = {}
    for pair in pairs:
        if pair.later.prepend_bos == pair.earlier.prepend_bos:
            later.setdefault(pair.later.id, []).append(pair)
    if not later:
        raise QueryError("the atlas has no residual dictionary with an earlier one that both can be run")
    loaded, tokenizer = load_model(model or next(iter(records.values())).model_name, device=device)
    sample = draw(texts, tokenizer, -(-positions // PER_TEXT) * WIDTH, seed)
    readers = readers_of(atlas, records, loaded)
    found = Occurrences(seed, readers=readers)
    for start, group in starts(tokenizer, records).items():
        beside = {
            id_: [Control.of(pair, readers, group, seed) for pair in its]
            for id_, its in later.items()
            if controls and id_ in group
        }
        with progress.steps("activations", len(sample.tokens), "tokens") as advance, torch.inference_mode():
            text = 0
            for part in read(loaded, start, group, sample.tokens, BATCH):
                values = {id_: readers[id_].encoder(hidden).values > 0 for id_, hidden in part.hidden.items()}
                _count(found, part, values)
                for row in range(len(part.numbers)):
                    counted = part.counted()[row].cpu().numpy()
                    for place in chosen_places(counted, text, positions, seed):
                        active = {id_: each[row, place].cpu().numpy() for id_, each in values.items()}
                        for id_, its in later.items():
                            if id_ in group:
                                found.columns.append(_occurrences(its, active, text))
                            for each in beside.get(id_, ()):
                                hidden = part.hidden[each.pair.earlier.id][row, place]
                                found.seen.append(each.seen(active, hidden, text))
                    text += 1
                advance(int((part.numbers >= 0).sum()))
    if not any(len(each["layer"]) for each in found.columns):
        raise QueryError("no residual feature was active at the tokens drawn; take more with --tokens")
    return found


def _count(found: Occurrences, part: Batch, values: Mapping[str, Any]) -> None:
    """Take in which features are active at all positions of a batch."""
    counted = part.counted()
    for id_, each in values.items():
        kept = each[counted]
        found.fires[id_] = found.fires.get(id_, 0) + kept.sum(dim=0).cpu().numpy()
        found.positions[id_] = found.positions.get(id_, 0) + len(kept)


def _occurrences(pairs: list[Source], active: Mapping[str, np.ndarray], text: int) -> dict[str, np.ndarray]:
    """The active features of one residual dictionary at one token."""
    record = pairs[0].later
    features = np.flatnonzero(active[record.id])
    group = np.zeros(len(features), dtype=np.int64)
    columns = {f"s_{site}": np.full(len(features), np.nan) for site in SITES}
    for pair in pairs:
        best = pair.best[features]
        fires = (best >= 0) & active[pair.earlier.id][best]
        group |= fires.astype(np.int64) << SITES.index(pair.earlier.site)
        name = f"s_{pair.earlier.site}"
        # Of several dictionaries at one place the better match, as in the life cycle.
        columns[name] = np.fmax(columns[name], pair.best_cosine[features])
    where = {"layer": np.full(len(features), record.layer), "text": np.full(len(features), text)}
    # Features of two dictionaries of one layer are different ones.
    numbers = features + record.d_sae * record.depth * 1_000
    return where | {"feature": numbers, "group": group} | columns


def _each_feature_once(table: Mapping[str, np.ndarray], group: int) -> np.ndarray:
    """Rows of the first occurrence of every feature in a group."""
    inside = np.flatnonzero(table["group"] == group)
    _, first = np.unique(table["feature"][inside], return_index=True)
    return np.asarray(inside[first])


def _presence(table: Mapping[str, np.ndarray], group: int) -> np.ndarray:
    """bool [features, contexts]: in which contexts each feature of a group occurs in it."""
    inside = table["group"] == group
    _, feature = np.unique(table["feature"][inside], return_inverse=True)
    texts, text = np.unique(table["text"], return_inverse=True)
    there = np.zeros((int(feature.max()) + 1, len(texts)), dtype=bool)
    there[feature, text[inside]] = True
    return there


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None

"""Is the map right? Matches as a transition from one residual dictionary to the next (paper App. F).

    z        activations of the earlier dictionary at a token, as lengths of what its features write
    ẑ        Tz: what the matches say of the later dictionary's features
    x̂        Σ ẑ_j · unit row_j + b_dec of the later dictionary
    EV       1 − Σ‖x − x̂‖² / Σ‖x − μ‖², μ the mean of x over all tokens, x the stream after the later block

Lengths, and not activations as they are: a dictionary's decoder norms say nothing of the other's.

T by target: every later feature takes what its best match has. By source: every earlier feature gives what it has to
the later feature that it matches best, which sums what several give.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.atlas import Atlas
from atlas.cli.progress import Progress
from atlas.errors import QueryError
from atlas.folder.dictionary import Dictionary
from atlas.ids import RES
from atlas.rows import Rows
from queries.evidence.controls.frozen import Frozen
from queries.evidence.readers import Reader, readers_of
from queries.evidence.sampling import draw, of_set, runnable, starts
from queries.evidence.sources import Source, sources

if TYPE_CHECKING:
    from hooked.reading import Batch

METHODS = (
    "top1",  # the best match's activation
    "weighted",  # the same times their cosine
    "permutation",  # the partner's activation where all are matched one to one, where asked
    "mean",  # x̂ = μ: 0
    "skip",  # x̂ = the stream before the later block: as if it wrote nothing
    "ceiling",  # the later dictionary's own reconstruction
    "shuffled",  # top1 with the matches dealt out anew among living features
    "frozen",  # weighted, with random rows that nobody trained in place of the earlier dictionary, where asked
)
DIRECTIONS = ("target", "source")
COLUMNS = ("source", "target", "method", "explained_variance")
TOKENS = 10_000  # read, unless said otherwise
BATCH = 8  # contexts
_log = logging.getLogger(__name__)
Row = dict[str, Any]


class Variance:
    """Explained variance of predictions about the mean, in a stream of batches."""

    def __init__(self) -> None:
        self._n = 0
        self._sum: np.ndarray | float = 0.0
        self._squares = 0.0
        self._shift: np.ndarray | None = None
        self._errors: dict[str, float] = {}

    def add(self, x: torch.Tensor, predicted: Mapping[str, torch.Tensor]) -> None:
        """Take in true vectors `[n, d]` and predictions of them by name."""
        true = x.double()
        if self._shift is None:
            # Near the mean, so that no digits are lost where the mean is long.
            self._shift = true.mean(dim=0).cpu().numpy()
        moved = true.cpu().numpy() - self._shift
        self._n += len(moved)
        self._sum = self._sum + moved.sum(axis=0)
        self._squares += float((moved**2).sum())
        for name, each in predicted.items():
            self._errors[name] = self._errors.get(name, 0.0) + float((true - each.double()).pow(2).sum())

    def explained(self, name: str) -> float:
        """1 − Σ‖x − x̂‖² / Σ‖x − μ‖²; raises QueryError where x does not vary."""
        total = self._squares - float((np.asarray(self._sum) ** 2).sum()) / self._n
        if total <= 0:
            raise QueryError("the stream is the same at every token read: no variance to explain")
        return 1 - self._errors[name] / total


@dataclass(frozen=True)
class Transition:
    """T of one pair of residual dictionaries."""

    pair: Source
    source: Reader
    target: Reader
    chosen: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by method: later, earlier feature, weight
    frozen: Frozen | None

    @classmethod
    def of(
        cls, pair: Source, readers: Mapping[str, Reader], direction: str, seed: int, permutation: bool, frozen: bool
    ) -> Transition:
        """By the best match of each target, or of each source; `permutation`: by one-to-one partners too.

        `frozen`: by matches with random rows too.
        """
        b, a, similarity = pair.firsts(direction)
        alive = np.flatnonzero(readers[pair.later.id].rows.alive)
        dealt = np.random.default_rng([seed, pair.later.depth]).permutation(alive)
        names = np.full(pair.later.d_sae, -1)
        names[alive] = dealt
        ones = np.ones(len(b))
        chosen = {"top1": (b, a, ones), "weighted": (b, a, similarity), "shuffled": (names[b], a, ones)}
        if permutation:
            partners = pair.permuted
            given = np.flatnonzero(partners >= 0)
            chosen["permutation"] = (given, partners[given], np.ones(len(given)))
        random = Frozen.of(pair, readers[pair.earlier.id], seed) if frozen else None
        if random is not None:
            chosen["frozen"] = random.firsts(direction)
        return cls(pair, readers[pair.earlier.id], readers[pair.later.id], chosen, random)

    def predictions(self, before: torch.Tensor, after: torch.Tensor) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """x̂ `[n, d_model]` by method, from the stream where either dictionary reads it; active features of each."""
        values, reach = self.source.encoder(before)
        z = values * reach
        own, reach = self.target.encoder(after)
        # Once for all methods, and not kept: the rows of every pair together may not fit in memory.
        rows = self.target.rows
        unit, bias = (torch.from_numpy(np.array(each)).to(z) for each in (rows.decoder, rows.vectors["b_dec"]))
        predicted = {"skip": before, "ceiling": own * reach @ unit + bias}
        for method, (b, a, weight) in self.chosen.items():
            later, earlier = (torch.from_numpy(each).to(z.device) for each in (b, a))
            giving = z
            if method == "frozen" and self.frozen is not None:
                giving = self.frozen.lengths(before, (z > 0).sum(dim=1))
            given = giving[:, earlier] * torch.from_numpy(weight).to(z)
            predicted[method] = torch.zeros_like(own).index_add(1, later, given) @ unit + bias
        return predicted, (int((z > 0).sum()), int((own > 0).sum()))


def map_rows(
    atlas: Atlas,
    texts: Sequence[Path],
    *,
    tokens: int = TOKENS,
    seed: int = 0,
    set_name: str | None = None,
    direction: str = "target",
    permutation: bool = False,
    frozen: bool = False,
    model: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    l0: dict[str, float] | None = None,
) -> Rows:
    """A row for each neighbouring pair of residual dictionaries and each of METHODS.

    Args:
        texts: files; contexts of them are drawn by `seed`, `tokens` tokens in all (0: all).
        direction: target or source, see above.
        permutation: also by a one-to-one matching of all features; about a second for 2,048, minutes for 16,384.
        frozen: also from random rows that nobody trained, as many active at a token as of the earlier dictionary's.
        set_name: of several dictionaries at one place those of this set (`of_set`); None: all together.
        model: name or folder; None: the one that the dictionaries name.
        device: auto, cpu or cuda:N.
        l0: is filled with the active features a token of each dictionary, which explained variance is to be read with.

    Raises QueryError where the atlas has no such pair, IngestError for a text, ModelError for the model.

    Example:
        rows = map_rows(atlas, [Path("wiki.txt")], tokens=2_000)
        best = max(rows, key=lambda row: row["explained_variance"])
    """
    from hooked.load import load_model
    from hooked.reading import read

    progress = progress or Progress(quiet=True)
    records = {
        id_: d for id_, d in of_set(runnable(atlas.dictionaries), set_name).items() if d.site == RES and _plain(d)
    }
    pairs = [pair for pair in sources(atlas) if {pair.later.id, pair.earlier.id} <= records.keys()]
    pairs = [pair for pair in pairs if pair.later.prepend_bos == pair.earlier.prepend_bos]
    if not pairs:
        raise QueryError(
            "the atlas has no two neighbouring residual dictionaries whose reconstructions can be compared"
        )
    loaded, tokenizer = load_model(model or next(iter(records.values())).model_name, device=device)
    sample = draw(texts, tokenizer, tokens, seed)
    readers = readers_of(atlas, records, loaded)
    found = {
        pair.key: (Transition.of(pair, readers, direction, seed, permutation, frozen), Variance()) for pair in pairs
    }
    active, tokens_read = Counter[str](), Counter[str]()
    with torch.inference_mode():
        for start, group in starts(tokenizer, records).items():
            own = [each for each in found.values() if each[0].pair.later.id in group]
            if own:
                with progress.steps("activations", len(sample.tokens), "tokens") as advance:
                    for part in read(loaded, start, group, sample.tokens, BATCH):
                        for transition, variance in own:
                            _add(part, transition, variance, active, tokens_read)
                        advance(int((part.numbers >= 0).sum()))
    if l0 is not None:
        # A dictionary in the middle was counted in both its pairs, each time at the same tokens.
        l0.update({id_: count / tokens_read[id_] for id_, count in active.items()})
    return Rows(
        dict(zip(COLUMNS, (t.pair.earlier.id, t.pair.later.id, method, value), strict=True))
        for t, variance in found.values()
        for method in METHODS
        if method in ("mean", "skip", "ceiling") or method in t.chosen
        for value in [0.0 if method == "mean" else variance.explained(method)]
    )


def _add(
    part: Batch, transition: Transition, variance: Variance, active: Counter[str], tokens_read: Counter[str]
) -> None:
    """Take in a batch; active features and tokens are counted by dictionary."""
    counted = part.counted()
    before, after = (part.hidden[d.id][counted].float() for d in (transition.pair.earlier, transition.pair.later))
    if transition.pair.later.centred_input:
        before, after = (each - each.mean(dim=-1, keepdim=True) for each in (before, after))
    predicted, counts = transition.predictions(before, after)
    variance.add(after, predicted)
    for d, count in zip((transition.pair.earlier, transition.pair.later), counts, strict=True):
        active[d.id] += count
        tokens_read[d.id] += len(after)


def _plain(record: Dictionary) -> bool:
    """Whether a dictionary rebuilds what it reads as Σ rows + b_dec; those that do not are said."""
    reason = None
    if record.hook_name_in != record.hook_name:
        reason = "it reads another place than it writes to"
    elif record.normalize_activations != "none":
        reason = f"it scales what it reads by token ({record.normalize_activations})"
    if reason:
        _log.warning("%s is left out of the map: %s", record.id, reason)
    return reason is None

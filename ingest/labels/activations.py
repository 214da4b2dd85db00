"""What features fire on: the model run once over a text, every dictionary read in the same pass.

1. The text is read in contexts (hooked.reading); the start token's position and attention sinks are left out.
2. One matrix product a dictionary and batch gives all activations.
3. Running figures a feature: how often it is how active, its best contexts (one position of each) and what it does
   around the first of them. Memory is bounded by features × kept contexts, whatever the text's length.
4. Positions become words and passages of the text through the tokenizer's offsets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.cli.progress import Progress
from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary
from atlas.folder.rows_cache import open_rows
from hooked.text import Text, read_text, start_token

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from hooked.reading import Batch

KEPT = 20  # best contexts kept a feature: their words become fires_on
SHOWN = 5  # of which so many are stored as passages
AROUND = 16  # tokens on each side whose activations are kept with a passage; it has 60 characters there
BINS = 32  # of a histogram
WORDS = 8
_log = logging.getLogger(__name__)


class Figures:
    """Running figures of one dictionary's features."""

    def __init__(self, size: int) -> None:
        self.seen = 0  # positions measured
        self.sinks = 0  # positions left out as attention sinks
        self.values = np.zeros((size, KEPT), dtype=np.float32)  # best activations, descending
        self.positions = np.full((size, KEPT), -1, dtype=np.int64)  # token numbers in the text
        # Activations at the tokens before and after the first positions; NaN where there is none in the context.
        self.around = np.full((size, SHOWN, 2 * AROUND + 1), np.nan, dtype=np.float32)
        self.counts = np.zeros((size, BINS), dtype=np.uint32)  # positions by activation, in bins of `width`

    @property
    def width(self) -> np.ndarray:
        """float64 [n_features]: of a histogram's bin, a power of two: the next above the largest activation, by BINS.

        So that when an activation exceeds all before, old bins are joined exactly; half of them or more are in use.
        """
        return np.ldexp(1.0 / BINS, np.frexp(self.values[:, 0])[1])

    def add(self, activations: torch.Tensor, part: Batch, layer: int) -> None:
        """Take in the activations `[contexts, positions, d_sae]` at a batch of a dictionary of that layer."""
        numbers, counted = part.numbers, part.counted(layer).to(activations.device)
        self.seen += int(counted.sum())
        self.sinks += int(part.sinks[layer].sum())
        activations = (activations * counted[:, :, None]).float()
        # One position of each context, or a single passage could fill a feature's list.
        best, where = activations.max(dim=1)  # [contexts, d_sae]
        columns = where.cpu().numpy()
        values = np.concatenate([self.values, best.cpu().numpy().T], axis=1)
        tokens = np.take_along_axis(numbers, columns, axis=1).T
        positions = np.concatenate([self.positions, tokens], axis=1)
        # Stable, so that of equal activations the earlier position stays.
        order = np.argsort(-values, axis=1, kind="stable")[:, :KEPT]
        width = self.width
        self.values = np.take_along_axis(values, order, axis=1)
        self.positions = np.take_along_axis(positions, order, axis=1)
        self._count(activations, width)
        self._look_around(activations, counted, order[:, :SHOWN], columns)

    def _count(self, activations: torch.Tensor, before: np.ndarray) -> None:
        """Take activations into the histograms, whose bins had the width `before`."""
        width = self.width
        wider = np.flatnonzero(width != before)
        if len(wider):
            joined = np.maximum(1, np.rint(width[wider] / before[wider])).astype(np.int64)
            cell = np.arange(len(wider))[:, None] * BINS + np.arange(BINS) // joined[:, None]
            counts = np.bincount(cell.ravel(), self.counts[wider].ravel(), len(wider) * BINS)
            self.counts[wider] = counts.reshape(-1, BINS)
        active = (activations > 0).nonzero(as_tuple=True)
        values, feature = activations[active].cpu().numpy(), active[2].cpu().numpy()
        bins = np.minimum(values / width[feature], BINS - 1).astype(np.int64)
        cells = np.bincount(feature * BINS + bins, minlength=self.counts.size)
        self.counts += cells.reshape(self.counts.shape).astype(np.uint32)

    def _look_around(
        self, activations: torch.Tensor, counted: torch.Tensor, order: np.ndarray, columns: np.ndarray
    ) -> None:
        """Keep what is around the first positions: `order` says which of the old ones or of this batch's they are now.

        columns: int64 [contexts, n_features], the position of each context that is the batch's.
        """
        import torch

        changed = np.flatnonzero((order != np.arange(SHOWN)).any(axis=1))
        order = order[changed]
        around = np.take_along_axis(self.around[changed], np.minimum(order, SHOWN - 1)[:, :, None], axis=1)
        row, place = np.nonzero(order >= KEPT)
        context, feature = order[row, place] - KEPT, changed[row]
        column = columns[context, feature][:, None] + np.arange(-AROUND, AROUND + 1)
        inside = (column >= 0) & (column < activations.shape[1])
        at = torch.from_numpy(context)[:, None], torch.from_numpy(np.where(inside, column, 0))
        values = activations[(*at, torch.from_numpy(feature)[:, None])].cpu().numpy()
        inside &= counted[at].cpu().numpy()
        around[row, place] = np.where(inside, values, np.nan)
        self.around[changed] = around


def columns_from_text(
    folder: Path,
    records: dict[str, Dictionary],
    model_name: str,
    texts: Sequence[Path],
    tokens: int,
    batch: int,
    device: str,
    progress: Progress,
) -> tuple[Iterator[tuple[str, dict[str, pa.Array]]], dict[str, int]]:
    """Columns frequency, max_activation, fires_on and MEASURED of each dictionary, from one run over the texts.

    They are made one dictionary after the other, as they are taken: passages take more memory than all figures.

    Beside them how many positions were measured (`tokens`) and left out as attention sinks (`sinks`, where most were).

    Raises IngestError where the text is too short, ModelError where the model cannot be loaded or hooked.
    """
    from hooked.encoder import not_run
    from hooked.load import load_model

    reasons = {id_: reason for id_, d in records.items() if (reason := not_run(d)) is not None}
    for reason in reasons.values():
        _log.warning("%s; it gets no labels from a text", reason)
    if reasons and len(reasons) == len(records):
        raise IngestError(f"no dictionary can be labelled from a text: {next(iter(reasons.values()))}")
    records = {id_: d for id_, d in records.items() if id_ not in reasons}
    with progress.waiting(f"loading {model_name}"):
        model, tokenizer = load_model(model_name, device=device)
    text = read_text(texts, tokenizer, tokens)
    found: dict[str, Figures] = {}
    # A pass for each kind: a start token changes what every later position holds.
    for prepended in (True, False):
        group = {id_: d for id_, d in records.items() if d.prepend_bos == prepended}
        if group:
            start = start_token(tokenizer) if prepended else None
            found |= measure(model, start, folder, group, text, batch, progress)
    sinks = max(figures.sinks for figures in found.values())
    if sinks:
        _log.warning("%d of %d positions are attention sinks and were left out of labels", sinks, len(text.ids))
    columns = ((id_, _columns(found.pop(id_), text)) for id_ in records)
    return columns, {"tokens": len(text.ids), "sinks": sinks}


def measure(
    model: Any,
    start: int | None,
    folder: Path,
    records: dict[str, Dictionary],
    text: Text,
    batch: int,
    progress: Progress,
) -> dict[str, Figures]:
    """Run the model over the text once, its contexts behind the token `start` if any; figures of every dictionary."""
    import torch

    from hooked.encoder import Encoder
    from hooked.reading import read

    encoders = {id_: Encoder.of(d, open_rows(folder, d)).to(model.device) for id_, d in records.items()}
    figures = {id_: Figures(d.d_sae) for id_, d in records.items()}
    with progress.steps("activations", len(text.ids), "tokens") as step, torch.inference_mode():
        for part in read(model, start, records, text.ids, batch):
            for id_, encoder in encoders.items():
                figures[id_].add(encoder(part.hidden[id_]).values, part, records[id_].layer)
            step(int((part.numbers >= 0).sum()))
    return figures


def _columns(figures: Figures, text: Text) -> dict[str, pa.Array]:
    import pyarrow as pa

    positions = np.where(figures.values > 0, figures.positions, -1)
    return {
        "frequency": pa.array(figures.counts.sum(axis=1) / max(1, figures.seen)),
        "max_activation": pa.array(figures.values[:, 0].astype(np.float64)),
        "fires_on": _fires_on(figures.values, positions, text),
        "histogram": _histograms(figures),
        **_contexts(positions[:, :SHOWN], figures.around, text),
    }


def _histograms(figures: Figures) -> pa.Array:
    """struct<width, counts: list<int64>> [n_features], counts up to the last bin that is not empty; null for none."""
    import pyarrow as pa

    feature, bins = np.nonzero(np.flip(np.flip(figures.counts, 1).cumsum(1), 1))  # all up to the last
    counts = _lists(feature, pa.array(figures.counts[feature, bins]), len(figures.counts), BINS)
    return pa.StructArray.from_arrays(
        [pa.array(figures.width), counts], ["width", "counts"], mask=pa.array(~figures.counts.any(axis=1))
    )


def _fires_on(values: np.ndarray, positions: np.ndarray, text: Text) -> pa.Array:
    """list<string> [n_features]: the words at the kept positions, those with most activation first; null for none."""
    import pyarrow as pa

    rows, columns = np.nonzero(positions >= 0)
    spellings = np.array([text.text[a:b].strip() for a, b in text.words[positions[rows, columns]]], dtype=object)
    told = spellings != ""
    rows, columns, spellings = rows[told], columns[told], spellings[told]
    lower = np.array([word.lower() for word in spellings], dtype=str)
    # One entry for each feature and word, whatever its case, weighted by the sum of its activations.
    names, word = np.unique(lower, return_inverse=True)
    entries, first, entry = np.unique(rows * max(len(names), 1) + word, return_index=True, return_inverse=True)
    weight = np.bincount(entry, weights=values[rows, columns], minlength=len(entries))
    owner = entries // max(len(names), 1)
    order = np.lexsort((-weight, owner))
    return _lists(owner[order], pa.array(spellings[first[order]], pa.string()), len(values), WORDS)


def _contexts(positions: np.ndarray, around: np.ndarray, text: Text) -> dict[str, pa.Array]:
    """Passages around the kept positions `[n_features, SHOWN]`, best first, and what the feature does in them.

    contexts: list<string>; traces: list<struct<ends: list<int32>, activations: list<float>>>, of each passage where its
    tokens end and the activation there (null where it was not kept). Null for none.
    """
    import pyarrow as pa

    owner, column = np.nonzero(positions >= 0)
    tokens, passage = np.unique(positions[owner, column], return_inverse=True)
    # Each passage is made once: many features fire at the same token.
    made = text.passages(tokens)
    counts = made.counts[passage]
    starts = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(starts, counts)
    entry = np.repeat((np.cumsum(made.counts) - made.counts)[passage], counts) + within  # of made.ends and made.tokens
    place = made.tokens[entry] - np.repeat(tokens[passage], counts) + AROUND
    kept = (place >= 0) & (place < around.shape[2])
    rows = np.repeat(owner, counts), np.repeat(column, counts), np.where(kept, place, 0)
    values = np.where(kept, around[rows], np.nan)
    # Parts of one character are one token here, with the largest of their activations.
    ends = made.ends[entry]
    new = np.append(True, ends[1:] != ends[:-1]) | (within == 0)
    first = np.flatnonzero(new)
    values = np.fmax.reduceat(values, first) if len(first) else values
    offsets = np.append(0, np.cumsum(new))[np.append(starts, len(new))].astype(np.int32)
    activations = pa.array(values, pa.float32(), mask=np.isnan(values))
    lists = [pa.ListArray.from_arrays(pa.array(offsets), each) for each in (pa.array(ends[first]), activations)]
    traces = pa.StructArray.from_arrays(lists, ["ends", "activations"])
    texts = pa.array(made.texts, pa.string()).take(pa.array(passage))
    columns = {"contexts": texts, "traces": traces}
    return {name: _lists(owner, each, len(positions), SHOWN) for name, each in columns.items()}


def _lists(owner: np.ndarray, values: pa.Array, size: int, most: int) -> pa.Array:
    """Values grouped into lists by their ascending owner, the first `most` of each; null where there are none."""
    import pyarrow as pa

    # Owners ascend, so each has one run of values, and a place in it is an index less the run's start.
    starts = np.searchsorted(owner, np.arange(size))
    kept = np.arange(len(owner)) - starts[owner] < most
    counts = np.bincount(owner[kept], minlength=size)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.filter(pa.array(kept)), mask=pa.array(counts == 0))

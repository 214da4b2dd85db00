"""What features fire on: the model run once over a text, every dictionary read in the same pass.

1. The text is read in contexts (hooked.reading); the start token's position and attention sinks are left out.
2. One matrix product a dictionary and batch gives all activations.
3. Running figures a feature: positions at which it is active, its largest activation, its best contexts (one position
   of each). Memory is bounded by features × kept contexts, whatever the text's length.
4. Positions become words and passages of the text through the tokenizer's offsets.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
WORDS = 8
_log = logging.getLogger(__name__)


class Figures:
    """Running figures of one dictionary's features."""

    def __init__(self, size: int) -> None:
        self.fires = np.zeros(size, dtype=np.int64)
        self.seen = 0  # positions measured
        self.sinks = 0  # positions left out as attention sinks
        self.values = np.zeros((size, KEPT), dtype=np.float32)  # best activations, descending
        self.positions = np.full((size, KEPT), -1, dtype=np.int64)  # token numbers in the text

    def add(self, activations: torch.Tensor, part: Batch, layer: int) -> None:
        """Take in the activations `[contexts, positions, d_sae]` at a batch of a dictionary of that layer."""
        numbers, counted = part.numbers, part.counted(layer).to(activations.device)
        self.seen += int(counted.sum())
        self.sinks += int(part.sinks[layer].sum())
        activations = activations * counted[:, :, None]
        self.fires += (activations > 0).sum(dim=(0, 1)).cpu().numpy()
        # One position of each context, or a single passage could fill a feature's list.
        best, where = activations.max(dim=1)  # [contexts, d_sae]
        values = np.concatenate([self.values, best.float().cpu().numpy().T], axis=1)
        tokens = np.take_along_axis(numbers, where.cpu().numpy(), axis=1).T
        positions = np.concatenate([self.positions, tokens], axis=1)
        # Stable, so that of equal activations the earlier position stays.
        order = np.argsort(-values, axis=1, kind="stable")[:, :KEPT]
        self.values = np.take_along_axis(values, order, axis=1)
        self.positions = np.take_along_axis(positions, order, axis=1)


def columns_from_text(
    folder: Path,
    records: dict[str, Dictionary],
    model_name: str,
    texts: Sequence[Path],
    tokens: int,
    batch: int,
    device: str,
    progress: Progress,
) -> tuple[dict[str, dict[str, pa.Array]], dict[str, int]]:
    """Columns frequency, max_activation, fires_on and contexts of each dictionary, from one run over the texts.

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
    return {id_: _columns(found[id_], text) for id_ in records}, {"tokens": len(text.ids), "sinks": sinks}


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

    active = figures.values > 0
    return {
        "frequency": pa.array(figures.fires / max(1, figures.seen)),
        "max_activation": pa.array(figures.values[:, 0].astype(np.float64)),
        "fires_on": _fires_on(figures.values, np.where(active, figures.positions, -1), text),
        "contexts": _contexts(np.where(active, figures.positions, -1)[:, :SHOWN], text),
    }


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


def _contexts(positions: np.ndarray, text: Text) -> pa.Array:
    """list<string> [n_features]: passages around the kept positions, best first; null for none."""
    import pyarrow as pa

    owner, column = np.nonzero(positions >= 0)
    tokens, passage = np.unique(positions[owner, column], return_inverse=True)
    # Each passage is made once: many features fire at the same token.
    passages = pa.array([text.passage(int(token)) for token in tokens], pa.string())
    return _lists(owner, passages.take(pa.array(passage)), len(positions), SHOWN)


def _lists(owner: np.ndarray, values: pa.Array, size: int, most: int) -> pa.Array:
    """Values grouped into lists by their ascending owner, the first `most` of each; null where there are none."""
    import pyarrow as pa

    # Owners ascend, so each has one run of values, and a place in it is an index less the run's start.
    starts = np.searchsorted(owner, np.arange(size))
    kept = np.arange(len(owner)) - starts[owner] < most
    counts = np.bincount(owner[kept], minlength=size)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.filter(pa.array(kept)), mask=pa.array(counts == 0))

"""What features fire on: the model run once over a text, every dictionary read in the same pass.

1. The text becomes contexts of 255 tokens behind one start token; the start token's position is left out.
2. Hooks keep what each encoder reads, and the pass ends after the last block that one reads; one matrix product a
   dictionary and batch gives all activations.
3. Running figures a feature: positions at which it is active, its largest activation, its best contexts (one position
   of each). Memory is bounded by features × kept contexts, whatever the text's length.
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
from hooked.hook_names import place_of
from ingest.labels.text import Text, read_text, start_token

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

CONTEXT = 256  # tokens of a context, the start token included
KEPT = 20  # best contexts kept a feature: their words become fires_on
SHOWN = 5  # of which so many are stored as passages
WORDS = 8
_log = logging.getLogger(__name__)


class Figures:
    """Running figures of one dictionary's features."""

    def __init__(self, size: int) -> None:
        self.fires = np.zeros(size, dtype=np.int64)
        self.values = np.zeros((size, KEPT), dtype=np.float32)  # best activations, descending
        self.positions = np.full((size, KEPT), -1, dtype=np.int64)  # token numbers in the text

    def add(self, activations: torch.Tensor, numbers: np.ndarray) -> None:
        """Take in a batch: activations [contexts, positions, d_sae], numbers [contexts, positions] (−1: padding)."""
        real = activations.new_tensor(numbers >= 0).bool()
        activations = activations * real[:, :, None]
        self.fires += (activations > 0).sum(dim=(0, 1)).cpu().numpy()
        best, where = activations.max(dim=1)  # [contexts, d_sae]
        values = np.concatenate([self.values, best.float().cpu().numpy().T], axis=1)
        tokens = np.take_along_axis(numbers, where.cpu().numpy(), axis=1).T
        positions = np.concatenate([self.positions, tokens], axis=1)
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
) -> dict[str, dict[str, pa.Array]]:
    """Columns frequency, max_activation, fires_on and contexts of each dictionary, from one run over the texts.

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
    model, tokenizer = load_model(model_name, device=device)
    text = read_text(texts, tokenizer, tokens)
    figures = measure(model, start_token(tokenizer), folder, records, text, batch, progress)
    return {id_: _columns(found, text) for id_, found in figures.items()}


def measure(
    model: Any,
    start: int,
    folder: Path,
    records: dict[str, Dictionary],
    text: Text,
    batch: int,
    progress: Progress,
) -> dict[str, Figures]:
    """Run the model over the text once; figures of every dictionary."""
    import torch

    from hooked.capture import captured, run_until
    from hooked.encoder import Encoder
    from hooked.hookpoints import blocks_path, read_point

    encoders = {id_: Encoder.of(d, open_rows(folder, d)).to(model.device) for id_, d in records.items()}
    points = {id_: read_point(model, d) for id_, d in records.items()}
    last = max(place_of(d.hook_name_in).layer for d in records.values())
    block = model.get_submodule(f"{blocks_path(model)}.{last}")
    figures = {id_: Figures(d.d_sae) for id_, d in records.items()}
    with progress.steps("activations", len(text.ids), "tokens") as step, torch.inference_mode():
        for ids, numbers in _batches(text.ids, start, batch):
            with captured(points) as seen:
                mask = torch.from_numpy(numbers >= 0)
                mask[:, 0] = True
                run_until(
                    model,
                    block,
                    input_ids=torch.from_numpy(ids).to(model.device),
                    attention_mask=mask.long().to(model.device),
                    use_cache=False,
                )
            for id_, encoder in encoders.items():
                figures[id_].add(encoder(seen[id_][:, 1:]).values, numbers[:, 1:])
            step(int((numbers >= 0).sum()))
    return figures


def _batches(tokens: np.ndarray, start: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids and token numbers, each [contexts, CONTEXT]; number −1 at the start token and at padding."""
    width = CONTEXT - 1
    for first in range(0, len(tokens), width * batch):
        part = tokens[first : first + width * batch]
        rows = -(-len(part) // width)
        ids = np.full((rows, CONTEXT), start, dtype=np.int64)
        numbers = np.full((rows, CONTEXT), -1, dtype=np.int64)
        row, column = np.divmod(np.arange(len(part)), width)
        ids[row, column + 1] = part
        numbers[row, column + 1] = first + np.arange(len(part))
        yield ids, numbers


def _columns(figures: Figures, text: Text) -> dict[str, pa.Array]:
    import pyarrow as pa

    active = figures.values > 0
    return {
        "frequency": pa.array(figures.fires / len(text.ids)),
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
    passages = pa.array([text.passage(int(token)) for token in tokens], pa.string())
    return _lists(owner, passages.take(pa.array(passage)), len(positions), SHOWN)


def _lists(owner: np.ndarray, values: pa.Array, size: int, most: int) -> pa.Array:
    """Values grouped into lists by their ascending owner, the first `most` of each; null where there are none."""
    import pyarrow as pa

    starts = np.searchsorted(owner, np.arange(size))
    kept = np.arange(len(owner)) - starts[owner] < most
    counts = np.bincount(owner[kept], minlength=size)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.filter(pa.array(kept)), mask=pa.array(counts == 0))

"""What features fire on: the model run once over a text, every dictionary read in the same pass.

1. The text becomes contexts of 255 tokens behind one start token; the start token's position is left out.
2. Hooks keep what each encoder reads; one matrix product a dictionary and batch gives all activations.
3. Running figures a feature: positions at which it is active, its largest activation, its best contexts (one position of
   each). Memory is bounded by features × kept contexts, whatever the text's length.
4. Positions become words and passages of the text through the tokenizer's offsets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.atlas import dictionary_folder
from atlas.dictionary import Dictionary, Rows
from atlas.errors import IngestError
from ingest.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

CONTEXT = 256  # tokens of a context, the start token included
KEPT = 20  # best contexts kept a feature: their words become fires_on
SHOWN = 5  # of which so many are stored as passages
WORDS = 8
_AROUND = 60  # characters on each side of the word in a passage


@dataclass(frozen=True)
class Text:
    """A tokenised text."""

    text: str
    ids: np.ndarray  # int64 [n_tokens]
    starts: np.ndarray  # int64 [n_tokens], offset of each token's first character
    ends: np.ndarray  # int64 [n_tokens]


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
    from hooked.load import load_model

    model, tokenizer = load_model(model_name, device=device)
    text = read_text(texts, tokenizer, tokens)
    figures = measure(model, _start_token(tokenizer), folder, records, text, batch, progress)
    return {id_: _columns(found, text) for id_, found in figures.items()}


def read_text(paths: Sequence[Path], tokenizer: Any, tokens: int = 0) -> Text:
    """Tokenise files one after the other, the first `tokens` of them (0: all); raises IngestError."""
    try:
        text = "\n\n".join(path.read_text(encoding="utf-8") for path in paths)
    except (OSError, UnicodeDecodeError) as error:
        raise IngestError(f"the text cannot be read as UTF-8 ({error})") from None
    if not getattr(tokenizer, "is_fast", False):
        raise IngestError(f"{type(tokenizer).__name__} gives no offsets into the text; a fast tokenizer is needed")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = np.asarray(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    ids = np.asarray(found["input_ids"], dtype=np.int64)
    stop = tokens or len(ids)
    if len(ids) < 2:
        raise IngestError(f"{', '.join(map(str, paths))}: no text to measure activations on")
    return Text(text, ids[:stop], offsets[:stop, 0], offsets[:stop, 1])


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

    from hooked.capture import captured
    from hooked.encoder import Encoder
    from hooked.hookpoints import read_point

    encoders = {
        id_: Encoder.of(d, Rows.open(dictionary_folder(folder, id_), d)).to(model.device) for id_, d in records.items()
    }
    points = {id_: read_point(model, d) for id_, d in records.items()}
    figures = {id_: Figures(d.d_sae) for id_, d in records.items()}
    with progress.steps("activations", len(text.ids), "tokens") as step, torch.inference_mode():
        for ids, numbers in _batches(text.ids, start, batch):
            with captured(points) as seen:
                mask = torch.from_numpy(numbers >= 0)
                mask[:, 0] = True
                model(
                    input_ids=torch.from_numpy(ids).to(model.device),
                    attention_mask=mask.long().to(model.device),
                    use_cache=False,
                    logits_to_keep=1,
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


def _start_token(tokenizer: Any) -> int:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise IngestError("the tokenizer has neither a start nor an end token to begin contexts with")
    return int(start)


def _columns(figures: Figures, text: Text) -> dict[str, pa.Array]:
    import pyarrow as pa

    words, contexts = [], []
    for values, positions in zip(figures.values, figures.positions, strict=True):
        active = positions[values > 0]
        words.append(_words(text, active, values[values > 0]) or None)
        contexts.append([_passage(text, int(p)) for p in active[:SHOWN]] or None)
    frequency = figures.fires / len(text.ids)
    return {
        "frequency": pa.array(frequency),
        "max_activation": pa.array(figures.values[:, 0].astype(np.float64)),
        "fires_on": pa.array(words, pa.list_(pa.string())),
        "contexts": pa.array(contexts, pa.list_(pa.string())),
    }


def _word(text: Text, position: int) -> tuple[int, int]:
    """The whole word around a token: offsets into the text."""
    start, end = int(text.starts[position]), int(text.ends[position])
    while start < end and text.text[start].isspace():
        start += 1
    if start < end and re.match(r"\w", text.text[start]):
        while start > 0 and re.match(r"[\w'’-]", text.text[start - 1]):
            start -= 1
        while end < len(text.text) and re.match(r"[\w'’-]", text.text[end]):
            end += 1
    return start, end


def _words(text: Text, positions: np.ndarray, values: np.ndarray) -> list[str]:
    """The words at these positions, those with most activation first; one spelling of each."""
    weight: dict[str, float] = {}
    spelling: dict[str, str] = {}
    for position, value in zip(positions, values, strict=True):
        start, end = _word(text, int(position))
        word = text.text[start:end]
        if word:
            spelling.setdefault(word.lower(), word)
            weight[word.lower()] = weight.get(word.lower(), 0.0) + float(value)
    return [spelling[word] for word in sorted(weight, key=lambda w: -weight[w])[:WORDS]]


def _passage(text: Text, position: int) -> str:
    """The text around a position on one line, the word between «»."""
    start, end = _word(text, position)
    before = text.text[max(0, start - _AROUND) : start]
    after = text.text[end : end + _AROUND]
    return " ".join(f"{before}«{text.text[start:end]}»{after}".split())

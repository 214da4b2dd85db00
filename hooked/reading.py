"""A text read by a model, batch by batch: what every dictionary's encoder sees there, and which positions count.

1. The text becomes contexts of 255 tokens behind one start token, whose position is left out; contexts without one for
   dictionaries that were trained so (prepend_bos).
2. Hooks keep what each encoder reads, and the pass ends after the last block that one reads.
3. Attention sinks are told apart: positions at which the stream after a block is SINK times as long as at the median
   one of their context. What fires there says nothing of the words there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.folder.dictionary import Dictionary
from hooked.capture import captured, run_until
from hooked.hook_names import Place, place_of
from hooked.hookpoints import blocks_path, read_point, resolve

if TYPE_CHECKING:
    from hooked.hookpoints import HookPoint

CONTEXT = 256  # tokens of a context, the start token included
SINK = 10.0  # times the median length of the stream; SmolLM2's first position has 180 times it from layer 11 on


@dataclass(frozen=True)
class Batch:
    """Contexts that went through the model together, without the start token's column."""

    numbers: np.ndarray  # int64 [contexts, positions], of the text's tokens, −1 at padding
    hidden: Mapping[str, torch.Tensor]  # by dictionary id, [contexts, positions, d_in]: what its encoder reads
    sinks: Mapping[int, torch.Tensor]  # by layer, bool [contexts, positions]: attention sinks in the stream after it

    def counted(self, layer: int | None = None) -> torch.Tensor:
        """bool [contexts, positions]: tokens of the text that are no sinks, after the layer or (None) after any."""
        layers = self.sinks if layer is None else (layer,)
        real = torch.from_numpy(self.numbers >= 0).to(self.sinks[next(iter(layers))].device)
        for each in layers:
            real = real & ~self.sinks[each]
        return real


def read(
    model: Any,
    start: int | None,
    records: Mapping[str, Dictionary],
    tokens: np.ndarray,
    batch: int,
    first: int = 0,
) -> Iterator[Batch]:
    """Run the model over a text once; a Batch for every `batch` contexts.

    Args:
        start: the token before every context; None: none.
        records: the dictionaries whose encoders' inputs are kept, by id.
        tokens: int64 [n_tokens], the text's.
        first: number of the first context to read; those before it are passed over.

    Example:
        for part in read(model, start_token(tokenizer), atlas.dictionaries, text.ids, batch=8):
            print(part.numbers.max(), part.hidden.keys())

    Raises ModelError where the model cannot be hooked.
    """
    points: dict[Any, HookPoint] = {id_: read_point(model, d) for id_, d in records.items()}
    # The stream after each layer, or before the first block, says which positions are sinks.
    layers = {d.layer for d in records.values()}
    points |= {layer: resolve(model, stream_after(layer)) for layer in layers}
    last = max(layers | {place_of(d.hook_name_in).layer for d in records.values()})
    block = model.get_submodule(f"{blocks_path(model)}.{last}")
    column = 0 if start is None else 1  # of the text's first token
    for ids, numbers in contexts(tokens, start, batch, first):
        with torch.inference_mode(), captured(points) as seen:
            mask = torch.from_numpy(numbers >= 0)
            # The start token has no number in the text, and must be attended to all the same.
            mask[:, :column] = True
            run_until(
                model,
                block,
                input_ids=torch.from_numpy(ids).to(model.device),
                attention_mask=mask.long().to(model.device),
                # No further token follows, so keys and values would be kept for nothing.
                use_cache=False,
            )
            part = Batch(
                numbers[:, column:],
                {id_: seen[id_][:, column:] for id_ in records},
                {layer: sinks(seen[layer][:, column:], mask[:, column:]) for layer in layers},
            )
        # Outside: what the caller does with it is its own affair, not in inference mode unless it says so.
        yield part


def contexts(
    tokens: np.ndarray, start: int | None, batch: int, first: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Token ids and token numbers, each [contexts, columns]; number −1 at the start token, if any, and at padding."""
    width, column = CONTEXT - 1, 0 if start is None else 1
    for begin in range(first * width, len(tokens), width * batch):
        part = tokens[begin : begin + width * batch]
        rows = -(-len(part) // width)
        ids = np.full((rows, width + column), start or 0, dtype=np.int64)
        numbers = np.full((rows, width + column), -1, dtype=np.int64)
        row, place = np.divmod(np.arange(len(part)), width)
        ids[row, place + column] = part
        numbers[row, place + column] = begin + np.arange(len(part))
        yield ids, numbers


def sinks(stream: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """bool [contexts, positions]: where the stream `[contexts, positions, d_model]` is SINK times its median length.

    real: bool [contexts, positions], the positions that are no padding.
    """
    lengths = stream.float().norm(dim=-1)
    real = real.to(lengths.device)
    # The median: a mean would be moved by the very positions that are looked for. Of the context alone, so that what
    # else is in the batch changes nothing.
    medians = lengths.masked_fill(~real, float("nan")).nanmedian(dim=-1, keepdim=True).values
    found: torch.Tensor = real & (lengths > SINK * medians)
    return found


def stream_after(layer: int) -> Place:
    """The stream after a layer's block; before the first one for layer −1."""
    return place_of(f"blocks.{max(layer, 0)}.{'hook_resid_pre' if layer < 0 else 'hook_resid_post'}")

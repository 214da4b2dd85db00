"""A short text read once by a model: the hidden states that dictionaries read and write, at each of its tokens.

1. The text's tokens, behind a start token where the dictionary was trained behind one (`prepend_bos`); a pass of the
   model for each of the two kinds that there is.
2. Hooks keep what is asked for; the pass ends after the last block that is.
3. Positions count from the text's first token, whatever stands before it. Attention sinks are found as for labels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from atlas.errors import ModelError, QueryError
from hooked.capture import captured, run_until
from hooked.hook_names import place_of
from hooked.hookpoints import HookPoint, blocks_path, learned_positions, read_point, resolve
from hooked.load import input_device, load_model
from hooked.reading import sinks, stream_after
from hooked.text import start_token

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from atlas.folder.dictionary import Dictionary

Points = Mapping[Any, HookPoint]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """A text as the model is given it."""

    ids: torch.Tensor  # int64 [1, columns], the start token included
    first: int  # column of the text's first token: 1 behind a start token, else 0
    texts: tuple[str, ...]  # each token of the text as a person reads it

    @classmethod
    def of(cls, model: Any, tokenizer: Any, text: str, *, prepended: bool) -> Tokens:
        """Tokenise; raises QueryError where the text is empty or longer than the model reads."""
        found = [int(i) for i in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
        if not found:
            raise QueryError("the text is empty; give at least one word")
        start = [start_token(tokenizer)] if prepended else []
        most = learned_positions(model) or getattr(_text_config(model), "max_position_embeddings", None)
        if most is not None and len(found) + len(start) > most:
            raise QueryError(f"the text has {len(found)} tokens, and the model reads at most {most - len(start)}")
        ids = torch.tensor([start + found], device=input_device(model))
        # One by one: together they would be joined into a text.
        return cls(ids, len(start), tuple(tokenizer.decode([i]) for i in found))

    def upto(self, position: int) -> torch.Tensor:
        """int64 [1, columns]: the ids up to a position of the text; nothing later reaches what is there."""
        return self.ids[:, : self.first + position + 1]


@dataclass(frozen=True)
class Reading:
    """What dictionaries read of a text."""

    tokens: tuple[str, ...]  # of the text
    hidden: dict[str, torch.Tensor]  # by dictionary: [positions, d_in], what its encoder reads
    sinks: dict[str, torch.Tensor]  # by dictionary: bool [positions], left out

    @classmethod
    def of(cls, model: Any, tokenizer: Any, text: str, records: Mapping[str, Dictionary]) -> Reading:
        """Run the model over the text for these dictionaries; raises QueryError, ModelError."""
        tokens: tuple[str, ...] = ()
        hidden: dict[str, torch.Tensor] = {}
        left_out: dict[str, torch.Tensor] = {}
        for prepended in (True, False):
            group = {id_: d for id_, d in records.items() if d.prepend_bos == prepended}
            if not group:
                continue
            given = Tokens.of(model, tokenizer, text, prepended=prepended)
            points: dict[Any, HookPoint] = {id_: read_point(model, d) for id_, d in group.items()}
            points |= {d.layer: resolve(model, stream_after(d.layer)) for d in group.values()}
            seen = states(model, given.ids, points, last_block(group.values()))
            tokens = given.texts
            hidden |= {id_: seen[id_][0, given.first :] for id_ in group}
            real = torch.ones(1, len(given.texts), dtype=torch.bool)  # nothing is padding
            left_out |= {id_: sinks(seen[d.layer][:, given.first :], real)[0] for id_, d in group.items()}
        reading = cls(tokens, hidden, left_out)
        reading.say_sinks()
        return reading

    def say_sinks(self) -> None:
        """Tell of positions that are left out."""
        everywhere = torch.stack([found.cpu() for found in self.sinks.values()])
        for position in torch.nonzero(everywhere.any(0)).flatten().tolist():
            _log.warning(
                "token %d (%r) is an attention sink in %d of %d dictionaries and left out there",
                position,
                self.tokens[position],
                int(everywhere[:, position].sum()),
                len(everywhere),
            )


def last_block(records: Iterable[Dictionary]) -> int:
    """The last block that these dictionaries need."""
    return max(max(d.layer, place_of(d.hook_name_in).layer, place_of(d.hook_name).layer) for d in records)


def states(model: Any, ids: torch.Tensor, points: Points, last: int) -> dict[Any, torch.Tensor]:
    """Hidden states `[batch, columns, width]` at the points, in one pass that ends after block `last`."""
    block = model.get_submodule(f"{blocks_path(model)}.{last}")
    with torch.inference_mode(), captured(points) as seen:
        run_until(model, block, input_ids=ids, use_cache=False)
    return seen


def name_of(atlas: Atlas, records: Mapping[str, Dictionary], model: str | None = None) -> str:
    """The name of the model of these dictionaries; `model`, where it is given, stands for it.

    Raises QueryError where they are of several models.
    """
    models = sorted({d.model for d in records.values()})
    if len(models) > 1:
        raise QueryError(f"{atlas.address} holds several models ({', '.join(models)}): name features of one of them")
    return model or next(iter(records.values())).model_name


def model_of(atlas: Atlas, records: Mapping[str, Dictionary], model: Any, tokenizer: Any) -> tuple[Any, Any]:
    """The model and its tokenizer: as given, by name, or (None) the one that the dictionaries name.

    Raises QueryError where they are of several models, ModelError where there is no tokenizer or no such model.
    """
    name = name_of(atlas, records)
    if model is None or isinstance(model, str | os.PathLike):
        model, loaded = load_model(name if model is None else model)
        tokenizer = loaded if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ModelError("a model that is given loaded needs its tokenizer beside it")
    return model, tokenizer


def _text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config

"""A text as a model reads it: tokens, and the words and passages that they stand in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError

_AROUND = 60  # characters on each side of the word in a passage
_WORD = re.compile(r"\w[\w'’-]*|[^\w\s]+")


@dataclass(frozen=True)
class Text:
    """A tokenised text."""

    text: str
    ids: np.ndarray  # int64 [n_tokens]
    words: np.ndarray  # int64 [n_tokens, 2], offsets of the whole word around each token

    def passage(self, token: int) -> str:
        """The text around a token on one line, its word between «»."""
        start, end = (int(offset) for offset in self.words[token])
        before = self.text[max(0, start - _AROUND) : start]
        after = self.text[end : end + _AROUND]
        return " ".join(f"{before}«{self.text[start:end].strip()}»{after}".split())


def read_text(paths: Sequence[Path], tokenizer: Any, tokens: int = 0) -> Text:
    """Tokenise files one after the other, the first `tokens` of them (0: all); raises IngestError."""
    try:
        text = "\n\n".join(path.read_text(encoding="utf-8") for path in paths)
    except (OSError, UnicodeDecodeError) as error:
        raise IngestError(f"the text cannot be read as UTF-8 ({error})") from None
    if not getattr(tokenizer, "is_fast", False):
        raise IngestError(f"{type(tokenizer).__name__} gives no offsets into the text; a fast tokenizer is needed")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    stop = tokens or len(found["input_ids"])
    ids = np.asarray(found["input_ids"][:stop], dtype=np.int64)
    offsets = np.asarray(found["offset_mapping"][:stop], dtype=np.int64).reshape(-1, 2)
    if len(ids) < 2:
        raise IngestError(f"{', '.join(map(str, paths))}: no text to measure activations on")
    return Text(text, ids, _words(text, offsets))


def _words(text: str, offsets: np.ndarray) -> np.ndarray:
    """The whole word in which each token ends; the token itself where it ends in none (spaces)."""
    spans = np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
    if not len(spans):
        return offsets
    last = offsets[:, 1] - 1
    at = np.clip(np.searchsorted(spans[:, 0], last, side="right") - 1, 0, None)
    inside = (spans[at, 0] <= last) & (last < spans[at, 1])
    return np.where(inside[:, None], spans[at], offsets)


def start_token(tokenizer: Any) -> int:
    """What contexts begin with: the start token, else the end token, as trainers of dictionaries do."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise IngestError("the tokenizer has neither a start nor an end token to begin contexts with")
    return int(start)

"""A text as a model reads it: tokens, and the words and passages that they stand in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError

PIECE = 1 << 20  # characters that are tokenised at once
LONGEST = 1 << 28  # characters of a file that is read to its end
_AROUND = 60  # characters on each side of the word in a passage
_WORD = re.compile(r"\w[\w'’-]*|[^\w\s]+")
_SPACES = np.array([chr(code).isspace() for code in range(0x3001)])  # no code above is one


@dataclass(frozen=True)
class Passages:
    """Parts of a text, each on one line, and where its tokens end."""

    texts: list[str]
    counts: np.ndarray  # int64 [n_passages], tokens of each
    ends: np.ndarray  # int32 [sum of counts], within the passage; parts of one character end together
    tokens: np.ndarray  # int64 [sum of counts], their numbers in the text


@dataclass(frozen=True)
class Text:
    """A tokenised text, every run of white space in it one space."""

    text: str
    ids: np.ndarray  # int64 [n_tokens]
    ends: np.ndarray  # int64 [n_tokens], the offset behind each token
    words: np.ndarray  # int64 [n_tokens, 2], offsets of the whole word around each token

    def passages(self, tokens: np.ndarray) -> Passages:
        """The text around each of the tokens, its word between «»."""
        texts, bounds = [], np.empty((len(tokens), 4), dtype=np.int64)
        for row, (start, end) in enumerate(self.words[tokens].tolist()):
            before = self.text[max(0, start - _AROUND) : start]
            if start > _AROUND:  # no half a word, where words have spaces between them
                before = before[before.find(" ", 0, -1) + 1 :]
            after = self.text[end : end + _AROUND]
            if end + _AROUND < len(self.text):
                after = after[: after.rfind(" ", 1)] if " " in after[1:] else after
            before, after = before.lstrip(), after.rstrip()
            texts.append(f"{before}«{self.text[start:end]}»{after}")
            bounds[row] = start - len(before), end + len(after), start, end
        # The token itself may have no width: a line's end behind a space.
        begin = np.minimum(np.searchsorted(self.ends, bounds[:, 0], side="right"), tokens)
        # The last token may reach beyond the passage; those that end where it does are parts of its last character.
        last = np.minimum(np.searchsorted(self.ends, bounds[:, 1]), len(self.ends) - 1)
        counts = np.searchsorted(self.ends, self.ends[last], side="right") - begin
        numbers = np.repeat(begin - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        first, stop, start, end = (np.repeat(column, counts) for column in bounds.T)
        ends = np.minimum(self.ends[numbers], stop)
        quotes = ((ends > start) | (ends >= end)).astype(np.int64) + (ends >= end)
        return Passages(texts, counts, (ends - first + quotes).astype(np.int32), numbers)


def read_text(paths: Sequence[Path], tokenizer: Any, tokens: int = 0) -> Text:
    """Tokenise files one after the other, the first `tokens` of them (0: all); raises IngestError.

    Read piece by piece: a tokenizer takes two hundred times a text's size while it works on it.
    """
    # Slow tokenizers have no offsets, without which a token is no place in the text.
    if not getattr(tokenizer, "is_fast", False):
        raise IngestError(f"{type(tokenizer).__name__} gives no offsets into the text; a fast tokenizer is needed")
    pieces: list[str] = []
    ids: list[np.ndarray] = []
    offsets: list[np.ndarray] = []  # of the tokens' starts and ends
    length = count = 0
    for piece in _pieces(paths, bounded=tokens > 0):
        # Without special tokens: contexts are cut later and get their start token there.
        found = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids.append(np.asarray(found["input_ids"], dtype=np.int64))
        line, places = _one_line(piece, behind_space=bool(pieces) and pieces[-1].endswith(" "))
        # Offsets count from the piece's start.
        offsets.append(places[np.asarray(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)] + length)
        pieces.append(line)
        length, count = length + len(line), count + len(ids[-1])
        if 0 < tokens <= count:
            break
    if count < 2:
        raise IngestError(f"{', '.join(map(str, paths))}: no text to measure activations on")
    stop = tokens or count
    text = "".join(pieces)
    places = np.concatenate(offsets)[:stop]
    # A tokenizer that gives a token no place of its own must not put the ends out of order.
    return Text(text, np.concatenate(ids)[:stop], np.maximum.accumulate(places[:, 1]), _words(text, places))


def _one_line(text: str, *, behind_space: bool) -> tuple[str, np.ndarray]:
    """The text with every run of white space one space; and, int64 [characters + 1], where each of its offsets is.

    behind_space: whether a space stands before the text, with which its first ones are one.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    space = _SPACES[np.minimum(codes, len(_SPACES) - 1)] & (codes < len(_SPACES))
    kept = ~(space & np.append(behind_space, space[:-1]))
    places = np.concatenate([[0], np.cumsum(kept)])
    return np.where(space, ord(" "), codes)[kept].astype("<u4").tobytes().decode("utf-32-le"), places


def _pieces(paths: Sequence[Path], *, bounded: bool) -> Iterator[str]:
    """The files' text, an empty line between two, in pieces that end before a space or a line's end.

    Cut there, a text has the tokens that it has as a whole. Raises IngestError where a file is no UTF-8 text, or where
    it is very long and nothing bounds it.
    """
    for number, path in enumerate(paths):
        rest = "\n\n" if number else ""
        try:
            with path.open(encoding="utf-8-sig") as file:
                read = 0
                while chunk := file.read(PIECE):
                    read += len(chunk)
                    if read > LONGEST and not bounded:
                        raise IngestError(f"{path} is longer than {LONGEST:,} characters; say how much with --tokens N")
                    whole = rest + chunk
                    # The last place where a word begins, behind which the next piece goes on.
                    cut = max(whole.rfind("\n", 1), whole.rfind(" ", 1)) if len(chunk) == PIECE else len(whole)
                    cut = cut if cut > 0 else len(whole)
                    yield whole[:cut]
                    rest = whole[cut:]
        except (OSError, UnicodeDecodeError) as error:
            raise IngestError(f"the text {path} cannot be read as UTF-8 ({error})") from None
        if rest.strip():
            yield rest


def _words(text: str, offsets: np.ndarray) -> np.ndarray:
    """The whole word in which each token ends; the token itself where it ends in none (spaces)."""
    spans = np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
    if not len(spans):
        return offsets
    # By its last character: many tokenizers put the space before a word into its token.
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

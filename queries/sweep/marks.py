"""What a text is worth without a judge: its theme, its fluency, its repetitions. New tokens count, the prompt does not.

Every arm's text is re-read by the unsteered model after the plain prompt, also where the arm asked for the theme: so
the surprise of the theme itself costs every arm the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from queries.steer.generation import Generation
from queries.steer.score import BATCH, nats_per_token
from queries.steer.theme import Theme
from queries.sweep.held_out import Readers


@dataclass(frozen=True)
class Marks:
    """One text's scores; None where it has too few tokens for one."""

    words: int  # theme words
    activation: (
        float | None
    )  # mean over tokens of the strongest held-out feature's activation, 1: its largest on record
    nats: float | None  # nats a token under the unsteered model
    rep3: float | None  # share of 3-grams of tokens that were there before
    zlib: float | None  # compressed by uncompressed size: small for loops


def marks(
    model: Any,
    tokenizer: Any,
    generations: Sequence[Generation],
    prompts: Sequence[list[int]],
    theme: Theme,
    readers: Readers,
) -> list[Marks]:
    """The scores of each text. prompts: the plain prompt's token ids of each."""
    from hooked.capture import captured

    made: list[Marks] = []
    special = set(tokenizer.all_special_ids)
    for start in range(0, len(generations), BATCH):
        part = [
            replace(each, prompt_tokens=list(plain))
            for each, plain in zip(generations[start : start + BATCH], prompts[start : start + BATCH], strict=True)
        ]
        # One pass gives both, as there are no more texts than nats_per_token reads at once: what the encoders read is
        # seen while the losses are computed.
        with captured(readers.points) as seen:
            nats = nats_per_token(model, tokenizer, part)
        strongest = readers.strongest(seen) if seen else None
        for row, (each, loss) in enumerate(zip(part, nats, strict=True)):
            first = len(each.prompt_tokens)
            columns = [first + i for i, token in enumerate(each.tokens) if token not in special]
            fired = None if strongest is None or not columns else float(strongest[row, columns].mean())
            made.append(
                Marks(
                    words=len(theme.findall(each.text)),
                    activation=fired,
                    nats=loss if each.tokens else None,
                    rep3=repetition(each.tokens),
                    zlib=compression(each.text),
                )
            )
    return made


def repetition(tokens: Sequence[int], n: int = 3) -> float | None:
    """1 − unique/all n-grams of the tokens; None below n tokens.

    Known answer: 1 2 3 1 2 3 has the 3-grams 123 231 312 123: 1 − 3/4 = 0.25.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def compression(text: str) -> float | None:
    """Size after zlib at level 9 by size before, in UTF-8; None for no text."""
    data = text.encode()
    return len(zlib.compress(data, 9)) / len(data) if data else None

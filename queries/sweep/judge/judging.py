"""A sweep's texts judged: first planted ones, to see whether the judge can tell them apart, then every trial."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from atlas.cli.progress import Progress
from atlas.errors import JudgeError
from queries.steer.intervention import ADD
from queries.steer.theme import Theme, theme_pattern
from queries.sweep.design import PROMPTED, UNSTEERED, Design
from queries.sweep.judge.replies import Replies
from queries.sweep.judge.rubric import (
    BEHAVIORAL,
    COHERENCE,
    CONCEPT,
    FLUENCY,
    QUESTIONS,
    TOKENS,
    Question,
    columns,
    rating,
)
from queries.sweep.trials import Trial

ORDERED = 0.75  # share of pairs of planted texts that a judge must order rightly, for each question
MISSING = 0.05  # share of ratings above which a run fails
PLANTED, LEAST = 12, 4  # texts of each kind; fewest
_WORKERS = 8
Column = dict[tuple[str, str | None, int, int], dict[str, float | None]]


class Planted(NamedTuple):
    """Texts whose order is known: the theme is in the first alone, and the last are the second with shuffled words."""

    theme: list[str]
    unsteered: list[str]
    shuffled: list[str]


@dataclass(frozen=True)
class Order:
    """How a judge ordered planted texts on one question."""

    question: str
    better: str
    worse: str
    right: float  # share of pairs in the right order, ties half
    missing: int  # texts without a rating


def planted(design: Design, trials: Sequence[Trial], passages: Sequence[str] = ()) -> Planted:
    """Planted texts of a sweep: passages of a contrast text with words of the theme, else prompted texts with most.

    Raises JudgeError where there are too few of a kind.
    """
    pattern: Theme = theme_pattern(design.words)
    about = [each for each in passages if pattern.findall(each)]
    if not about:
        found = [each for each in trials if each.arm == PROMPTED and each.text and (each.words or 0) > 0]
        about = [str(each.text) for each in sorted(found, key=lambda each: -(each.words or 0))]
    plain = [each.text for each in trials if each.arm == UNSTEERED and each.text and not each.words]
    plain = [text for text in plain if len(text.split()) >= 6]
    size = min(PLANTED, len(about), len(plain))
    if size < LEAST:
        raise JudgeError(
            f"a judge is tried on planted texts, {LEAST} of a kind or more; here are {len(about)} of the theme and "
            f"{len(plain)} unsteered: give --contrast FILE with the theme's words in it, or more --samples"
        )
    return Planted(about[:size], plain[:size], [_shuffled(text, place) for place, text in enumerate(plain[:size])])


def _shuffled(text: str, seed: int) -> str:
    words = text.split()
    return " ".join(words[place] for place in np.random.default_rng([seed, 4]).permutation(len(words)))


def tried(replies: Replies, design: Design, texts: Planted) -> list[Order]:
    """How the judge orders planted texts; raises JudgeError, by name, where it cannot tell them apart."""
    pairs = [(q, "theme", "unsteered") for q in (BEHAVIORAL, CONCEPT)]
    pairs += [(q, "unsteered", "shuffled") for q in (COHERENCE, FLUENCY)]
    orders = []
    for question, better, worse in pairs:
        high, low = (_ratings(replies, design, question, getattr(texts, kind)) for kind in (better, worse))
        known = [[value for value in part if value is not None] for part in (high, low)]
        missing = len(high) + len(low) - len(known[0]) - len(known[1])
        wins = [(a > b) + 0.5 * (a == b) for a in known[0] for b in known[1]]
        orders.append(Order(question.name, better, worse, float(np.mean(wins)) if wins else 0.0, missing))
    wrong = [each for each in orders if each.right < ORDERED or each.missing > len(texts.theme)]
    if wrong:
        told = "; ".join(
            f"{each.question}: {each.better} above {each.worse} in {each.right:.0%} of pairs"
            + (f", {each.missing} texts without a rating" if each.missing else "")
            for each in wrong
        )
        raise JudgeError(
            f"the judge {replies.model} cannot order planted texts ({told}; {ORDERED:.0%} are needed), so its scores "
            "of this theme would mean nothing: take a stronger model, or none"
        )
    return orders


def judge_texts(
    replies: Replies, design: Design, trials: Sequence[Trial], others: Sequence[str], progress: Progress
) -> Column:
    """As `judged`; raises JudgeError where more than MISSING of the ratings are missing: what is there is kept."""
    rows = judged(replies, design, trials, others, progress)
    given = [value for row in rows.values() for name, value in row.items() if name not in ("total", "axbench")]
    gone = sum(value is None for value in given)
    if gone > MISSING * len(given):
        raise JudgeError(
            f"{gone} of {len(given)} ratings are missing: the judge did not answer, or not with a digit; repeat the "
            "command later (what was answered is kept), or take another judge"
        )
    return rows


def judged(
    replies: Replies, design: Design, trials: Sequence[Trial], others: Sequence[str], progress: Progress
) -> Column:
    """The judge's columns of every trial that has a text; None where a rating is missing.

    others: further subjects, whose Behavioral is `subject 1`, … (the paper's suppression asks three at once, App. B).
    """
    texts = [each for each in trials if each.text and each.text.strip()]

    def rate(trial: Trial) -> dict[str, float | None]:
        prompt = design.prompts[trial.prompt]
        found = {each.name: _asked(replies, each, str(trial.text), design.theme, prompt) for each in QUESTIONS}
        found = columns(found, suppressed=design.mode != ADD)
        for number, other in enumerate(others, 1):
            found[f"subject {number}"] = _asked(replies, BEHAVIORAL, str(trial.text), other, prompt)
        return found

    rows: Column = {}
    with progress.steps("judge", len(texts), "texts") as advance, ThreadPoolExecutor(_WORKERS) as pool:
        for trial, row in zip(texts, pool.map(rate, texts), strict=True):
            rows[trial.arm, trial.strength, trial.prompt, trial.sample] = row
            advance(1)
    return rows


def _ratings(replies: Replies, design: Design, question: Question, texts: Sequence[str]) -> list[float | None]:
    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(pool.map(lambda text: _asked(replies, question, text, design.theme, design.prompts[0]), texts))


def _asked(replies: Replies, question: Question, text: str, theme: str, prompt: str) -> float | None:
    return rating(replies.ask(question.messages(text, theme, prompt), TOKENS), question.most)

"""What a judge is asked, and how its answer becomes a number.

- As the paper (App. B): Behavioral and Coherence, 0 to 5. The paper asks both in one call; here each is asked alone, so
  that one does not colour the other and the answer is one digit.
- As AxBench: concept, instruction and fluency, 0 to 2 each, together their harmonic mean, 0 where one is 0. AxBench
  lets the judge reason first; here the answer is the digit.
Where the server gives log-probabilities, the answer is the expectation over the digits of the scale, if these have at
least LEAST_MASS; else the only number in the reply; else it is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from queries.sweep.judge.client import Reply

LEAST_MASS = 0.25
TOKENS = 4  # of a reply: a digit, and what a server puts around it
_DIGITS = "Answer with one digit from 0 to {most} and nothing else."


@dataclass(frozen=True)
class Question:
    """One criterion."""

    name: str
    most: int  # the scale is 0 … most
    text: str  # may hold {theme} and {prompt}

    def messages(self, text: str, theme: str, prompt: str) -> list[dict[str, str]]:
        """The chat that asks it of a text."""
        asked = self.text.format(theme=theme, prompt=prompt)
        return [
            {"role": "system", "content": f"{asked} {_DIGITS.format(most=self.most)}"},
            {"role": "user", "content": f"Text:\n{text}\n\nYour digit:"},
        ]


BEHAVIORAL = Question(
    "behavioral",
    5,
    "You rate how strongly a text is about a subject. Subject: {theme}. Related words and ideas count where the "
    "relation can be explained. Ignore grammar and truth. 0: not at all; 5: clearly and throughout.",
)
COHERENCE = Question(
    "coherence",
    5,
    "You rate the coherence of a text, whatever it is about: whether it is grammatical, clear and reads like the "
    "writing of a person. The text may begin and end in the middle of a sentence. 0: none; 5: fully.",
)
CONCEPT = Question(
    "concept",
    2,
    "You rate whether a concept is present in a text. Concept: {theme}. Focus solely on the concept. "
    "0: absent; 1: somewhat; 2: clearly.",
)
INSTRUCTION = Question(
    "instruction",
    2,
    "You rate whether a text goes on from a given beginning. Focus solely on that. Beginning: {prompt} "
    "0: it has nothing to do with it; 1: somewhat; 2: it goes on from it.",
)
FLUENCY = Question(
    "fluency",
    2,
    "You rate the fluency of a text. Focus solely on fluency, not on what it says. "
    "0: not fluent; 1: somewhat, with repetitions or broken phrases; 2: fluent.",
)
QUESTIONS = (BEHAVIORAL, COHERENCE, CONCEPT, INSTRUCTION, FLUENCY)


def rating(reply: Reply | None, most: int) -> float | None:
    """The number that a reply gives, 0 … most; None where it gives none.

    Known answer: 4 with probability .6, 5 with .2 and "I" with .2: (4·.6 + 5·.2)/.8 = 4.25.
    """
    if reply is None:
        return None
    if reply.top:
        mass: dict[int, float] = {}
        for token, logprob in reply.top.items():
            digit = token.strip()
            # A log-probability above 0 is none, whatever a server sends.
            if digit.isdecimal() and len(digit) == 1 and int(digit) <= most and logprob <= 1e-6:
                mass[int(digit)] = mass.get(int(digit), 0.0) + math.exp(logprob)
        total = sum(mass.values())
        if total >= LEAST_MASS:
            return sum(digit * part for digit, part in mass.items()) / total
    numbers = re.findall(r"-?\d+(?:\.\d+)?", reply.content)
    # Two numbers, `4/5` among them, leave open which one is meant.
    if len(numbers) != 1 or not 0 <= float(numbers[0]) <= most:
        return None
    return float(numbers[0])


def product(behavioral: float | None, coherence: float | None, *, suppressed: bool = False) -> float | None:
    """Behavioral × Coherence, both over 5; (1 − Behavioral) × Coherence of a suppressed theme (paper §5.3)."""
    if behavioral is None or coherence is None:
        return None
    wanted = 1 - behavioral / 5 if suppressed else behavioral / 5
    return wanted * coherence / 5


def harmonic(ratings: Sequence[float | None]) -> float | None:
    """Harmonic mean; 0 where one is 0, None where one is missing. Known answer: 1, 2, 2 → 3/(1 + ½ + ½) = 1.5."""
    known = [rating for rating in ratings if rating is not None]
    if len(known) < len(ratings):
        return None
    return len(known) / sum(1 / each for each in known) if all(each > 0 for each in known) else 0.0


def columns(ratings: Mapping[str, float | None], *, suppressed: bool) -> dict[str, float | None]:
    """Ratings by question, with `total` (the paper's product) and `axbench` (the harmonic mean of its three)."""
    named = [ratings.get(each.name) for each in (CONCEPT, INSTRUCTION, FLUENCY)]
    total = product(ratings.get(BEHAVIORAL.name), ratings.get(COHERENCE.name), suppressed=suppressed)
    # AxBench asks for a concept that shall be there; of one that shall not, its mean says nothing.
    return {**ratings, "total": total, "axbench": None if suppressed else harmonic(named)}

"""Compare plans by a theme, without a judge: how often its words come, and what the text costs in fluency.

Each prompt is continued several times in every condition; a sample's figures are means over the prompts, and the spread
is the standard error over samples. Fluency is the mean surprise of the generated tokens under the unsteered model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from atlas.errors import PlanError
from queries.steer.generation import Generation, GenerationOptions, continued
from queries.steer.plan import SteeringPlan

TEMPERATURE, TOP_P = 1.27, 0.7  # of the paper's steering (App. B)
_BATCH = 48  # texts at once: their logits over the whole vocabulary are in memory when they are scored


@dataclass(frozen=True)
class ThemeScore:
    """One condition's figures: means over samples, each with its standard error (None with one sample)."""

    condition: str  # unsteered, or the plan's name
    texts: int  # prompts times samples
    words: float  # theme words a text
    words_se: float | None
    share: float  # share of texts with a theme word
    share_se: float | None
    nats: float  # nats a generated token under the unsteered model: lower is more fluent
    nats_se: float | None


def theme_score(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    words: Iterable[str],
    plans: Mapping[str, SteeringPlan | None],
    *,
    samples: int = 12,
    seed: int = 0,
    max_new_tokens: int = 30,
    temperature: float | None = TEMPERATURE,
    top_p: float | None = TOP_P,
) -> list[ThemeScore]:
    """Score conditions, in the order given; all of them draw from the same seed.

    Args:
        words: the theme's words, whole and in any case; `soldier*` also counts words that begin so.
        plans: condition's name -> plan; None: unsteered.
        samples: continuations of each prompt.
    Raises PlanError where there are no words, prompts or samples.

    Example:
        plans = {"unsteered": None, "film": plan}
        scores = theme_score(model, tokenizer, ["I think "], ["film*"], plans, samples=2, max_new_tokens=8)
        print([(score.condition, score.words, score.nats) for score in scores])
    """
    pattern = theme_pattern(words)
    if not prompts or samples < 1:
        raise PlanError("a score needs at least one prompt and one sample")
    options = GenerationOptions(max_new_tokens=max_new_tokens, seed=seed, temperature=temperature, top_p=top_p)
    scores = []
    for condition, plan in plans.items():
        made = _in_batches(model, tokenizer, [*prompts] * samples, plan, options)
        found = [len(pattern.findall(each.text)) for each in made]
        nats = nats_per_token(model, tokenizer, made)
        words_, share, fluency = (
            _mean([fmean(values[i : i + len(prompts)]) for i in range(0, len(made), len(prompts))])
            for values in (found, [float(count > 0) for count in found], nats)
        )
        scores.append(ThemeScore(condition, len(made), *words_, *share, *fluency))
    return scores


def _in_batches(
    model: Any, tokenizer: Any, prompts: list[str], plan: SteeringPlan | None, options: GenerationOptions
) -> list[Generation]:
    """One continuation of each prompt, in batches that fit a small machine."""
    made: list[Generation] = []
    for start in range(0, len(prompts), _BATCH):
        part = replace(options, seed=options.seed + start)
        made += continued(model, tokenizer, prompts[start : start + _BATCH], plan, part)
    return made


def verdict(scores: Sequence[ThemeScore]) -> str:
    """In a line, whether the plan with most theme words has really more than the next; nothing is dressed up."""
    first, second, *_ = sorted(scores, key=lambda score: -score.words)
    more, spread = first.words - second.words, hypot(first.words_se or 0.0, second.words_se or 0.0)
    cost, cost_spread = first.nats - second.nats, hypot(first.nats_se or 0.0, second.nats_se or 0.0)
    sure = "" if more >= 2 * spread else " (within twice the standard error: these texts do not tell them apart)"
    return (
        f"{first.condition} has {more:.2f} ± {spread:.2f} theme words a text more than {second.condition}{sure}, "
        f"at {cost:+.2f} ± {cost_spread:.2f} nats a token"
    )


def theme_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds each word, whole, in any case; `*` at the end stands for any ending."""
    parts = [
        re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "")
        for word in map(str.strip, words)
        if word
    ]
    if not parts:
        raise PlanError("the theme has no words; give some, e.g. --words war,army,soldier*")
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE)


def read_words(given: str) -> list[str]:
    """Words separated by commas, or those of a file, one a line or separated by commas."""
    path = Path(given)
    if "," not in given and path.is_file():
        given = path.read_text(encoding="utf-8")
    return [word for word in re.split(r"[,\n]", given) if word.strip()]


def nats_per_token(model: Any, tokenizer: Any, generations: Sequence[Generation]) -> list[float]:
    """Mean nats of each generation's tokens under the model as it is, given its prompt."""
    return [
        nats
        for start in range(0, len(generations), _BATCH)
        for nats in _nats(model, tokenizer, generations[start : start + _BATCH])
    ]


def _nats(model: Any, tokenizer: Any, generations: Sequence[Generation]) -> list[float]:
    import torch

    from hooked.load import input_device

    device = input_device(model)
    rows = []
    for each in generations:
        before = each.prompt_tokens or list(tokenizer(each.prompt)["input_ids"])
        rows.append((before or each.tokens[:1], each.tokens if before else each.tokens[1:]))
    longest = max(len(before) + len(after) for before, after in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    made = torch.zeros_like(ids, dtype=torch.bool)
    for row, (before, after) in enumerate(rows):
        stop = len(before) + len(after)
        ids[row, :stop] = torch.tensor(before + after)
        mask[row, :stop] = 1
        made[row, len(before) : stop] = True
    with torch.inference_mode():
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        counted = made[:, 1:]  # the logits at position i − 1 are those of the token at i
        losses = torch.zeros(counted.shape)
        predicted = logits[:, :-1][counted.to(device)].float().cpu()
        losses[counted] = torch.nn.functional.cross_entropy(predicted, ids[:, 1:][counted], reduction="none")
    return [float(nats) for nats in losses.sum(1) / counted.sum(1).clamp(min=1)]


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error, None with one value."""
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

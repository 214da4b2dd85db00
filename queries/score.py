"""Compare plans by a theme, without a judge: how often its words come, and what the text costs in fluency.

For every condition and seed, all prompts are continued as one batch; a seed's figures are means over its texts, and the
spread is the standard error over seeds. Fluency is the mean surprise of the generated tokens under the unsteered model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from atlas.errors import PlanError
from queries.generation import Generation, generate
from queries.plan import SteeringPlan

TEMPERATURE, TOP_P = 1.27, 0.7  # of the paper's steering (App. B)


@dataclass(frozen=True)
class ThemeScore:
    """One condition's figures: means over seeds, each with its standard error (None with one seed)."""

    condition: str  # unsteered, or the plan's name
    texts: int  # prompts times seeds
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
    seeds: Sequence[int] = tuple(range(12)),
    max_new_tokens: int = 30,
    temperature: float | None = TEMPERATURE,
    top_p: float | None = TOP_P,
) -> list[ThemeScore]:
    """Score conditions, in the order given.

    Args:
        words: the theme's words, whole and in any case; `soldier*` also counts words that begin so.
        plans: condition's name -> plan; None: unsteered.
    Raises PlanError where there are no words, prompts or seeds.
    """
    pattern = theme_pattern(words)
    if not prompts or not seeds:
        raise PlanError("a score needs at least one prompt and one seed")
    scores = []
    for condition, plan in plans.items():
        counts, shares, nats = [], [], []
        for seed in seeds:
            made = generate(
                model,
                tokenizer,
                prompts,
                plan,
                max_new_tokens=max_new_tokens,
                seed=seed,
                temperature=temperature,
                top_p=top_p,
            )
            found = [len(pattern.findall(each.text)) for each in made]
            counts.append(fmean(found))
            shares.append(fmean(count > 0 for count in found))
            nats.append(nats_per_token(model, tokenizer, made))
        scores.append(
            ThemeScore(
                condition,
                texts=len(prompts) * len(seeds),
                words=fmean(counts),
                words_se=_standard_error(counts),
                share=fmean(shares),
                share_se=_standard_error(shares),
                nats=fmean(nats),
                nats_se=_standard_error(nats),
            )
        )
    return scores


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


def nats_per_token(model: Any, tokenizer: Any, generations: Sequence[Generation]) -> float:
    """Mean nats of the generated tokens under the model as it is, given their prompts."""
    import torch

    from hooked.load import input_device

    device = input_device(model)
    rows = []
    for each in generations:
        before = list(tokenizer(each.prompt)["input_ids"])
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
        wanted = made[:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].cpu()[wanted].float(), ids[:, 1:][wanted], reduction="mean"
        )
    return float(losses)


def _standard_error(values: Sequence[float]) -> float | None:
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

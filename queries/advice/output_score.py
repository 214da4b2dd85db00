"""Output score of a feature: does adding it promote what it fires on? (Arad et al., arXiv 2505.20063)

Features that only read a theme make poor handles. Here: the feature is added while the model reads neutral prompts, and
the next token's probability of the words that it fires on is compared with the unsteered model's, in nats. Other living
features of the dictionary at the same dose say what any push of this size does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from queries.steer.plan import SteeringPlan


def first_tokens(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Ids of the tokens that a text goes on with where one of the words comes next, sorted."""
    found = set()
    for word in words:
        stem = word.rstrip("*").strip()
        for form in (f" {stem}", f" {stem.capitalize()}"):
            ids = tokenizer(form, add_special_tokens=False)["input_ids"]
            # Some tokenizers keep a space by itself, which says nothing.
            ids = [token for token in ids if tokenizer.decode([token]).strip()]
            found |= set(ids[:1])
    return sorted(found)


def promotion(
    model: Any, prompts: Sequence[Sequence[int]], tokens: Sequence[int], plan: SteeringPlan | None
) -> np.ndarray:
    """float64 [prompts]: log-probability that the next token of each prompt is one of `tokens`, with the plan."""
    import torch

    from hooked.load import input_device
    from queries.steer.steering import steered

    device, found = input_device(model), []

    def read() -> None:
        for ids in prompts:
            logits = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False).logits[0, -1]
            log_probabilities = torch.log_softmax(logits.double(), -1)[list(tokens)]
            found.append(float(torch.logsumexp(log_probabilities, 0)))

    with torch.inference_mode():
        if plan is None:
            read()
        else:
            with steered(model, plan):
                read()
    return np.array(found)


def output_score(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    plan: SteeringPlan,
    controls: Sequence[SteeringPlan],
) -> tuple[float, float]:
    """Mean nats that the plan adds to the log-probability of `tokens`, and the mean over the controls.

    prompts: token ids of each. tokens: ids of what the feature fires on (`first_tokens`).
    """
    plain = promotion(model, prompts, tokens, None)
    ours = promotion(model, prompts, tokens, plan) - plain
    others = [promotion(model, prompts, tokens, control) - plain for control in controls]
    return float(ours.mean()), float(np.mean(others)) if others else float("nan")

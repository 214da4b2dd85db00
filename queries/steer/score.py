"""Compare plans by a theme, without a judge: how often its words come, and what the text costs in fluency.

Each prompt is continued several times in every condition; a sample's figures are means over the prompts, and the spread
is the standard error over samples. Fluency is the mean surprise of the generated tokens under the unsteered model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from statistics import fmean, stdev
from typing import Any

from atlas.cli.progress import Advance, Progress
from atlas.errors import PlanError
from queries.steer.generation import Generation, GenerationOptions, continued
from queries.steer.plan import SteeringPlan
from queries.steer.theme import read_words, theme_pattern

__all__ = ["ThemeScore", "nats_per_token", "read_words", "theme_pattern", "theme_score", "verdict"]

TEMPERATURE, TOP_P = 1.27, 0.7  # of the paper's steering (App. B)
BATCH = 48  # texts at once: their logits over the whole vocabulary are in memory when they are scored


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
    control: str | None = None  # the condition that this one is compared with, in pairs of one seed and prompt
    more: float | None = None  # theme words a text more than there
    more_se: float | None = None
    nats_more: float | None = None  # nats a token more than there
    nats_more_se: float | None = None


def theme_score(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str] | str,
    words: Iterable[str] | str,
    plans: Mapping[str, SteeringPlan | None],
    *,
    control: str | None = None,
    samples: int = 12,
    seed: int = 0,
    max_new_tokens: int = 30,
    temperature: float | None = TEMPERATURE,
    top_p: float | None = TOP_P,
    progress: Progress | None = None,
) -> list[ThemeScore]:
    """Score conditions, in the order given; all of them draw from the same seed.

    Args:
        words: the theme's words, whole and in any case; `soldier*` also counts words that begin so.
        plans: condition's name -> plan; None: unsteered.
        control: the condition that the others are compared with; None: the unsteered one, else the first.
        samples: continuations of each prompt.
        progress: where it is shown how many tokens are made; None: nowhere.
    Raises PlanError where there are no words, prompts or samples, or the control is none of the plans.

    Example:
        plans = {"unsteered": None, "film": plan}
        scores = theme_score(model, tokenizer, ["I think "], ["film*"], plans, samples=2, max_new_tokens=8)
        print([(score.condition, score.words, score.nats) for score in scores])
    """
    # A text is a sequence too, of letters.
    prompts = [prompts] if isinstance(prompts, str) else prompts
    pattern = theme_pattern([words] if isinstance(words, str) else words)
    if not prompts or samples < 1:
        raise PlanError("a score needs at least one prompt and one sample")
    if control is None:
        control = next((name for name, plan in plans.items() if plan is None), next(iter(plans), None))
    elif control not in plans:
        raise PlanError(f"the control {control!r} is none of the conditions: {', '.join(plans)}")
    options = GenerationOptions(max_new_tokens=max_new_tokens, seed=seed, temperature=temperature, top_p=top_p)
    figures: dict[str, list[list[float]]] = {}  # words, share and nats of each sample, a mean over prompts
    progress = progress or Progress(quiet=True)
    with progress.steps("texts", len(plans) * len(prompts) * samples * max_new_tokens, "tokens") as advance:
        for condition, plan in plans.items():
            made = _in_batches(model, tokenizer, [*prompts] * samples, plan, options, advance)
            found = [len(pattern.findall(each.text)) for each in made]
            figures[condition] = [
                [fmean(values[i : i + len(prompts)]) for i in range(0, len(made), len(prompts))]
                for values in (found, [float(count > 0) for count in found], nats_per_token(model, tokenizer, made))
            ]
    return [_score(condition, control, figures, len(prompts) * samples) for condition in plans]


def _score(condition: str, control: str | None, figures: Mapping[str, list[list[float]]], texts: int) -> ThemeScore:
    """A condition's figures, and what they are more than the control's, sample by sample."""
    words, share, nats = figures[condition]
    score = ThemeScore(condition, texts, *_mean(words), *_mean(share), *_mean(nats))
    if control is None or control == condition:
        return score
    other = figures[control]
    more, nats_more = (
        _mean([mine - its for mine, its in zip(figures[condition][place], other[place], strict=True)])
        for place in (0, 2)
    )
    return replace(
        score, control=control, more=more[0], more_se=more[1], nats_more=nats_more[0], nats_more_se=nats_more[1]
    )


class _Counting:
    """A transformers streamer that counts a batch's tokens instead of showing them."""

    def __init__(self, texts: int, most: int, advance: Advance) -> None:
        self._texts, self._left, self._advance = texts, most, advance
        self._prompt = True

    def put(self, _tokens: Any) -> None:
        """A token of each text; the prompts come first."""
        if not self._prompt:
            self._advance(self._texts)
            self._left -= 1
        self._prompt = False

    def end(self) -> None:
        """Texts may end before their time."""
        self._advance(self._texts * self._left)


def _in_batches(
    model: Any,
    tokenizer: Any,
    prompts: list[str],
    plan: SteeringPlan | None,
    options: GenerationOptions,
    advance: Advance,
) -> list[Generation]:
    """One continuation of each prompt, in batches that fit a small machine."""
    made: list[Generation] = []
    for start in range(0, len(prompts), BATCH):
        part = replace(options, seed=options.seed + start)
        batch = prompts[start : start + BATCH]
        counting = _Counting(len(batch), options.max_new_tokens, advance)
        made += continued(model, tokenizer, batch, plan, part, counting)
    return made


def verdict(scores: Sequence[ThemeScore]) -> str:
    """A line a condition: whether it really has more theme words than the control; nothing is dressed up.

    Paired figures are taken where the scores have them; else the first condition is the control.
    """
    named = {score.control for score in scores} - {None}
    control = next(score for score in scores if not named or score.condition in named)
    others = sorted((score for score in scores if score is not control), key=lambda score: -score.words)
    return "\n".join(_compared(score, control) for score in others) or "one condition alone: nothing to compare"


def _compared(score: ThemeScore, control: ThemeScore) -> str:
    """One condition beside the control, in a line."""
    if score.more is None or score.nats_more is None:
        more, spread = score.words - control.words, hypot(score.words_se or 0.0, control.words_se or 0.0)
        cost, cost_spread = score.nats - control.nats, hypot(score.nats_se or 0.0, control.nats_se or 0.0)
    else:
        more, spread, cost, cost_spread = score.more, score.more_se or 0.0, score.nats_more, score.nats_more_se or 0.0
    nats = f"at {cost:+.2f} ± {cost_spread:.2f} nats a token"
    if not score.words and not control.words:
        return f"no difference between {score.condition} and {control.condition}: no text has a theme word, {nats}"
    if not more and not spread:
        return f"no difference between {score.condition} and {control.condition} in theme words, {nats}"
    sure = "" if abs(more) >= 2 * spread else " (within twice the standard error: these texts do not tell them apart)"
    amount = f"{abs(more):.2f} ± {spread:.2f} theme words a text {'more' if more >= 0 else 'fewer'}"
    return f"{score.condition} has {amount} than {control.condition}{sure}, {nats}"


def nats_per_token(model: Any, tokenizer: Any, generations: Sequence[Generation]) -> list[float]:
    """Mean nats of each generation's tokens under the model as it is, given its prompt."""
    return [
        nats
        for start in range(0, len(generations), BATCH)
        for nats in _nats(model, tokenizer, generations[start : start + BATCH])
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
    ids = torch.zeros((len(rows), longest), dtype=torch.long, device="cpu")
    mask = torch.zeros_like(ids)
    made = torch.zeros_like(ids, dtype=torch.bool)
    for row, (before, after) in enumerate(rows):
        stop = len(before) + len(after)
        ids[row, :stop] = torch.tensor(before + after, device="cpu")
        mask[row, :stop] = 1
        made[row, len(before) : stop] = True
    with torch.inference_mode():
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        counted = made[:, 1:]  # the logits at position i − 1 are those of the token at i
        losses = torch.zeros(counted.shape, device="cpu")
        predicted = logits[:, :-1][counted.to(device)].float().cpu()
        losses[counted] = torch.nn.functional.cross_entropy(predicted, ids[:, 1:][counted], reduction="none")
    return [float(nats) for nats in losses.sum(1) / counted.sum(1).clamp(min=1)]


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error, None with one value."""
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

"""Generate text, steered or not: the same call, the same seed, the same text.

1. Tokenise each prompt and pad on the left, without touching the tokenizer.
2. Seed torch; its state is given back afterwards.
3. Generate inside `steered`, with every choice made here rather than by the model's own defaults.
4. Cut each continuation at its end of sequence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas.errors import ModelError
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Generation:
    """One continuation."""

    prompt: str
    text: str  # what was added to the prompt
    tokens: list[int]  # ids of what was added, the end of sequence included
    hooks: list[dict[str, Any]]  # module, calls and positions of every hook, for the whole batch; [] unsteered
    seed: int


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    plan: SteeringPlan | None = None,
    *,
    max_new_tokens: int = 36,
    seed: int = 0,
    temperature: float | None = None,
    top_p: float | None = None,
    num_beams: int = 1,
    use_cache: bool = True,
    streamer: Any = None,
) -> list[Generation]:
    """Continue prompts, as one batch.

    Args:
        model: a Hugging Face causal language model, or its name or folder; then `tokenizer` may be None.
        plan: how to steer; None: not at all.
        max_new_tokens: most tokens to add (36 in the paper, App. B).
        seed: of the sampling; torch's own random state is left as it was.
        temperature: None or 0 is greedy unless `top_p` is given, which samples at temperature 1.
        top_p: sample among the most probable tokens of this mass only.
        num_beams: beams of a beam search.
        use_cache: keep keys and values between tokens; the text is the same without.
        streamer: a transformers streamer, for a single prompt.
    Raises ModelError, HookNotFired.
    """
    if isinstance(model, str | os.PathLike):
        from hooked.load import load_model

        model, loaded = load_model(model)
        tokenizer = loaded if tokenizer is None else tokenizer
    if max_new_tokens < 1:
        raise ModelError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    names = [prompts] if isinstance(prompts, str) else list(prompts)
    if not names:
        return []
    import torch

    from hooked.load import input_device, quiet
    from queries.steer.steering import steered

    with quiet():
        config = _config(model, tokenizer, max_new_tokens, temperature, top_p, num_beams, use_cache)
    ids, mask = _batch(tokenizer, names, config.pad_token_id, input_device(model))
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.inference_mode())
        torch.manual_seed(seed)
        record = plan and stack.enter_context(steered(model, plan, prompt_length=ids.shape[1]))
        extra = {} if streamer is None else {"streamer": streamer}
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **extra)
    hooks = record.hooks if record else []
    rows = output[:, ids.shape[1] :].tolist()
    return [_generation(tokenizer, name, row, config, hooks, seed) for name, row in zip(names, rows, strict=True)]


def _config(
    model: Any,
    tokenizer: Any,
    max_new_tokens: int,
    temperature: float | None,
    top_p: float | None,
    num_beams: int,
    use_cache: bool,
) -> Any:
    """Every choice of the generation; what a model's own configuration would fill in is set to do nothing."""
    from transformers import GenerationConfig

    sampled = bool(temperature) or top_p is not None
    own = model.generation_config
    end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    ends = end if isinstance(end, list) else [] if end is None else [end]
    # Padding is masked, so any id will do; a model without one must not be given one for good.
    pads = [t for t in (tokenizer.pad_token_id, own.pad_token_id, *ends, 0) if isinstance(t, int)]
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=0,
        do_sample=sampled,
        temperature=(temperature or 1.0) if sampled else 1.0,
        top_p=1.0 if top_p is None else top_p,
        top_k=0,
        typical_p=1.0,
        min_p=0.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        num_beams=num_beams,
        length_penalty=1.0,
        use_cache=use_cache,
        eos_token_id=ends or None,
        pad_token_id=pads[0],
        bos_token_id=tokenizer.bos_token_id,
    )


def _batch(tokenizer: Any, prompts: list[str], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [batch, columns], padded on the left."""
    import torch

    rows = []
    for prompt in prompts:
        row = list(tokenizer(prompt)["input_ids"])
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if not row and start is None:
            raise ModelError("an empty prompt needs a tokenizer with a BOS token; give the prompt a word")
        rows.append(row or [start])
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _generation(
    tokenizer: Any, prompt: str, row: list[int], config: Any, hooks: list[dict[str, Any]], seed: int
) -> Generation:
    """A continuation, cut after its end of sequence."""
    ends = [place for place, token in enumerate(row) if token in (config.eos_token_id or ())]
    tokens = row[: ends[0] + 1] if ends else row
    # Decoded after the prompt: on its own, a tokenizer may drop the first word's space.
    before = list(tokenizer(prompt)["input_ids"])
    whole, first = (
        tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for part in (before + tokens, before)
    )
    return Generation(prompt, whole[len(first) :], tokens, hooks, seed)

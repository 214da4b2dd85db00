"""A plan as the body of Neuronpedia's request for steered text (POST https://www.neuronpedia.org/api/steer).

Neuronpedia adds strength · strength_multiplier · decoder row, as long as the dictionary has it, and ours is a unit
direction: its strength is ours over the row's norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from hooked.hook_names import is_mid
from queries.steer.intervention import ADD, Intervention
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    from atlas.atlas import Atlas


def steer_request(atlas: Atlas, plan: SteeringPlan, *, prompt: str = "I think ", tokens: int = 36) -> dict[str, Any]:
    """The request's values: prompt, model, features with their strengths, multiplier 1.

    Raises PlanError where a feature has no place at Neuronpedia, or is turned in a way that its request cannot say.

    Example:
        requests.post("https://www.neuronpedia.org/api/steer", json=steer_request(atlas, plan), headers=...)
    """
    features = [_feature(atlas, each) for each in plan.interventions]
    return {
        "prompt": prompt,
        "modelId": features[0]["modelId"],
        "features": features,
        "temperature": 0,
        "n_tokens": tokens,
        "freq_penalty": 0,
        "seed": 0,
        "strength_multiplier": 1,
        "steer_method": "SIMPLE_ADDITIVE",
    }


def _feature(atlas: Atlas, each: Intervention) -> dict[str, Any]:
    record, strength = each.dictionary, each.strength
    known = record.neuronpedia_id
    if each.imported or known is None:
        raise PlanError(f"{each.feature} is not known to Neuronpedia: its dictionary's metadata has no neuronpedia_id")
    if each.mode != ADD or strength is None or strength.percent or each.positions != "all" or is_mid(record.hook_name):
        shown = " ".join(str(part) for part in (each.mode, strength, each.positions) if part is not None)
        raise PlanError(
            f"{each.feature} ({shown}): Neuronpedia's request adds a length at all positions; "
            "make the plan with --mode add --strength 8"
        )
    if record.mapped == "o_proj+norm":
        raise PlanError(f"{each.feature} is added behind an output norm here, and before it at Neuronpedia")
    model, _, layer = known.partition("/")
    norm = float(atlas.rows(record.id).vectors["norms"][each.index])
    return {"modelId": model, "layer": layer, "index": each.index, "strength": strength.value / norm}

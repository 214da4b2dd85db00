"""What a plan adds to the stream, as constants: all that other programs can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlas.errors import PlanError
from atlas.ids import RES
from hooked.hook_names import is_mid
from queries.steer.intervention import ADD, Intervention
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    import numpy as np


def added(plan: SteeringPlan, positions: tuple[str, ...] = ("all",)) -> dict[str, dict[int, np.ndarray]]:
    """By positions, by block (from 0): the vector added to what the block puts out, float32 [d_model].

    Features of one block are summed, each strength · unit direction. positions: those that can be said; only those that
    the plan has are in the result. Raises PlanError with what cannot be said.

    Example:
        added(plan)["all"][9].shape  # (576,)
    """
    import numpy as np

    found: dict[str, dict[int, np.ndarray]] = {}
    for each in plan.interventions:
        if why := _unsaid(each, positions):
            raise PlanError(f"{each.feature} cannot be said there: {why}")
        assert each.strength is not None
        blocks = found.setdefault(each.positions, {})
        # In float64, so that the sum does not hang on the order of the features.
        vector = each.strength.value * each.direction.astype(np.float64)
        blocks[each.dictionary.layer] = blocks.get(each.dictionary.layer, 0) + vector
    return {where: {n: v.astype(np.float32) for n, v in sorted(blocks.items())} for where, blocks in found.items()}


def _unsaid(each: Intervention, positions: tuple[str, ...]) -> str:
    """Why an intervention is no constant added after a block; empty where it is."""
    record, strength = each.dictionary, each.strength
    if each.mode != ADD or strength is None:
        return f"mode {each.mode} depends on the hidden state, and a constant is added; make the plan with --mode add"
    if strength.percent:
        return f"{strength} depends on the hidden state's norm; give a length, e.g. --strength 8"
    if record.site != RES or is_mid(record.hook_name):
        place = "between attention and MLP" if record.site == RES else f"to what {record.site} writes"
        return f"it is added {place}, and only the stream after a block is there; make the plan with --sites res"
    if record.layer < 1:
        return f"layer {record.layer}: nothing can be added before the end of block 1; make the plan with --layers 1-99"
    if each.positions not in positions:
        return f"positions {each.positions}; only {', '.join(positions)} can be said"
    return ""

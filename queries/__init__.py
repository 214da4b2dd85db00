"""Questions out: lineages, named questions, drawings; steering plans, the hooked-generation runner, scores."""

from queries.lineage import Lineage, lineage
from queries.steer.generation import Generation, generate
from queries.steer.plan import SteeringPlan
from queries.steer.steering import steered

__all__ = ["Generation", "Lineage", "SteeringPlan", "generate", "lineage", "steered"]

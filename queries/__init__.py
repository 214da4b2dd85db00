"""Questions out: lineages, named questions, drawings; steering plans, the hooked-generation runner, scores."""

from queries.generation import Generation, generate
from queries.lineage import Lineage, lineage
from queries.plan import SteeringPlan
from queries.steering import steered

__all__ = ["Generation", "Lineage", "SteeringPlan", "generate", "lineage", "steered"]

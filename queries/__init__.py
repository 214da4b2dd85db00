"""Questions out: lineages, named questions, drawings; steering plans, the hooked-generation runner, scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from queries.lineage import Lineage, lineage
from queries.neighbours import neighbours
from queries.questions import ask
from queries.search import search
from queries.show import show

if TYPE_CHECKING:
    from queries.steer.generation import Generation, generate
    from queries.steer.plan import SteeringPlan
    from queries.steer.score import ThemeScore, theme_score
    from queries.steer.steering import steered

__all__ = [
    "Generation",
    "Lineage",
    "SteeringPlan",
    "ThemeScore",
    "ask",
    "generate",
    "lineage",
    "neighbours",
    "search",
    "show",
    "steered",
    "theme_score",
]

# Steering is imported at its first use: it needs NumPy, for which nobody who asks the graph should wait. Questions are
# imported at once: they are light, and each is called like its module, which would take the name if it came first.
_STEERING = {
    "Generation": "generation",
    "SteeringPlan": "plan",
    "ThemeScore": "score",
    "generate": "generation",
    "steered": "steering",
    "theme_score": "score",
}


def __getattr__(name: str) -> Any:
    if name not in _STEERING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"queries.steer.{_STEERING[name]}"), name)

"""Questions out: lineages, named questions, drawings; steering plans, the hooked-generation runner, scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from queries.lineage.graph import Lineage
from queries.lineage.walk import lineage
from queries.neighbours import neighbours
from queries.questions.questions import ask
from queries.search import search
from queries.show import show

if TYPE_CHECKING:
    from queries.occurrence.activate import activate
    from queries.steer.generation import Generation, generate
    from queries.steer.plan import SteeringPlan
    from queries.steer.score import ThemeScore, theme_score
    from queries.steer.steering import steered

__all__ = [
    "Generation",
    "Lineage",
    "SteeringPlan",
    "ThemeScore",
    "activate",
    "ask",
    "generate",
    "lineage",
    "neighbours",
    "search",
    "show",
    "steered",
    "theme_score",
]

# What runs a model is imported at its first use: it needs NumPy, for which nobody who asks the graph should wait.
# Questions are imported at once: they are light, and each is called like its module, which would take the name if it
# came first.
_LATER = {
    "Generation": "steer.generation",
    "SteeringPlan": "steer.plan",
    "ThemeScore": "steer.score",
    "activate": "occurrence.activate",
    "generate": "steer.generation",
    "steered": "steer.steering",
    "theme_score": "steer.score",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"queries.{_LATER[name]}"), name)

"""What the steering form says, made into a plan and a run; and a run, made into events."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError, QueryError
from atlas.ids import SITES
from queries.advice.advised import dose, norms_of
from queries.lineage.walk import lineage
from queries.web.engine import MAX_PROMPT, MAX_TOKENS, Turn, continuation
from queries.web.site import first, numbered
from queries.web.views.lineage import options as lineage_options

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.steer.generation import Generation, GenerationOptions
    from queries.steer.plan import SteeringPlan

MODES, POSITIONS, SCHEDULES = (
    ("add", "suppress", "clamp", "ablate"),
    ("all", "prompt", "generated", "turn"),
    ("constant", "linear", "exponential"),
)
_CARRIED = (
    *("feature", "lineage", "floor", "min_res", "min_module", "k", "prompt", "mode", "strength", "schedule", "layers"),
    *("positions", "tokens", "seed", "temperature", "top_p", "control", "chat"),
)
Fields = Mapping[str, list[str]]


@dataclass(frozen=True)
class Run:
    """One request: a prompt, continued with each of these plans by the same options."""

    prompt: str
    chat: bool  # the prompt is a user's message
    plans: Mapping[str, SteeringPlan | None]  # side → plan; None: unsteered
    options: GenerationOptions
    warning: str | None = None  # where the plan does more than was ever measured

    def __call__(self, turn: Turn) -> None:
        """Continue the prompt side by side, as events; then each side's nats under the model as it is."""
        from queries.steer.score import nats_per_token

        if self.warning:
            turn.put({"event": "warning", "text": self.warning})
        given = [{"role": "user", "content": self.prompt}] if self.chat else self.prompt
        made: dict[str, Generation] = {}
        for side, plan in self.plans.items():
            turn.check()
            turn.put({"event": "begin", "side": side})
            made[side] = continuation(turn, side, given, plan, self.options)
            if side == "steered" and plan is not None:
                found = norms_of(turn.model, plan, made[side])
                turn.norms.update(found)
                if found:
                    turn.put({"event": "norms", "values": sorted(found.values())})
        for side, generation in made.items():
            turn.check()
            if generation.tokens:
                (nats,) = nats_per_token(turn.model, turn.tokenizer, [generation])
                turn.put({"event": "nats", "side": side, "nats": round(nats, 3)})


def shown(fields: Fields) -> dict[str, Any]:
    """The form's values as the page shows them again."""
    values: dict[str, Any] = {name: first(fields, name) for name in _CARRIED}
    values["feature"] = [value for text in fields.get("feature", ()) for value in text.split()]
    values["plan"] = first(fields, "plan")
    defaults = {"prompt": "My friend told me that", "mode": "add", "tokens": "24", "seed": "0", "schedule": "constant"}
    for name, default in defaults.items():
        values[name] = values[name] or default
    if not fields:
        values["control"] = ""
    values["positions"] = values["positions"] or "all"
    return values


def carried(fields: Fields) -> dict[str, Any]:
    """What an address holds of the form, so that a link gives the same view."""
    return {name: fields.get(name) or [] for name in _CARRIED}


def plan_of(atlas: Atlas, fields: Fields) -> SteeringPlan:
    """The plan that a form describes: a pasted one, a lineage, or features. Raises PlanError, UnknownFeature."""
    from queries.steer.plan import SteeringPlan

    if text := first(fields, "plan"):
        return pasted(atlas, text)
    values = shown(fields)
    mode = _one_of(values["mode"], MODES, "mode")
    how: dict[str, Any] = {
        "mode": mode,
        "schedule": _one_of(values["schedule"], SCHEDULES, "schedule"),
        "positions": _one_of(values["positions"], POSITIONS, "positions"),
        "layers": values["layers"] or None,
    }
    if values["lineage"]:
        given = {name: value for name in ("floor", "min_res", "min_module", "k") if (value := values[name])}
        graph = lineage(atlas, values["lineage"], **lineage_options(given, atlas))
        return SteeringPlan.from_lineage(atlas, graph, _strength(values["strength"], mode, several=True), **how)
    features = [atlas.full_id(feature) for feature in values["feature"]]
    if not features:
        raise PlanError("the basket is empty: put a feature into it, or steer a lineage")
    strength = _strength(values["strength"], mode, several=len(features) > 1)
    return SteeringPlan.from_features(atlas, features, strength=strength, **how)


def run_of(atlas: Atlas, fields: Fields, norms: Mapping[str, float]) -> Run:
    """The run that a form asks for. Raises AtlasErrors that say which field is wrong.

    norms: of what shares are of, as earlier runs found them.
    """
    from queries.steer.generation import GenerationOptions

    prompt = first(fields, "prompt")
    if not prompt:
        raise QueryError("the prompt is empty: write how the text begins")
    if len(prompt) > MAX_PROMPT:
        raise QueryError(f"a prompt has at most {MAX_PROMPT:,} characters here, not {len(prompt):,}")
    plan = plan_of(atlas, fields)
    values = {
        "max_new_tokens": numbered(first(fields, "tokens", "24"), "tokens", int, 1, MAX_TOKENS),
        "seed": numbered(first(fields, "seed", "0"), "seed", int, 0, 2**63),
        "temperature": numbered(first(fields, "temperature"), "temperature", float, 0.0, 10.0),
        "top_p": numbered(first(fields, "top_p"), "top-p", float, 0.001, 1.0),
    }
    plans: dict[str, SteeringPlan | None] = {"unsteered": None, "steered": plan}
    if first(fields, "control"):
        plans["control"] = plan.control(atlas, values["seed"])
    return Run(
        prompt, first(fields, "chat") == "1", plans, GenerationOptions(**values), dose(atlas, plan, norms).warning
    )


def pasted(atlas: Atlas, text: str) -> SteeringPlan:
    """A plan as JSON text, read as a file of it would be; its own name appears in no message."""
    from queries.steer.plan import SteeringPlan

    with tempfile.TemporaryDirectory(prefix="feature-atlas-") as folder:
        path = Path(folder) / "plan.json"
        path.write_text(text, encoding="utf-8")
        try:
            return SteeringPlan.load(path, atlas)
        except PlanError as error:
            raise PlanError(str(error).replace(str(path), "the plan")) from None


def _strength(text: str, mode: str, *, several: bool) -> str | None:
    if mode == "ablate":
        return None
    return text or (("6%" if several else "30%") if mode == "add" else "0")


def _one_of(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise QueryError(f"{what} is one of {', '.join(known)}, not {value!r}")
    return value


def line(event: Mapping[str, Any]) -> bytes:
    """An event as server-sent events frame it."""
    return f"data: {json.dumps(event)}\n\n".encode()


__all__ = ["SITES", "Run", "carried", "line", "plan_of", "run_of", "shown"]

"""A steered run as a record, and the same run made again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from queries.records.records import append, read_records

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.steer.generation import Generation, GenerationOptions
    from queries.steer.plan import SteeringPlan

COLUMNS = ("id", "time", "kind", "model", "plan", "features", "policy", "seed", "prompts", "tokens", "hooks")
AGAIN = ("prompt", "equal", "from", "tokens", "again")


def record_run(
    model: Any, plan: SteeringPlan, options: GenerationOptions, given: Sequence[Any], made: Sequence[Generation]
) -> str | None:
    """Add one steered batch to the record of the plan's atlas; returns its id."""
    import torch
    import transformers

    config, home = model.config, plan.home
    weights = next(model.parameters())
    values = {
        "kind": "run",
        "plan_sha256": plan.digest,
        "plan": plan.to_dict(),
        "policy_sha256": None if home is None else home.sha256,
        "findings": [str(each) for each in plan.findings],
        "model": str(getattr(config, "_name_or_path", "") or plan.model_name),
        "revision": getattr(config, "_commit_hash", None),
        "dtype": str(weights.dtype).removeprefix("torch."),
        "device": weights.device.type,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "options": asdict(options),
        "prompts": [_plain(prompt) for prompt in given],
        "tokens": [each.tokens for each in made],
        "texts": [each.text for each in made],
        "hooks": made[0].hooks if made else [],
    }
    return append(home, values)


def rows(folder: Path | None) -> list[dict[str, Any]]:
    """The records as flat rows of COLUMNS, newest first."""
    return [
        {
            "id": each["id"],
            "time": each["time"],
            "kind": each.get("kind"),
            "model": each.get("model"),
            "plan": str(each.get("plan_sha256") or "")[:12] or None,
            "features": len(each.get("plan", {}).get("interventions", ())) or None,
            "policy": str(each.get("policy_sha256") or "")[:12] or None,
            "seed": each.get("options", {}).get("seed"),
            "prompts": len(each.get("prompts", ())) or None,
            "tokens": sum(map(len, each.get("tokens", ()))) or None,
            "hooks": len(each.get("hooks", ())) or None,
        }
        for each in reversed(read_records(folder))
    ]


def again(
    atlas: Atlas, id_: str, model: Any = None, tokenizer: Any = None, device: str = "auto"
) -> list[dict[str, Any]]:
    """Make a recorded run again, and compare: rows of AGAIN, one a prompt.

    `from`: place of the first token that differs. model: what runs it; None: the recorded one, loaded anew. Raises
    PlanError where there is no such record, it is no run, or the plan cannot be made from this atlas any more.
    """
    from hooked.load import load_model
    from queries.steer.generation import GenerationOptions, continued
    from queries.steer.plan import SteeringPlan

    found = [each for each in read_records(atlas.path) if str(each["id"]).startswith(id_)]
    if len(found) != 1:
        raise PlanError(f"{len(found)} records of this atlas begin with {id_!r}; `records` lists them")
    (recorded,) = found
    if recorded.get("kind") != "run":
        raise PlanError(f"{id_} is the record of a {recorded.get('kind')}, which its own command makes again")
    with tempfile.TemporaryDirectory(prefix="feature-atlas-") as folder:
        path = Path(folder) / "plan.json"
        path.write_text(json.dumps(recorded["plan"]))
        try:
            plan = SteeringPlan.load(path, atlas)
        except PlanError as error:
            raise PlanError(str(error).replace(str(path), f"the plan of {id_}")) from None
    if plan.digest != recorded["plan_sha256"]:
        raise PlanError(f"the record {id_} was changed by hand: its plan is another than its digest says")
    if model is None:
        model, tokenizer = load_model(recorded["model"], device=device)
    options = GenerationOptions(**recorded["options"])
    made = continued(model, tokenizer, recorded["prompts"], plan, options)
    return [_compared(each.prompt, tokens, each.tokens) for tokens, each in zip(recorded["tokens"], made, strict=True)]


def _compared(prompt: str, before: list[int], now: list[int]) -> dict[str, Any]:
    apart = next((place for place, (one, two) in enumerate(zip(before, now, strict=False)) if one != two), None)
    if apart is None and len(before) != len(now):
        apart = min(len(before), len(now))
    values = (prompt, apart is None, apart, len(before), len(now))
    return dict(zip(AGAIN, values, strict=True))


def _plain(prompt: Any) -> Any:
    """A prompt as it was given: text, messages or ids."""
    if isinstance(prompt, str):
        return prompt
    return [each if isinstance(each, dict) else int(each) for each in prompt]

"""A steered run as a record, and records as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queries.records.records import append, read_records

if TYPE_CHECKING:
    from queries.steer.plan import SteeringPlan

COLUMNS = ("id", "time", "kind", "model", "plan", "features", "policy", "seed", "prompts", "tokens", "hooks")


def record_run(model: Any, plan: SteeringPlan, options: Any, given: Sequence[Any], made: Sequence[Any]) -> str | None:
    """Add one steered batch to the record of the plan's atlas; returns its id.

    options: GenerationOptions; made: what was generated, one for each of the given prompts (queries.steer.generation).
    """
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
        "added": made[0].added if made else [],
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


def _plain(prompt: Any) -> Any:
    """A prompt as it was given: text, messages or ids."""
    if isinstance(prompt, str):
        return prompt
    return [each if isinstance(each, dict) else int(each) for each in prompt]

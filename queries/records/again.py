"""A recorded run made again, and compared."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from queries.records.records import read_records

if TYPE_CHECKING:
    from atlas.atlas import Atlas

COLUMNS = ("prompt", "equal", "from", "tokens", "again")


def again(
    atlas: Atlas, id_: str, model: Any = None, tokenizer: Any = None, device: str = "auto"
) -> list[dict[str, Any]]:
    """Make a recorded run again, and compare: rows of COLUMNS, one a prompt.

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
    return dict(zip(COLUMNS, values, strict=True))

"""A steering plan on disk: JSON that a person can read, without vectors.

Whoever reads it looks the rows up again; the dictionary's `rows_sha256` says whether they are still the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.errors import PlanError

FORMAT = 1
_PLAN_KEYS = ("format", "model", "interventions")
_REQUIRED = ("feature", "mode", "strength", "positions", "rows_sha256")
_KEYS = (*_REQUIRED, "label", "layer", "site", "hook")  # the rest is for the reader


def write_plan(path: Path, model: str, entries: list[dict[str, Any]]) -> None:
    """Write the interventions of a plan on `model`; raises PlanError where the file cannot be written."""
    text = json.dumps(plan_values(model, entries), indent=1, ensure_ascii=False)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise PlanError(f"the plan cannot be written to {path}: {error.strerror}") from None


def plan_values(model: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A plan as the file holds it."""
    return {"format": FORMAT, "model": model, "interventions": entries}


def read_plan(path: Path) -> list[dict[str, Any]]:
    """The interventions as they stand in the file, checked for their keys; raises PlanError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlanError(f"the plan {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, Mapping):
        raise PlanError(f"{path} is not a plan: it must be an object with {', '.join(_PLAN_KEYS)}")
    if values.get("format") != FORMAT:
        raise PlanError(f"{path} has plan format {values.get('format')!r}; this version reads {FORMAT}")
    _check_keys(path, values, _PLAN_KEYS, _PLAN_KEYS)
    entries = values["interventions"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PlanError(f"{path}: interventions must be a list of objects")
    for entry in entries:
        _check_keys(path, entry, _KEYS, _REQUIRED)
        for key in ("feature", "mode", "positions", "rows_sha256"):
            if not isinstance(entry[key], str):
                raise PlanError(f"{path}: {key} must be text, not {entry[key]!r}")
    return entries


def _check_keys(path: Path, values: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    unknown = [key for key in values if key not in known]
    missing = [key for key in required if key not in values]
    if unknown or missing:
        wrong = f"unknown key {unknown[0]!r}" if unknown else f"key {missing[0]!r} is missing"
        raise PlanError(f"{path}: {wrong}; known keys: {', '.join(known)}")

"""A steering plan on disk: JSON that a person can read, without vectors.

Whoever reads it looks the rows up again; the dictionary's `rows_sha256` says whether they are still the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from hooked.families import short_name, split_revision

FORMAT = 1
_PLAN_KEYS = ("format", "model", "interventions")
_ORIGIN = "origin"  # where the features come from: a query, a lineage with its thresholds, the atlas' state
_REQUIRED = ("feature", "mode", "strength", "positions", "rows_sha256")
_KEYS = (*_REQUIRED, "label", "layer", "site", "hook", "vector")  # the rest is for the reader, but for a vector


def write_plan(path: Path, values: Mapping[str, Any]) -> None:
    """Write a plan, as `plan_values` gives it; raises PlanError where the file cannot be written."""
    try:
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise PlanError(f"the plan cannot be written to {path}: {error.strerror}") from None


def plan_values(model: str, entries: list[dict[str, Any]], origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """A plan of interventions on `model` as the file holds it."""
    values = {"format": FORMAT, "model": model, "interventions": entries}
    return values if origin is None else values | {_ORIGIN: dict(origin)}


def check_entry(path: Path, model: str, entry: Mapping[str, Any], record: Dictionary) -> None:
    """Raises PlanError where what a plan says of a feature is not so in its dictionary."""
    true = {"layer": record.layer, "site": record.site, "hook": record.hook_name}
    for name, value in true.items():
        if entry.get(name, value) != value:
            raise PlanError(f"{path} has {entry['feature']} at {name} {entry[name]}, but it is at {name} {value}")
    if short_name(split_revision(model)[0]) != short_name(split_revision(record.model_name)[0]):
        raise PlanError(f"{path} is for model {model}, but {entry['feature']} is of {record.model_name}")


def read_plan(path: Path) -> dict[str, Any]:
    """The plan as it stands in the file, checked for its keys; raises PlanError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlanError(f"the plan {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise PlanError(f"{path} is not a plan: it must be an object with {', '.join(_PLAN_KEYS)}")
    if values.get("format") != FORMAT:
        raise PlanError(f"{path} has plan format {values.get('format')!r}; this version reads {FORMAT}")
    _check_keys(path, values, (*_PLAN_KEYS, _ORIGIN), _PLAN_KEYS)
    if not isinstance(values["model"], str):
        raise PlanError(f"{path}: model must be text, not {values['model']!r}")
    entries = values["interventions"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PlanError(f"{path}: interventions must be a list of objects")
    for entry in entries:
        _check_keys(path, entry, _KEYS, _REQUIRED)
        for key in ("feature", "mode", "positions", "rows_sha256"):
            if not isinstance(entry[key], str):
                raise PlanError(f"{path}: {key} must be text, not {entry[key]!r}")
    return values


def _check_keys(path: Path, values: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...]) -> None:
    unknown = [key for key in values if key not in known]
    missing = [key for key in required if key not in values]
    if unknown or missing:
        wrong = f"unknown key {unknown[0]!r}" if unknown else f"key {missing[0]!r} is missing"
        raise PlanError(f"{path}: {wrong}; known keys: {', '.join(known)}")

"""Strengths: as they are given for features, and over the layers that are steered (paper §5.3, App. B)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from atlas.errors import PlanError

ALPHA = -0.05  # decay of the exponential schedule per layer (paper App. B)
SCHEDULES = ("constant", "linear", "exponential")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LAYERS = re.compile(r"(single:|upto:)?(-?\d+)|(-?\d+)-(\d+)")


@dataclass(frozen=True)
class Strength:
    """How strongly a feature is turned; `str()` writes it as it is read: `8` or `30%`."""

    value: float  # in units of the unit direction; per cent of the norm that the hook sees where `percent`
    percent: bool = False

    @classmethod
    def of(cls, given: Strength | float | str) -> Strength:
        """Read `8`, `"8"`, `"-2.5"` or `"30%"`; raises PlanError for anything else, NaN and infinity included."""
        if isinstance(given, Strength):
            return given
        text = str(given).strip()
        number = text.removesuffix("%").strip()
        if isinstance(given, bool) or not _NUMBER.fullmatch(number) or not math.isfinite(float(number)):
            raise PlanError(f"strength {given!r} is neither a number like 8 nor a share of the norm like 30%")
        return cls(float(number), text.endswith("%"))

    def __str__(self) -> str:
        return f"{self.value:.12g}{'%' if self.percent else ''}"


Given = Strength | float | str | None  # a strength as a user gives it; None: the one that all features share


def given_by_id(features: Mapping[str, Given] | Iterable[str]) -> dict[str, Given]:
    """Features with what strength each was given, from such a mapping or from ids alone.

    Raises PlanError for an id that is named twice.
    """
    if isinstance(features, Mapping):
        return dict(features)
    ids = [features] if isinstance(features, str) else list(features)
    twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
    if twice:
        raise PlanError(f"{twice[0]} is named twice; give it once")
    return dict.fromkeys(ids)


def given_by_row(rows: list[dict[str, Any]]) -> dict[str, Given]:
    """Features with what strength each was given, from a query's rows; the same row twice, as paths return it, is one.

    Raises PlanError where there is no row or no column `feature`, or a feature has two strengths.
    """
    if not rows:
        raise PlanError("the query returned no row, so there is nothing to steer")
    if "feature" not in rows[0]:
        columns = ", ".join(rows[0])
        raise PlanError(f"the query returns {columns}; steering needs a column feature: RETURN f.id AS feature")
    features: dict[str, Given] = {}
    for row in rows:
        feature, strength = row["feature"], row.get("strength")
        if not isinstance(feature, str):
            raise PlanError(f"column feature holds {feature!r}; it must hold feature ids: RETURN f.id AS feature")
        if features.setdefault(feature, strength) != strength:
            raise PlanError(f"the query gives {feature} two strengths, {features[feature]} and {strength}")
    return features


def scheduled(strength: Strength, schedule: str, layer: int, layers: Iterable[int]) -> Strength:
    """The strength at `layer` of a plan over `layers`, which hold it (paper App. B).

    constant: s. exponential: s·e^{αl}, l the layer's number. linear: from s at the first layer to 1 at the last, in s's
    unit; s where there is one layer. Raises PlanError for another schedule.
    """
    if schedule == "constant":
        return strength
    if schedule == "exponential":
        return Strength(strength.value * math.exp(ALPHA * layer), strength.percent)
    if schedule == "linear":
        first, last = min(layers), max(layers)
        part = (layer - first) / (last - first) if last > first else 0.0
        return Strength(strength.value + part * (1.0 - strength.value), strength.percent)
    raise PlanError(f"schedule {schedule!r} is not known; known: {', '.join(SCHEDULES)}")


def layer_test(selection: str | None) -> Callable[[int], bool]:
    """Whether a layer is selected: `single:12`, `upto:12` or `8-12` (both ends included); None selects all.

    Raises PlanError where the text is of another form.
    """
    if selection is None:
        return lambda layer: True
    found = _LAYERS.fullmatch(selection.strip())
    if not found or (found[2] is not None and found[1] is None):
        raise PlanError(f"layers {selection!r} are not of the form single:12, upto:12 or 8-12")
    if found[1] == "single:":
        low = high = int(found[2])
    elif found[1] == "upto:":
        low, high = -1, int(found[2])  # −1: the stream before block 0
    else:
        low, high = int(found[3]), int(found[4])
    if low > high:
        raise PlanError(f"layers {selection!r} hold none: {low} comes after {high}")
    return lambda layer: low <= layer <= high

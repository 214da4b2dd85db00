"""What advise measured of a feature, for whoever steers it later: a strength as a length, and if it is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.folder.results import keep, kept
from atlas.ids import RES
from queries.steer.intervention import ADD

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.steer.generation import Generation
    from queries.steer.intervention import Intervention
    from queries.steer.plan import SteeringPlan

_PREFIX = "advice-"  # of the results' names
_SLACK = 1.001  # of a total, for lengths that were rounded when they were written


@dataclass(frozen=True)
class Dose:
    """A plan's strengths as lengths, by what was measured; None where it was not."""

    lengths: tuple[float | None, ...]  # of each intervention; a share of the norm times the stream's median norm there
    total: float | None  # their sum; None where one is not known
    tried: float | None  # the largest sum that advise tried with one of the features
    norms: tuple[float | None, ...]  # of what each share of the norm is one of; None where it is not known

    @property
    def unmeasured(self) -> bool:
        """Whether a share of the norm is in it whose norm is not known."""
        return None in self.norms

    @property
    def warning(self) -> str | None:
        """What to say where the plan does more than was ever measured; None where it does not."""
        if self.total is None or self.tried is None or self.total <= self.tried * _SLACK:
            return None
        return (
            f"{self.total:.3g} in all is above the {self.tried:.3g} that advise measured: what becomes of the text is "
            "not known; look at the nats, or let advise measure this --strength"
        )


def keep_advice(atlas: Atlas, feature: str, rows: Sequence[dict[str, Any]], about: str) -> None:
    """Leave advice's rows in the atlas's folder, where it has one; raises OSError where it cannot be written."""
    keep(atlas.path, _PREFIX + feature.replace("/", "+"), atlas.dictionaries, rows, about)


def _is_whole(atlas: Atlas, row: dict[str, Any]) -> bool:
    """Whether a row says what one of advise does: it comes from a file, which anybody may have written."""
    numbers = [row.get("strength"), *([row.get("norm")] if row.get("feature") else [])]
    feature = row.get("feature")
    known = not feature or (isinstance(feature, str) and feature.rpartition("/")[0] in atlas.dictionaries)
    return known and all(isinstance(each, int | float) for each in numbers)


def norms_of(model: Any, plan: SteeringPlan, made: Generation) -> dict[str, float]:
    """By dictionary, how long what was steered there is: of modules to which nothing but shares of it were added.

    That is the length that was added, divided by the length of the shares' sum.
    """
    from hooked.hookpoints import write_point

    places: dict[str, list[Intervention]] = {}
    sides: dict[str, set[str]] = {}
    for each in plan.interventions:
        point = write_point(model, each.dictionary)
        places.setdefault(point.name, []).append(each)
        sides.setdefault(point.name, set()).add(point.side)
    norms: dict[str, float] = {}
    for hook, length in zip(made.hooks, made.added, strict=True):
        here = places[hook["module"]]
        shares = [
            each.strength.value / 100 * each.direction
            for each in here
            if each.mode == ADD and each.positions == "all" and each.strength is not None and each.strength.percent
        ]
        if length and len(shares) == len(here) and len(sides[hook["module"]]) == 1:
            norms |= {each.dictionary.id: length / float(np.linalg.norm(np.sum(shares, axis=0))) for each in here}
    return norms


def dose(atlas: Atlas, plan: SteeringPlan, found: Mapping[str, float] | None = None) -> Dose:
    """What a plan adds, in lengths, and what advise tried of it.

    A share of the norm is a length only where advise measured the stream's norm in that layer, or where a run did
    (`found`, norms_of); modes other than add have no length that is known before the model runs.

    Example:
        print(dose(atlas, SteeringPlan.from_features(atlas, ["9-res-2k/2018"], strength="30%")).lengths)
    """
    known = kept(atlas.path, atlas.dictionaries, f"{_PREFIX}*")
    advice = [[row for row in result.rows if _is_whole(atlas, row)] for result in known.values()]
    # Of one feature each: a row of all layers together names none.
    norms = {
        atlas.dictionaries[row["feature"].rpartition("/")[0]].layer: row["norm"]
        for rows in advice
        for row in rows
        if row.get("feature")
    }
    lengths: list[float | None] = []
    shared: list[float | None] = []
    for each in plan.interventions:
        length = None
        if each.mode == "add" and each.strength is not None:
            # What MLP and attention put out is shorter than the stream, whose norm advise measured.
            advised = norms.get(each.dictionary.layer) if each.dictionary.site == RES else None
            norm = (found or {}).get(each.dictionary.id, advised) if each.strength.percent else 1.0
            shared += [norm] if each.strength.percent else []
            if norm is not None:
                share = each.strength.value / (100 if each.strength.percent else 1)
                length = abs(share) * norm
        lengths.append(length)
    turned = {each.feature for each in plan.interventions}
    of_it = [row["strength"] for rows in advice if turned & {row.get("feature") for row in rows} for row in rows]
    total = sum(length for length in lengths if length is not None) if None not in lengths else None
    return Dose(tuple(lengths), total, max(of_it, default=None), tuple(shared))

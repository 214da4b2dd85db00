"""From ids to interventions: which features a plan keeps, with which strength and which rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.ids import SITES
from atlas.schema import FEATURE
from queries.steer.intervention import ABLATE, ADD, CLAMP, SUPPRESS, Intervention, check
from queries.steer.strength import Strength, layer_test

if TYPE_CHECKING:
    from atlas.atlas import Atlas

Given = Strength | float | str | None  # a strength as a user gives it; None: the one shared by all features

LABELS = f"""
MATCH (f:{FEATURE}) WHERE f.id IN $ids
RETURN f.id AS id, coalesce(f.label, f.fires_on) AS label
"""


def listed(features: Iterable[str]) -> dict[str, Given]:
    """Ids as a mapping without strengths; raises PlanError for one named twice."""
    names = [features] if isinstance(features, str) else list(features)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(f"{twice[0]} is named twice; give it once")
    return dict.fromkeys(names)


def query_features(rows: list[dict[str, Any]]) -> dict[str, Given]:
    """Features and strengths of a query's rows; the same row twice, as paths return it, counts once.

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


def keep(found: Mapping[str, tuple[Dictionary, int]], layers: str | None, sites: Iterable[str] | None) -> list[str]:
    """Features in the selected layers and sites; raises PlanError where there are none."""
    chosen = SITES if sites is None else tuple(sites)
    for site in chosen:
        check("site", site, SITES)
    selected = layer_test(layers)
    kept = [f for f, (record, _) in found.items() if record.site in chosen and selected(record.layer)]
    if not kept:
        there = sorted({(record.layer, record.site) for record, _ in found.values()})
        where = ", ".join(f"{layer}/{site}" for layer, site in there) or "nowhere"
        raise PlanError(f"no feature is left to steer: the {len(found)} given sit at {where}")
    return kept


def own_strength(feature: str, own: Given, shared: Given, mode: str) -> Strength | None:
    """A feature's strength before the schedule; raises PlanError where it needs one and has none."""
    chosen = shared if own is None else own
    if mode == ABLATE:
        if chosen is not None:
            raise PlanError(f"mode ablate has no strength; {feature} was given {chosen}")
        return None
    if chosen is None:
        if mode == SUPPRESS:
            return Strength(0.0)
        raise PlanError(f"mode {mode} needs a strength for {feature}, e.g. {'30%' if mode == ADD else 5}")
    return Strength.of(chosen)


def interventions_of(
    atlas: Atlas,
    found: Mapping[str, tuple[Dictionary, int]],
    strengths: Mapping[str, Strength | None],
    mode: str,
    positions: str,
) -> Iterable[Intervention]:
    """The interventions with their rows; raises UnknownFeature for a dead feature, which has no direction."""
    ids = list(found)
    labels = {row["id"]: row["label"] for row in atlas.read(LABELS, ids=ids)}
    directions = np.array(atlas.directions(ids), dtype=np.float32)
    for feature, direction in zip(ids, directions, strict=True):
        record, index = found[feature]
        rows = atlas.rows(record.id) if mode in (SUPPRESS, CLAMP) else None
        yield Intervention(
            feature, record, index, mode, strengths[feature], positions, labels.get(feature), direction, rows
        )

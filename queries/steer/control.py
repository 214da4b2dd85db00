"""A plan's control: the same doses, to other living features of the same dictionaries, drawn by a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.schema import FEATURE

if TYPE_CHECKING:
    from atlas.atlas import Atlas

# Never seen to fire on the text that labels were made from: noise rather than a feature.
_SILENT = f"MATCH (f:{FEATURE}) WHERE f.dictionary = $dictionary AND f.frequency = 0.0 RETURN f.index AS index"


def drawn(atlas: Atlas, features: Mapping[str, tuple[Dictionary, int]], seed: int) -> dict[str, str]:
    """For each feature another of its dictionary: living, none of those given, none twice.

    Raises PlanError where a dictionary has too few.
    """
    groups: dict[str, list[str]] = {}
    for feature, (dictionary, _) in features.items():
        groups.setdefault(dictionary.id, []).append(feature)
    others: dict[str, str] = {}
    for number, name in enumerate(sorted(groups)):
        indices = {features[feature][1] for feature in groups[name]}
        others |= _drawn(atlas, name, sorted(groups[name]), indices, [abs(seed), number])
    return others


def _drawn(atlas: Atlas, dictionary: str, given: Sequence[str], taken: set[int], seed: list[int]) -> dict[str, str]:
    import numpy as np

    alive = atlas.rows(dictionary).alive.copy()
    silent = [row["index"] for row in atlas.read(_SILENT, dictionary=dictionary)]
    alive[[*silent, *taken]] = False
    candidates = np.flatnonzero(alive)
    if len(candidates) < len(given):
        raise PlanError(f"{dictionary} has {len(candidates)} other living features; a control needs {len(given)}")
    chosen = np.random.default_rng(seed).choice(candidates, len(given), replace=False)
    return {feature: f"{dictionary}/{int(index)}" for feature, index in zip(given, chosen, strict=True)}

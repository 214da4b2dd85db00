"""Features of the theme that no arm turns: whether they fire when the unsteered model re-reads a text.

What is added to the stream cannot reach them, since the model that re-reads is not steered: they see the words alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.schema import FEATURE
from queries.steer.theme import Theme
from queries.sweep.arms import Chain

if TYPE_CHECKING:
    import torch

    from atlas.atlas import Atlas
    from hooked.encoder import Encoder
    from hooked.hookpoints import HookPoint

MOST = 16  # features chosen where none are named
_FIRST, _NEEDED = 5, 2  # of the first five words that a feature fires on, how many are the theme's
_FIRING = (
    f"MATCH (f:{FEATURE}) WHERE f.model = $model AND f.fires_on IS NOT NULL AND f.max_activation > 0.0 "
    "RETURN f.id AS id, f.fires_on AS fires_on ORDER BY f.id"
)
_LARGEST = f"MATCH (f:{FEATURE}) WHERE f.id IN $ids RETURN f.id AS id, f.max_activation AS largest"


def held_out(atlas: Atlas, chain: Chain, theme: Theme, named: Sequence[str] = ()) -> list[str]:
    """Ids of features of the theme outside the chain: those named, else those whose first words are the theme's.

    Raises PlanError where a named one is turned by an arm, or has no largest activation on record; UnknownFeature.
    """
    if not named:
        return _chosen(atlas, chain, theme)
    ids = [atlas.full_id(each) for each in named]
    for id_ in ids:
        atlas.locate(id_)
        if id_ in chain:
            raise PlanError(f"{id_} is turned by the sweep's own arms: a held-out feature must not be")
    known = {row["id"] for row in atlas.read(_LARGEST, ids=ids) if row["largest"]}
    without = [id_ for id_ in ids if id_ not in known]
    if without:
        raise PlanError(f"{without[0]} has no largest activation on record: run label --text, or name another")
    return ids


def _chosen(atlas: Atlas, chain: Chain, theme: Theme) -> list[str]:
    model = next(iter(chain.values()))[0].model
    ranked = []
    for row in atlas.read(_FIRING, model=model):
        words = [word.strip() for word in row["fires_on"].split(",")][:_FIRST]
        found = sum(bool(theme.findall(word)) for word in words)
        if found >= _NEEDED and row["id"] not in chain:
            ranked.append((-found, row["id"]))
    return [id_ for _, id_ in sorted(ranked)[:MOST]]


@dataclass(frozen=True)
class Readers:
    """The encoders of held-out features, grouped by dictionary."""

    points: Mapping[str, HookPoint]  # dictionary's id -> where its encoder reads
    encoders: Mapping[str, Encoder]
    largest: Mapping[str, torch.Tensor]  # float32 [features of the dictionary]: largest activation on record

    @classmethod
    def of(cls, atlas: Atlas, model: Any, features: Sequence[str]) -> Readers:
        """Readers of these features in the loaded model; raises PlanError, ModelError."""
        import torch

        from hooked.encoder import Encoder
        from hooked.hookpoints import read_point

        groups: dict[str, tuple[Dictionary, list[str], list[int]]] = {}
        for feature in features:
            record, index = atlas.locate(feature)
            _, ids, indices = groups.setdefault(record.id, (record, [], []))
            ids.append(feature)
            indices.append(index)
        largest = {row["id"]: row["largest"] for row in atlas.read(_LARGEST, ids=list(features))}
        return cls(
            {id_: read_point(model, record) for id_, (record, _, _) in groups.items()},
            {
                id_: Encoder.of(record, atlas.rows(id_), rows).to(model.device)
                for id_, (record, _, rows) in groups.items()
            },
            {
                id_: torch.tensor([float(largest[f]) for f in ids], device=model.device)
                for id_, (_, ids, _) in groups.items()
            },
        )

    def strongest(self, seen: Mapping[str, torch.Tensor]) -> np.ndarray | None:
        """float64 [rows, columns]: at each position the largest activation of any of them, relative to its record."""
        import torch

        if not self.points:
            return None
        parts = [(self.encoders[id_](seen[id_]).values / self.largest[id_]).amax(-1).cpu() for id_ in self.points]
        strongest: np.ndarray = torch.stack(parts).amax(0).double().numpy()
        return strongest

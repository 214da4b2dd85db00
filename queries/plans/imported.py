"""Directions that are no features: as a plan, and which features they are nearest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.errors import PlanError, QueryError
from atlas.ids import RES
from atlas.rows import Rows
from hooked.hook_names import is_mid
from queries.neighbours import ALL, COLUMNS, neighbours
from queries.plans.control_vector import read_control_vector
from queries.plans.vector import vector_intervention
from queries.policy.home import home_of
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    import numpy as np

    from atlas.atlas import Atlas


def imported_plan(path: Path, atlas: Atlas, model: str | None = None) -> SteeringPlan:
    """A control vector as a plan that adds each direction, at its length, after its block.

    model: whose it is; None: the atlas' only one. Raises PlanError where the file is no control vector, the atlas has
    several models and none is named, or their width is another.
    """
    names = {d.model_name: d.d_model for d in atlas.dictionaries.values()}
    if model is None and len(names) != 1:
        raise PlanError(f"say whose control vector it is, --model {' or '.join(sorted(names)) or 'NAME'}")
    name = model or next(iter(names))
    directions = read_control_vector(path)
    width = len(next(iter(directions.values())))
    if names.get(name, width) != width:
        raise PlanError(f"{path} has directions of {width} numbers, but {name} has a stream of {names[name]}")
    turns = [
        vector_intervention(name, block, vector, path.name, home=home_of(atlas)) for block, vector in directions.items()
    ]
    return SteeringPlan(tuple(turns), {"imported": path.name})


def nearest(
    atlas: Atlas, directions: Mapping[int, np.ndarray], dictionaries: Sequence[str] | None = None, top: int = 10
) -> Rows:
    """The features nearest to each direction, block by block: rows as `neighbours` gives them.

    Each direction is looked for in the dictionaries of its own block: those named, else those of the stream after it.
    Raises QueryError where there is none for any.
    """
    found: list[dict[str, object]] = []
    named = (
        None if dictionaries in (None, [ALL], (ALL,)) else {atlas.dictionary(name).id for name in dictionaries or ()}
    )
    for block, vector in directions.items():
        own = [d for d in atlas.dictionaries.values() if d.layer == block]
        if dictionaries is None:
            own = [d for d in own if d.site == RES and not is_mid(d.hook_name)]
        chosen = [d.id for d in own if named is None or d.id in named]
        if chosen:
            found += neighbours(atlas, vector, dictionaries=chosen, top=top)
    if not found:
        blocks = ", ".join(map(str, directions))
        raise QueryError(f"the directions are of blocks {blocks}, of which the atlas has no such dictionary")
    return Rows(found, COLUMNS)

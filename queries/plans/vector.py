"""An intervention along a direction that is no feature of an atlas: it carries its vector, also in the plan's file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.ids import RES, depth
from hooked.families import short_name, split_revision
from queries.policy.home import Home
from queries.steer.intervention import ADD, VECTOR, Intervention
from queries.steer.strength import Strength

if TYPE_CHECKING:
    import numpy as np

_WIDEST = 1 << 17  # numbers of a direction


def vector_intervention(
    model: str,
    block: int,
    vector: np.ndarray,
    label: str,
    strength: Strength | None = None,
    positions: str = "all",
    home: Home | None = None,
) -> Intervention:
    """A vector [d_model] added to what a block (from 0) puts out; `strength`: its length where that is another.

    home: of the atlas whose policy holds for it.

    Raises PlanError where it is no vector of finite numbers that are not all 0.
    """
    import numpy as np

    values = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(values))
    if values.ndim != 1 or not 0 < len(values) <= _WIDEST or not math.isfinite(length) or length == 0:
        raise PlanError(f"{label}: the direction after block {block} is no vector of finite numbers, not all 0")
    unit = (values / length).astype(np.float32)
    digest = hashlib.sha256(np.ascontiguousarray(unit, dtype="<f4").tobytes()).hexdigest()
    short = short_name(split_revision(model)[0])
    record = Dictionary(
        id=f"{short}/{block}-{VECTOR}",
        model=short,
        model_name=model,
        layer=block,
        site=RES,
        depth=depth(RES, block),
        set=VECTOR,
        hook_name=f"blocks.{block}.hook_resid_post",
        hook_name_in=f"blocks.{block}.hook_resid_post",
        hf_hook_name=None,
        hf_hook_name_in=None,
        architecture=VECTOR,
        d_sae=1,
        d_model=len(unit),
        d_in=len(unit),
        k=None,
        apply_b_dec_to_input=False,
        normalize_activations="none",
        centred_input=False,
        mapped=None,
        dead_rows=0,
        release=None,
        sae_id=None,
        neuronpedia_id=None,
        source=label,
        sha256=digest,
        rows_sha256=digest,
    )
    given = strength or Strength(length)
    return Intervention(f"{record.id}/0", record, 0, ADD, given, positions, label, unit, home=home)


def vector_from_file(model: str, entry: Mapping[str, Any], home: Home | None) -> Intervention:
    """The intervention of a plan's entry that carries its vector; raises PlanError where it was changed by hand."""
    import numpy as np

    values = entry["vector"]
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise PlanError("a plan's vector is a list of numbers")
    if entry["mode"] != ADD or not isinstance(entry.get("layer"), int) or entry.get("site", RES) != RES:
        raise PlanError("a plan's vector is added to the stream after a block: mode add, site res, a layer")
    made = vector_intervention(
        model,
        entry["layer"],
        np.array(values, dtype=np.float32),
        str(entry.get("label") or "a direction"),
        Strength.of(entry["strength"]),
        entry["positions"],
        home,
    )
    if made.dictionary.rows_sha256 != entry["rows_sha256"] or made.feature != entry["feature"]:
        raise PlanError(f"the vector of {entry['feature']} is not the one that the plan was made with: import it again")
    return made

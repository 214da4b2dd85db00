"""Control vectors: llama.cpp's file of directions, `direction.N` added to what block N (from 0) puts out, N ≥ 1.

Format: GGUF, `general.architecture` controlvector, tensors F32 [d_model]; llama.cpp reads nothing else of it. What plan
it was made from stands beside them, under `feature_atlas.`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from atlas.folder.manifest import replacing
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    import numpy as np

ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.([0-9]{1,6})")


def write_control_vector(path: Path, plan: SteeringPlan, blocks: Mapping[int, np.ndarray]) -> None:
    """Write directions by block, float32 [d_model] each; the same plan gives the same bytes.

    Raises PlanError where the gguf package is missing or the file cannot be written.
    """
    gguf = _gguf()
    model = plan.interventions[0].dictionary.model
    try:
        with replacing(path) as temporary:
            writer = gguf.GGUFWriter(temporary, ARCHITECTURE)
            writer.add_name(f"feature-atlas plan {plan.digest[:12]}")
            writer.add_string(f"{ARCHITECTURE}.model_hint", model)
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(blocks))
            writer.add_string("feature_atlas.plan_sha256", plan.digest)
            writer.add_string("feature_atlas.plan", json.dumps(plan.to_dict(), ensure_ascii=False, default=str))
            for block, vector in sorted(blocks.items()):
                writer.add_tensor(f"direction.{block}", vector)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    except OSError as error:
        raise PlanError(f"the control vector cannot be written to {path}: {error.strerror}") from None


def read_control_vector(path: Path) -> dict[int, np.ndarray]:
    """The directions of a file by block (from 0), float32 [d_model] each, none of them all 0.

    Raises PlanError where it is no control vector, or its directions are not finite or of several widths.

    Example:
        directions = read_control_vector(Path("happy.gguf"))
        print(sorted(directions))  # blocks
    """
    import numpy as np

    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(path)
        kind = reader.get_field("general.architecture")
        architecture = None if kind is None else kind.contents()
        tensors = [(str(tensor.name), np.array(tensor.data), tensor.tensor_type.name) for tensor in reader.tensors]
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None
    # Of a damaged file the reader raises whatever its bytes lead to.
    except Exception as error:
        raise PlanError(f"{path} is not a GGUF file, or is damaged ({type(error).__name__})") from None
    if architecture != ARCHITECTURE:
        raise PlanError(f"{path} holds {architecture or 'no architecture'}; a control vector's is {ARCHITECTURE}")
    found: dict[int, np.ndarray] = {}
    for name, values, type_ in tensors:
        named = _NAME.fullmatch(name)
        if named is None or type_ not in ("F32", "F16", "F64") or values.ndim != 1 or int(named[1]) in found:
            raise PlanError(f"{path}: {name} ({type_}, {values.ndim} dimensions) is no direction.N of plain numbers")
        vector = values.astype(np.float32)
        if not np.isfinite(vector).all():
            raise PlanError(f"{path}: {name} holds numbers that are not finite")
        if vector.any():  # a direction of zeros adds nothing
            found[int(named[1])] = vector
    if len({len(vector) for vector in found.values()}) != 1:
        raise PlanError(f"{path} holds no direction that is not all 0, or several widths")
    return dict(sorted(found.items()))


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise PlanError("control vectors need the package gguf: pip install 'feature-atlas[gguf]'") from None
    return gguf

"""A plan for EasySteer (github.com/ZJU-REAL/EasySteer): its steering specification, and the vectors that it names.

Each positions of the plan are one vector of the specification, a control vector of its own beside the JSON. `conflict`
says that several are added one after another, which for constants is their sum.
"""

from __future__ import annotations

import json
from pathlib import Path

from atlas.errors import PlanError
from atlas.folder.manifest import write_text
from queries.plans.added import added
from queries.plans.control_vector import write_control_vector
from queries.steer.plan import SteeringPlan

_APPLY = {
    "all": {"prompt": "all", "generation": "all"},
    "prompt": {"prompt": "all"},
    "generated": {"generation": "all"},
}


def write_easysteer(path: Path, plan: SteeringPlan) -> list[Path]:
    """Write the specification to `path` and its vectors beside it; returns the vectors' files.

    Raises PlanError where the plan cannot be said, or a file not be written.
    """
    parts = added(plan, tuple(_APPLY))
    vectors, files = [], []
    for where, blocks in sorted(parts.items()):
        file = path.with_name(f"{path.stem}{'' if len(parts) == 1 else f'.{where}'}.gguf")
        write_control_vector(file, plan, blocks)
        files.append(file)
        said = {"source": file.name, "algorithm": "direct", "scale": 1.0, "normalize": False}
        vectors.append(said | {"layers": list(blocks), "apply": _APPLY[where]})
    specification = {"vectors": vectors, "conflict": "sequential"}
    try:
        write_text(path, json.dumps(specification, indent=1) + "\n")
    except OSError as error:
        raise PlanError(f"the plan cannot be written to {path}: {error.strerror}") from None
    return files

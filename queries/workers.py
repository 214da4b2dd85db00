"""What a worker of a cluster measures with: the atlas and the model, opened once in its process."""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING, Any

from atlas.cluster import Shared
from atlas.errors import ClusterError

if TYPE_CHECKING:
    from atlas.atlas import Atlas


@cache
def worker_atlas(shared: Shared) -> Atlas:
    """The atlas at the driver's address; raises ClusterError where it is another, or in another state."""
    from atlas.atlas import open_atlas

    atlas = open_atlas(shared.address)
    if Shared.of(atlas) != shared:
        atlas.close()
        raise ClusterError(
            f"{socket.gethostname()} finds another atlas at {shared.address}: give all nodes the same one"
        )
    return atlas


@cache
def worker_model(name: str, gpu: bool) -> tuple[Any, Any]:
    """The model and its tokenizer, on the GPU that the task has."""
    from hooked.load import load_model

    return load_model(name, device="cuda:0" if gpu else "cpu")

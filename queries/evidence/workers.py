"""What a worker of a cluster measures with: the atlas and the model, opened once, seen to be the driver's."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from atlas.errors import ClusterError
from atlas.folder.dictionary import Dictionary

if TYPE_CHECKING:
    from atlas.atlas import Atlas


def worker_atlas(address: str, records: Mapping[str, Dictionary]) -> Atlas:
    """The atlas at an address; raises ClusterError where its dictionaries are not these."""
    atlas = _atlas(address)
    there = atlas.dictionaries
    if any(id_ not in there or there[id_].rows_sha256 != record.rows_sha256 for id_, record in records.items()):
        raise ClusterError(f"{socket.gethostname()} finds another atlas at {address}: give all nodes the same one")
    return atlas


@cache
def worker_model(name: str, gpu: bool) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    from hooked.load import load_model

    return load_model(name, device="cuda:0" if gpu else "cpu")


@cache
def _atlas(address: str) -> Atlas:
    from atlas.atlas import open_atlas

    return open_atlas(address)

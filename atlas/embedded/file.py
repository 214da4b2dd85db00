"""The file that holds one state of an embedded graph: where it is, and whether it is what was written.

LadybugDB opens an empty file as a new database and does not notice flipped bytes, so a file is compared with the size
and sha256 that the manifest recorded before the engine sees it.
"""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atlas.errors import CorruptAtlas

HASHED = 64 << 20  # bytes: files up to this size are hashed whole, larger ones at SAMPLES places of equal size
SAMPLES = 64
_SMALLEST = 1 << 28  # bytes of address space that the engine needs, however small a graph is
_REBUILD = "delete that file and run feature-atlas ingest on the atlas: matches are staged, so it is soon rebuilt"


def state_path(folder: Path, token: str) -> Path:
    """Where the state of that name is kept."""
    return folder / f"graph-{token}.lbdb"


def fingerprint(path: Path) -> dict[str, Any]:
    """`size` in bytes and `sha256` (hex) of a file.

    Files above 64 MiB are hashed at 64 evenly spaced places of 1 MiB, first and last among them: opening stays fast;
    what is not noticed then is damage that lies wholly between them. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _fingerprint(descriptor)
    finally:
        os.close(descriptor)


def open_checked(path: Path, expected: Mapping[str, Any] | None) -> int:
    """A descriptor of the file, which must have that fingerprint; the file may be removed while it is held.

    Raises CorruptAtlas where it is missing, empty, truncated or changed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise CorruptAtlas(
            f"the graph {path} cannot be opened ({error.strerror}); if an ingest has just ended, try again; "
            f"otherwise {_REBUILD}"
        ) from None
    try:
        found = _fingerprint(descriptor) if expected else {"size": os.fstat(descriptor).st_size}
        if found["size"] == 0 or (expected and found["size"] != expected["size"]):
            wanted = f" instead of {expected['size']}" if expected else ""
            raise CorruptAtlas(f"the graph {path} has {found['size']} bytes{wanted}; {_REBUILD}")
        if expected and found["sha256"] != expected["sha256"]:
            raise CorruptAtlas(f"the graph {path} has changed since it was written (sha256); {_REBUILD}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def engine_path(descriptor: int, path: Path) -> str:
    """The path by which the engine opens a held file, also after it was removed; where that cannot be, its own path."""
    held = f"/proc/self/fd/{descriptor}"
    return held if os.path.exists(held) else str(path)


def _fingerprint(descriptor: int) -> dict[str, Any]:
    size = os.fstat(descriptor).st_size
    digest = hashlib.sha256()
    length = HASHED // SAMPLES
    if size <= HASHED:
        starts = list(range(0, size, length))
    else:
        starts = [(size - length) * i // (SAMPLES - 1) for i in range(SAMPLES)]
    for start in starts:
        digest.update(os.pread(descriptor, length, start))
    return {"size": size, "sha256": digest.hexdigest()}


def mapped_sizes(buffer: int, size: int | None = None) -> dict[str, int]:
    """How much address space the engine may map: `buffer_pool_size` and `max_db_size` of ladybug.Database, in bytes.

    It maps 8 TB for any database: a process has room for fifteen of them, and none where the address space is limited
    (`ulimit -v`, some batch systems). There it gets a quarter of what is allowed, as a power of two, which is how large
    a graph can be. A file that is only read does not grow: `size` is its own.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    limited = limit != resource.RLIM_INFINITY
    largest = max(_SMALLEST, 1 << (limit // 4).bit_length() - 1) if limited else 1 << 43
    if size is not None:
        largest = min(largest, max(_SMALLEST, 1 << (2 * size).bit_length()))
    return {"buffer_pool_size": min(buffer, limit // 8) if limited else buffer, "max_db_size": largest}

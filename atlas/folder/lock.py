"""One writer an atlas. The system releases the lock when its process dies, so a stale one cannot block anybody."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from atlas.errors import LockedAtlas
from atlas.folder.paths import holder_file, lock_file


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's write lock; raises LockedAtlas with its holder (host, pid, since) where another has it."""
    lock = FileLock(lock_file(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedAtlas(f"{folder} is being written to by {_holder(folder)}; wait for it or end it") from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
        holder_file(folder).write_text(json.dumps(holder) + "\n")
        yield
        # While the lock is held: a moment later the file may be the next writer's.
        holder_file(folder).unlink(missing_ok=True)
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads(holder_file(folder).read_text())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):  # taken a moment ago: not written yet
        return "another process"

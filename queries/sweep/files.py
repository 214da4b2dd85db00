"""Files that are whole or not there: a sweep may be killed at any moment and goes on from what it wrote."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, atomically."""
    write_file(path, lambda target: target.write_text(text, encoding="utf-8"))


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, and put it there when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process's own, so that two sweeps into one folder cannot fill one file.
    waiting = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(waiting)
        with open(waiting, "rb+") as file:
            os.fsync(file.fileno())
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)

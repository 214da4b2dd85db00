"""A folder of files that is whole or is not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atlas.errors import FolderError
from atlas.folder.manifest import disk_errors


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write to, which gets its name at the end and is removed after an error.

    Raises FolderError where `folder` is there and not empty, or cannot be written to.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder} is not empty; export to a new folder")
    target = folder.resolve()
    # Hidden and with another name: what is left by a killed process does not look like an export.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

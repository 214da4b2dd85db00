"""A dictionary's rows where they are not in the atlas folder: fetched from the dictionary's source, once.

A graph on a server, or one copied back from there, has no rows. They are then written from the source that the record
names into a cache, `$XDG_CACHE_HOME/feature-atlas/source-rows/{sha256}-{rows_sha256}-{architecture}`, and are the same
to the last bit or refused. (`rows/` there is of versions that kept float32 alone: it can be deleted.)
"""

from __future__ import annotations

import importlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from atlas.errors import CorruptAtlas, FolderError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.manifest import disk_errors
from atlas.folder.paths import DECODER, RECORD, dictionary_folder

FETCH = "ingest.sources.refetch"  # named, not imported: reading sources is ingest's work, and rarely needed here


def cache_folder() -> Path:
    """Where this user's caches are: `$XDG_CACHE_HOME`, `~/.cache`, or for a user without a home a folder of its own.

    Raises FolderError where that one is somebody else's.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "feature-atlas"
    except RuntimeError:  # a container's user that has no name: no home is known
        folder = Path(tempfile.gettempdir()) / f"feature-atlas-{os.getuid()}"
        with disk_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        # In a folder that all may write to, another user may have made it first, or a link in its place.
        if folder.stat().st_uid != os.getuid() or folder.is_symlink():
            raise FolderError(f"{folder} belongs to another user; set XDG_CACHE_HOME to a folder of yours") from None
        return folder


def open_rows(folder: Path | None, record: Dictionary) -> Rows:
    """The memory-mapped rows of a dictionary: of the atlas in `folder` where it has them, else of the cache.

    Raises CorruptAtlas where they are damaged, IngestError where they must be fetched and cannot, FolderError where the
    cache cannot be written.
    """
    place = dictionary_folder(folder, record.id) if folder else None
    if place is None or not (place / DECODER).exists():
        from filelock import FileLock

        # All three: dictionaries with the same decoder may differ in their encoders.
        place = cache_folder() / "source-rows" / f"{record.sha256}-{record.rows_sha256}-{record.architecture}"
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        # Of two processes that want the same rows, one fetches them and the other finds them there.
        with disk_errors(place), FileLock(f"{place}.lock"):
            if (place / RECORD).exists():
                with suppress(CorruptAtlas):  # it can be had again
                    return Rows.open(place, record)
            importlib.import_module(FETCH).fetch_rows(record, place)
    return Rows.open(place, record)

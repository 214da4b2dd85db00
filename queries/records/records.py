"""The record of steered runs: `records.jsonl` in the atlas folder, a JSON object a line, the newest last.

Where that folder cannot be written to, the user's own: `$XDG_STATE_HOME/feature-atlas` (`~/.local/state/…`). A line
holds the plan whole, so that the run can be made again without its file. `FEATURE_ATLAS_RECORDS=off` writes none.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import FolderError

if TYPE_CHECKING:
    from queries.policy.home import Home

FILE = "records.jsonl"
OFF = "FEATURE_ATLAS_RECORDS"
LARGEST = 256 << 20  # bytes; then the file is kept as records.old.jsonl, over an older one, and begun anew
_log = logging.getLogger(__name__)


def append(home: Home | None, values: Mapping[str, Any]) -> str | None:
    """Add a run of a plan from this atlas; returns its id, None where records are off or no file could be written.

    Several processes may add at once: each line is written whole.
    """
    if os.environ.get(OFF, "").lower() in ("off", "0", "no", "false"):
        return None
    now = datetime.now(UTC)
    id_ = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    atlas = None if home is None else str(home.folder.resolve())
    line = json.dumps({"id": id_, "time": now.isoformat(timespec="seconds"), "atlas": atlas, **values}, default=str)
    for folder in ([home.folder] if home is not None else []) + [_of_the_user()]:
        try:
            _write(folder, line.encode() + b"\n")
            return id_
        except OSError as error:
            reason = error.strerror
    _log.warning("the run was not recorded: %s cannot be written (%s); %s=off records none", folder, reason, OFF)
    return None


def read_records(folder: Path | None) -> list[dict[str, Any]]:
    """The records of an atlas folder, oldest first, with those of the user's own file that are of it.

    A line that was broken off is left out, and said. Raises FolderError where a file cannot be read.
    """
    found: list[dict[str, Any]] = []
    for place in ([folder] if folder is not None else []) + [_of_the_user()]:
        path = place / FILE
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FolderError(f"{path} cannot be read: {error.strerror}") from None
        read = [values for line in lines if line.strip() and (values := _parsed(line)) is not None]
        if broken := sum(bool(line.strip()) for line in lines) - len(read):
            _log.warning("%s: %d lines are no records and are left out", path, broken)
        own = str(folder.resolve()) if folder is not None else None
        found += read if place == folder else [values for values in read if values.get("atlas") == own]
    return sorted(found, key=lambda values: str(values["time"]))


def _write(folder: Path, line: bytes) -> None:
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    # Prompts may be private; and a file that others share is theirs to set.
    with filelock.FileLock(f"{path}.lock", mode=0o600), open(os.open(path, _FLAGS, 0o600), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size > LARGEST:
            os.replace(path, path.with_name("records.old.jsonl"))
            _write_new(path, line)
            return
        if size:
            file.seek(-1, os.SEEK_END)
            # Behind a line that was broken off, so that it does not take this one with it.
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)


_FLAGS = os.O_RDWR | os.O_CREAT


def _write_new(path: Path, line: bytes) -> None:
    with open(os.open(path, _FLAGS, 0o600), "r+b") as file:
        file.write(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and {"id", "time"} <= values.keys() else None


def _of_the_user() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path(os.path.expanduser("~")) / ".local" / "state") / "feature-atlas"

"""The manifest: what an atlas folder holds, in one small JSON file that is replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError, CorruptAtlas, FolderError, NewerAtlas, NotAnAtlas
from atlas.folder.paths import begun_places, manifest_file
from atlas.ids import is_file_name, is_id

FORMAT = 5  # raised whenever an older version would misread something: 5 keeps rows in their source's dtype
GRAPH = 4  # the first format whose graph has today's columns: an embedded one knows only those it was made with


@dataclass(frozen=True)
class Manifest:
    """What one complete state of an atlas consists of."""

    id: str = ""  # names the atlas in every store that holds it; empty: nothing published yet
    store: str | None = None  # address of the server that holds the graph (atlas.address); None: it is in the folder
    dictionaries: tuple[str, ...] = ()  # ids, in the order of their depth
    pairs: tuple[str, ...] = ()  # file names in matches/
    k: int = 5  # matches kept on each side of a pair
    min_res: float | str = 0.5  # life cycle's threshold on residual cosines, or "floor"
    min_module: float | str = 0.25  # the same for mlp and att
    runs: tuple[dict[str, Any], ...] = ()  # one flat dict for each ingest that changed something
    measured: tuple[dict[str, Any], ...] = ()  # what labels come from: texts and imports (ingest.labels.job)
    state: str | None = None  # names the graph's state; None: nothing published yet
    fingerprint: dict[str, Any] | None = None  # of that state, as its store gives it
    pending: tuple[str, ...] = ()  # states begun on the server since; one may be there, though nobody lived to say so
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Raises CorruptAtlas where a name that becomes a path is none that an ingest gives."""
        files = (*self.pairs, *self.pending, *(() if self.state is None else (self.state,)))
        if not (all(map(is_id, self.dictionaries)) and all(map(is_file_name, files))):
            raise CorruptAtlas("the atlas names a dictionary, matches or a state that no ingest writes")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the folder's manifest.

        Raises NotAnAtlas (no manifest), CorruptAtlas (not one), NewerAtlas (of a later format).
        """
        path = manifest_file(folder)
        try:
            text = path.read_text()
        except (FileNotFoundError, NotADirectoryError):
            if begun(folder):
                raise NotAnAtlas(unfinished(folder)) from None
            raise NotAnAtlas(
                f"{folder} holds no atlas; make one with: feature-atlas ingest SOURCE -a {folder}"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise CorruptAtlas(f"{path} cannot be read ({error})") from None
        try:
            values = json.loads(text)
            number = int(values["format"])
            values["pending"] = values.get("pending") or []
            if GRAPH <= number <= FORMAT:
                # In these formats every field is there: one that is missing is damage, not age.
                return cls(**{f.name: _frozen(values[f.name]) for f in fields(cls)} | {"format": FORMAT})
            if number < FORMAT:
                known = {f.name: _frozen(values[f.name]) for f in fields(cls) if f.name in values}
                # Rows and matches are still good; an embedded graph lacks columns, and an ingest builds it anew.
                stale = {} if known.get("store") else {"state": None, "fingerprint": None}
                return cls(**known | stale | {"format": FORMAT})
        except (ValueError, KeyError, TypeError):
            raise CorruptAtlas(f"{path} is damaged; restore it, or ingest the sources into another folder") from None
        raise NewerAtlas(
            f"{folder} has format {number}, newer than this version reads ({FORMAT}); upgrade feature-atlas"
        )

    def save(self, folder: Path) -> None:
        """Replace the folder's manifest atomically and durably."""
        write_text(manifest_file(folder), json.dumps(asdict(self), indent=1) + "\n")


def begun(folder: Path) -> bool:
    """Whether a first ingest left something in a folder that has no manifest yet."""
    return any(path.is_dir() for path in begun_places(folder))


def unfinished(folder: Path) -> str:
    """What to say of such a folder."""
    return (
        f"{folder} is unfinished: its first ingest was broken off, or is still running; repeat "
        f"`feature-atlas ingest …` as it was typed, with -a {folder}: what is done is kept"
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; renamed to it at the end, removed after an error. Durable once left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, since a rename is atomic within one file system only; by process, so that two do not share one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            # Before the rename, or after a power cut the name could stand for content that never reached the disk.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a file that is whole or not there."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one line (a full disk, missing rights)."""
    try:
        yield
    except AtlasError:
        raise
    except OSError as error:
        raise FolderError(
            f"cannot write to {folder}: {error.strerror or error}; what was complete stays usable"
        ) from error

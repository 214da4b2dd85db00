"""Tables that were measured on an atlas, left in its folder for whoever shows them: the page, a report.

Each is a file `results/NAME.json` with what it hangs on, a digest of all dictionaries' rows: where others were ingested
since, or the file is damaged, it is as if nothing had been measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import write_text
from atlas.folder.paths import results_folder


@dataclass(frozen=True)
class Result:
    """A table, and what was done to get it."""

    about: str  # the command's options, for people
    rows: tuple[dict[str, Any], ...]


def keep(
    folder: Path | None,
    name: str,
    dictionaries: Mapping[str, Dictionary],
    rows: Sequence[Mapping[str, Any]],
    about: str,
) -> None:
    """Leave a table in an atlas's folder, if it has one, in place of what has its name.

    Raises OSError where it cannot be written.
    """
    if folder is None:
        return
    content = {"of": _digest(dictionaries), "about": about, "rows": [dict(row) for row in rows]}
    write_text(results_folder(folder) / f"{name}.json", json.dumps(content, ensure_ascii=False) + "\n")


def kept(folder: Path | None, dictionaries: Mapping[str, Dictionary], names: str = "*") -> dict[str, Result]:
    """The tables there whose names are of that pattern; those of other dictionaries and damaged ones are left out.

    Example:
        for name, result in kept(atlas.path, atlas.dictionaries).items():
            print(name, result.about, len(result.rows))
    """
    found: dict[str, Result] = {}
    paths = sorted(results_folder(folder).glob(f"{names}.json")) if folder is not None else []
    digest = _digest(dictionaries)
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(dict(row) for row in content["rows"])
            if content["of"] == digest and rows:
                found[path.stem] = Result(str(content["about"]), rows)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _digest(dictionaries: Mapping[str, Dictionary]) -> str:
    known = sorted((d.id, d.rows_sha256) for d in dictionaries.values())
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()

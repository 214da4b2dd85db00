"""A part: the rows of a shard's dictionaries and the staged matches of its pairs, in a folder laid out as an atlas.

`part.json`, written last, says which shard of which plan it is; without it the part is unfinished, and the same command
goes on with it. A part has no graph and is no atlas.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from atlas.atlas import atlas_path
from atlas.cli.progress import Progress
from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.lock import writing
from atlas.folder.manifest import disk_errors, write_text
from atlas.folder.paths import RECORD, dictionary_folder, is_own, manifest_file
from ingest.matching.stage import stage_missing
from ingest.shards.plan import planned, shards
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import Source, check_models, find_sources, source_sha256
from ingest.sources.selection import EVERYTHING, Selection

FILE = "part.json"
FORMAT = 1


@dataclass(frozen=True)
class Part:
    """What a finished part says of itself."""

    format: int
    shard: int  # from 1
    of: int
    k: int
    plan: str  # digest of what all parts of an ingest have in common (ingest.shards.plan)
    matches: tuple[str, ...]  # names of its staged files
    dictionaries: Mapping[str, str]  # id → SHA-256 of its decoder rows

    @classmethod
    def load(cls, folder: Path) -> Part:
        """Read `part.json`; raises IngestError where the folder holds no finished part."""
        path = folder / FILE
        try:
            values = json.loads(path.read_text())
            part = cls(**{**values, "matches": tuple(values["matches"])})
        except FileNotFoundError:
            began = (folder / "dictionaries").is_dir()
            unfinished = "an unfinished part: repeat the command that made it"
            raise IngestError(
                f"{folder} holds {unfinished if began else 'no part; ingest --shard makes one'}"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise IngestError(f"{path} is damaged ({error}); repeat the command that made the part") from None
        if part.format != FORMAT:
            raise IngestError(f"{path} has format {part.format}; this version reads {FORMAT}: make the part anew")
        return part


@dataclass(frozen=True)
class PartReport:
    """What making a part did."""

    part: Path
    shard: int
    of: int
    dictionaries: int  # that its pairs need
    pairs_matched: int  # now
    pairs_kept: int  # that were staged already
    seconds: float


def ingest_shard(
    sources: Sequence[str | os.PathLike[str]],
    part: str | os.PathLike[str] | None,
    shard: tuple[int, int],
    *,
    k: int = 5,
    device: str = "auto",
    selection: Selection = EVERYTHING,
    progress: Progress | None = None,
) -> PartReport:
    """Match one shard's pairs of what the sources hold, into a folder of its own.

    Args:
        shard: (I, N), I from 1 to N: the Ith of N stretches of pairs (ingest.shards.plan).
        part: the folder; broken off, the same call goes on with it.

    Example:
        for i in (1, 2):
            ingest_shard(["path/to/dictionaries"], f"part-{i}", (i, 2))
        ingest(["path/to/dictionaries"], "whole", join=["part-1", "part-2"])

    Raises IngestError, LockedAtlas, FolderError.
    """
    started = time.time()
    folder, progress = atlas_path(part), progress or Progress(quiet=True)
    number, count = shard
    with progress.waiting("reading configurations"):
        found = find_sources([os.fspath(each) for each in sources], selection)
    if not found:
        raise IngestError("nothing to ingest: name a SAELens release, release/sae_id or a folder of dictionaries")
    check_models(found)
    pairs, sizes, plan = planned(found, k)
    own = shards(pairs, sizes, count)[number - 1]
    _check_folder(folder, number, count, plan)
    needed = {id_ for pair in own for id_ in (pair.later, pair.earlier)}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder):
            records: dict[str, Dictionary] = {}
            wanted = [source for source in found if source.id in needed]
            with progress.steps("dictionaries", len(wanted), "dictionary") as step:
                for source in wanted:
                    records[source.id] = _rows(source, folder)
                    step(1)
            names, matched = stage_missing(folder, records, own, device, progress)
            rows = {id_: record.rows_sha256 for id_, record in sorted(records.items())}
            made = Part(FORMAT, number, count, k, plan, names, rows)
            write_text(folder / FILE, json.dumps(asdict(made)) + "\n")
    return PartReport(folder, number, count, len(records), matched, len(names) - matched, time.time() - started)


def _rows(source: Source, folder: Path) -> Dictionary:
    """The record of a dictionary whose rows are there, written now where they were not."""
    target = dictionary_folder(folder, source.id)
    if (target / RECORD).exists():
        record = Dictionary.load(target)
        if record.sha256 == source_sha256(source) and Rows.there(target, record):
            return record
    return write_dictionary(source, target)


def _check_folder(folder: Path, number: int, count: int, plan: str) -> None:
    """Raise IngestError unless the folder is new, or holds this very part, finished or not."""
    if not folder.is_dir():
        return
    if manifest_file(folder).exists():
        raise IngestError(f"{folder} holds an atlas; name another folder for the part with -a")
    if (folder / FILE).exists():
        there = Part.load(folder)
        if (there.shard, there.of, there.plan) != (number, count, plan):
            raise IngestError(
                f"{folder} holds shard {there.shard}/{there.of} of an ingest; name another folder with -a"
            )
    elif any(not is_own(path) for path in folder.iterdir()):
        raise IngestError(f"{folder} is not empty and holds no part; name another folder with -a")

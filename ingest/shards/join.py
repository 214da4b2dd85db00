"""Parts made one: rows and staged matches, checked, in the folder of an atlas; the ingest then finds them there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atlas.cli.progress import Progress
from atlas.errors import CorruptAtlas, IngestError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.manifest import replacing
from atlas.folder.matches import read_pair, read_table
from atlas.folder.paths import RECORD, dictionary_folder, matches_file, matches_folder
from atlas.folder.stored_rows import rows_sha256
from ingest.matching.stage import staged_name
from ingest.shards.part import Part
from ingest.shards.plan import planned


def checked_parts(parts: Sequence[str | os.PathLike[str]], sources: Sequence[Any], k: int) -> dict[Path, Part]:
    """The parts, each shard once; raises IngestError where one is missing, or is another ingest's.

    sources: what `find_sources` found, the same as for every part.
    """
    found = {Path(part): Part.load(Path(part)) for part in parts}
    if not sources:
        raise IngestError("name the same SOURCEs as for the parts: they say what the whole is")
    _, _, plan = planned(sources, k)
    counts = sorted({part.of for part in found.values()})
    if len(counts) != 1:
        raise IngestError(f"the parts are of {' and '.join(map(str, counts))} shards: join those of one ingest")
    for folder, part in found.items():
        if part.k != k:
            raise IngestError(f"{folder} was made with k {part.k}, not {k}: give --k {part.k}, or make it anew")
        if part.plan != plan:
            raise IngestError(
                f"{folder} was made from other sources, with other selections or by another version than these: make "
                "it anew with the same SOURCEs and options"
            )
    (count,) = counts
    there = {part.shard: folder for folder, part in found.items()}
    if missing := [number for number in range(1, count + 1) if number not in there]:
        named = ", ".join(f"{number}/{count}" for number in missing[:20])
        raise IngestError(
            f"shard {named} is missing; make it with: feature-atlas ingest … --shard {missing[0]}/{count}"
        )
    # Of a shard that was made twice either is the same.
    return {folder: found[folder] for folder in there.values()}


def take_parts(folder: Path, parts: dict[Path, Part], progress: Progress) -> None:
    """Copy rows and staged matches that the folder lacks; each file is looked into before it is there by its name.

    Raises IngestError where two parts have other rows of one dictionary, CorruptAtlas where a file is damaged.
    """
    rows: dict[str, tuple[str, Path]] = {}
    for part, said in parts.items():
        for id_, digest in said.dictionaries.items():
            known, first = rows.setdefault(id_, (digest, part))
            if known != digest:
                raise IngestError(
                    f"{part} and {first} have other rows of {id_} (mapped on machines that compute otherwise, or of "
                    "changed weights): make one of the parts anew where the other was made"
                )
    files = sum(len(said.matches) for said in parts.values())
    with progress.steps("joining", len(rows) + files, "files") as step:
        for id_, (_, part) in rows.items():
            _take_dictionary(dictionary_folder(part, id_), dictionary_folder(folder, id_))
            step(1)
        for part, said in parts.items():
            for name in said.matches:
                _take_matches(part, folder, name)
                step(1)


def _take_dictionary(there: Path, here: Path) -> None:
    record = Dictionary.load(there)
    if (here / RECORD).exists() and Dictionary.load(here).rows_sha256 == record.rows_sha256:
        return
    here.mkdir(parents=True, exist_ok=True)
    # The record goes last: it marks the folder as finished.
    for path in sorted(there.iterdir(), key=lambda path: path.name == RECORD):
        if path.is_file():
            with replacing(here / path.name) as temporary:
                if path.name == RECORD:
                    _check(here, record, there)
                shutil.copyfile(path, temporary)


def _take_matches(part: Path, folder: Path, name: str) -> None:
    source, target = matches_file(part, name), matches_file(folder, name)
    if target.exists():
        return
    pair = read_pair(source)
    records = {id_: Dictionary.load(dictionary_folder(part, id_)) for id_ in (pair.later, pair.earlier)}
    if staged_name(pair, records) != name or len(read_table(source)) != pair.edges:
        raise CorruptAtlas(f"{source} is not what its name says: make the part anew")
    matches_folder(folder).mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _check(here: Path, record: Dictionary, there: Path) -> None:
    rows = Rows.open(here, record)
    rows.check(record, encoder=True)
    if rows_sha256(rows.decoder) != record.rows_sha256:
        raise CorruptAtlas(f"{there} is not what its record says: make the part anew")

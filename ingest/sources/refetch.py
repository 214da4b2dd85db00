"""The rows of a dictionary that an atlas knows, read again from where it was ingested from."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import disk_errors
from atlas.folder.paths import DECODER, ENCODER, RECORD, VECTORS
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import Source, find_sources, source_sha256
from ingest.sources.selection import Selection

_log = logging.getLogger(__name__)


def fetch_rows(record: Dictionary, folder: Path) -> None:
    """Write the rows that `record` stands for to `folder`, from its recorded source.

    Raises IngestError where the source is not in reach, has changed since (sha256), or gives other rows (`write_rows`).
    """
    source = _source(record)
    # Before anything is written: the digest of the source is cheap beside its rows.
    if source_sha256(source) != record.sha256:
        raise IngestError(
            f"{record.source} has changed since {record.id} was made from it (sha256), so its rows cannot be fetched; "
            "open the atlas folder that holds them, or ingest it anew"
        )
    _log.warning("fetching the rows of %s from %s", record.id, record.source)
    with disk_errors(folder):
        write_rows(record, source, folder)


def write_rows(record: Dictionary, source: Source, folder: Path) -> None:
    """Write the rows that `record` stands for to `folder` from a source of the same content; what else is there stays.

    Raises IngestError where it gives other rows, as another architecture would in its configuration, or a changed
    model for rows of head space.
    """
    beside = folder.with_name(f".{folder.name}.rows")
    written = write_dictionary(source, beside)
    if (written.rows_sha256, written.architecture) != (record.rows_sha256, record.architecture):
        shutil.rmtree(beside)
        raise IngestError(
            f"{source.address} gives other rows than {record.id} has (sha256): has its configuration changed, or was "
            f"it mapped with other weights of {record.model_name}? open the atlas folder that holds them, or ingest it "
            "anew"
        )
    record.save(beside)
    folder.mkdir(parents=True, exist_ok=True)
    # The record last: with it the folder counts as complete.
    for name in (VECTORS, ENCODER, DECODER, RECORD):
        os.replace(beside / name, folder / name)
    shutil.rmtree(beside)


def _source(record: Dictionary) -> Source:
    missing = (
        f"the rows of {record.id} are not here, and where they came from is not in reach: {record.source}; put it "
        "there, or open the atlas folder that holds them"
    )
    if record.source.startswith("/") and not Path(record.source).exists():
        raise IngestError(missing)
    try:
        found = find_sources([record.source], Selection(model=record.model_name))
    except IngestError as error:
        raise IngestError(f"{missing} ({error})") from None
    found = [source for source in found if source.address == record.source] or found  # others may lie below it
    if len(found) != 1:
        raise IngestError(f"{record.source} holds {len(found)} dictionaries; {record.id} was made from one")
    return found[0]

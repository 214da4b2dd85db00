"""The label job: words for features, from the unembedding, from a text, from elsewhere; then the graph anew."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.atlas import atlas_path, load_dictionaries
from atlas.cli.progress import Progress
from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import TEXTS, Labels
from atlas.folder.lock import writing
from atlas.folder.manifest import Manifest, disk_errors
from atlas.folder.paths import dictionary_folder
from atlas.graph.publish import publish, settle_labels, store_for_writing

if TYPE_CHECKING:
    import pyarrow as pa

Columns = tuple[str, dict[str, "pa.Array"]]  # a dictionary's id, and by name columns of one value a feature


def label_atlas(
    atlas: str | os.PathLike[str] | None = None,
    *,
    promoted: bool = False,
    texts: Sequence[Path] = (),
    imports: Sequence[str] = (),
    model: str | None = None,
    tokens: int = 0,
    batch: int = 8,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, int]:
    """Label an atlas's features; returns how many features each source gave words to.

    What a source says replaces what stood there; imports come last, so they win over what is measured with them.

    Args:
        promoted: the tokens that each direction promotes through the model's unembedding.
        texts: files to run the model over; stores frequency, largest activation, tokens and contexts.
        imports: Parquet or Neuronpedia jsonl files or folders (ingest.labels.imports).
        model: hub name or folder; None: the one that the dictionaries name.
        tokens: read only so many of the text; 0: all.
        batch: contexts in one forward pass.
        device: auto, cpu or cuda:N, for the model.

    Example:
        label_atlas("demo-atlas", imports=["ingest/bundle/smollm2-135m/labels.parquet"])

    Raises NotAnAtlas, LockedAtlas, IngestError, ModelError.
    """
    from ingest.labels.activations import columns_from_text
    from ingest.labels.imports import columns_from_files, label_files
    from ingest.labels.promoted import columns_promoted

    folder = atlas_path(atlas)
    progress = progress or Progress(quiet=True)
    Manifest.load(folder)  # before the lock: a folder without an atlas gets none
    with disk_errors(folder), writing(folder):
        manifest = Manifest.load(folder)
        with store_for_writing(folder, manifest) as store:
            # Labels that still wait for the present state are part of what new ones are added to.
            settle_labels(folder, manifest)
            records = load_dictionaries(folder, manifest.dictionaries)
            state = secrets.token_hex(8)
            counts: dict[str, int] = {}
            measured = list(manifest.measured)
            if promoted:
                for name, group in _by_model(records, model).items():
                    found = columns_promoted(folder, group, name, device, progress)
                    counts["promoted"] = counts.get("promoted", 0) + _save(folder, found.items(), state)
            if texts:
                for name, group in _by_model(records, model).items():
                    measures, positions = columns_from_text(folder, group, name, texts, tokens, batch, device, progress)
                    # One measurement: what another text gave must not stand beside it.
                    counts["text"] = counts.get("text", 0) + _save(folder, measures, state, whole=True)
                    measured = [each for each in measured if (each["kind"], each["model"]) != ("text", name)]
                    measured += [_source("text", path) | {"model": name} | positions for path in texts]
            # Last, so that they win over what is measured in the same run.
            if imports:
                with progress.waiting("reading labels"):
                    counts["imported"] = _save(folder, columns_from_files(imports, records).items(), state)
                # The same file again is the same source: it is recorded once.
                taken = [_source("import", file) | {"model": None} for name in imports for file in label_files(name)]
                measured = [each for each in measured if each not in taken] + taken
            publish(folder, store, replace(manifest, measured=tuple(measured)), progress, state)
    return counts


def _source(kind: str, path: Path) -> dict[str, Any]:
    """What is recorded of a file that labels come from; its digest only where it ends."""
    digest = None
    if path.is_file():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"kind": kind, "name": path.name, "sha256": digest}


def _by_model(records: dict[str, Dictionary], model: str | None) -> dict[str, dict[str, Dictionary]]:
    """The dictionaries of each model, by the name under which it is loaded."""
    names = {d.model for d in records.values()}
    if model is not None and len(names) > 1:
        raise IngestError(f"the atlas holds several models ({', '.join(sorted(names))}): --model would name only one")
    groups: dict[str, dict[str, Dictionary]] = {}
    for id_, d in records.items():
        groups.setdefault(model or d.model_name, {})[id_] = d
    return groups


def _save(folder: Path, columns: Iterable[Columns], state: str, *, whole: bool = False) -> int:
    """Write the columns beside the rows, to wait for the state; returns the number of features that got words."""
    import numpy as np

    count = 0
    for id_, found in columns:
        target = dictionary_folder(folder, id_)
        Labels.load(target, state).updated(found, whole=whole).save(target, state)
        words = [column for name, column in found.items() if name in TEXTS] or list(found.values())
        count += int(np.any([~np.asarray(column.is_null()) for column in words], axis=0).sum())
    return count

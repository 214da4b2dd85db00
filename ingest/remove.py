"""Dictionaries taken out of an atlas again.

1. What remains is paired anew: where a layer is gone, its neighbours are matched across the gap.
2. The graph without the dictionaries is published; from then on nobody sees them.
3. Their rows are deleted. Broken off before, the same command deletes them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atlas.atlas import atlas_path, load_dictionaries
from atlas.cli.progress import Progress
from atlas.errors import IngestError, UnknownFeature
from atlas.folder.dictionary import Dictionary
from atlas.folder.lock import writing
from atlas.folder.manifest import Manifest, disk_errors
from atlas.folder.matches import read_pair
from atlas.folder.paths import dictionary_folder, matches_file
from atlas.graph.publish import publish, store_for_writing, with_run
from atlas.ids import is_id
from ingest.matching.pairs import plan_pairs
from ingest.matching.stage import stage_missing


@dataclass(frozen=True)
class RemoveReport:
    """What a removal did."""

    atlas: Path
    dictionaries: tuple[str, ...]  # ids of those that were removed
    pairs_matched: int  # pairs of those that remain that were matched now
    edges: int  # edges between features that the atlas has now


def remove(
    dictionaries: Sequence[str] | str = (),
    atlas: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    layers: Collection[int] | None = None,
    sites: Collection[str] | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> RemoveReport:
    """Take dictionaries, their features, matches, edges and rows out of an atlas.

    Args:
        dictionaries: their ids; none: all that the other arguments select.
        atlas: its folder; None: `$FEATURE_ATLAS` or `./feature-atlas`.
        model: the model's part of their ids.
        layers, sites: only these.
        device: auto, cpu or cuda:N, for matching what remains across the gap.

    Raises UnknownFeature for an id that the atlas does not hold; IngestError where nothing is selected, or all is;
    LockedAtlas, CorruptAtlas, FolderError.

    Example:
        print(remove(["smollm2-135m-instruct/11-att-2k"], "demo-atlas").edges)
    """
    started = time.time()
    folder = atlas_path(atlas)
    progress = progress or Progress(quiet=True)
    dictionaries = [dictionaries] if isinstance(dictionaries, str) else dictionaries
    if not dictionaries and model is None and layers is None and sites is None:
        raise IngestError("say what to remove: ids of dictionaries, --model, --layers or --sites")
    Manifest.load(folder)  # before the lock: a folder without an atlas gets none
    with disk_errors(folder), writing(folder):
        # Again, under the lock: another process may have changed it since the look above.
        before = Manifest.load(folder)
        records = load_dictionaries(folder, before.dictionaries)
        left_over = [name for name in dictionaries if name not in records and _is_left_over(folder, name)]
        named = [name for name in dictionaries if name not in left_over]
        gone = [] if left_over and not named else _selected(records, named, model, layers, sites)
        if not gone:  # the last removal was broken off when all but the rows was gone
            for name in left_over:
                # No `ignore_errors` here: this is all that the command does, so it must not pass for done.
                shutil.rmtree(dictionary_folder(folder, name))
            edges = sum(read_pair(matches_file(folder, name)).edges for name in before.pairs)
            return RemoveReport(folder, tuple(left_over), 0, edges)
        kept = {id_: record for id_, record in records.items() if id_ not in gone}
        if not kept:
            raise IngestError(f"that is all that {folder} holds; delete the folder instead")
        with store_for_writing(folder, before) as store:
            names, matched = stage_missing(
                folder, kept, plan_pairs(kept.values(), before.k), device, progress, before.pairs
            )
            edges = sum(read_pair(matches_file(folder, name)).edges for name in names)
            after = replace(before, dictionaries=tuple(kept), pairs=names)
            publish(folder, store, with_run(after, started, edges), progress)
        for name in (*gone, *left_over):
            # Rows last, when nothing names them any more: what cannot be deleted now the same command deletes.
            shutil.rmtree(dictionary_folder(folder, name), ignore_errors=True)
    return RemoveReport(folder, (*gone, *left_over), matched, edges)


def _is_left_over(folder: Path, name: str) -> bool:
    """Whether rows of that name lie there that no manifest names any more."""
    return is_id(name) and dictionary_folder(folder, name).is_dir()


def _selected(
    records: dict[str, Dictionary],
    names: Sequence[str],
    model: str | None,
    layers: Collection[int] | None,
    sites: Collection[str] | None,
) -> list[str]:
    models = {record.model for record in records.values()}
    whole = {f"{record.model}/{id_.partition('/')[2]}" for id_, record in records.items()}
    chosen = [name if name in records or len(models) > 1 else f"{min(models)}/{name}" for name in names]
    unknown = [name for name, id_ in zip(names, chosen, strict=True) if id_ not in whole]
    if unknown:
        raise UnknownFeature(f"no dictionary {unknown[0]!r} in the atlas; it holds {', '.join(list(records)[:6])}")
    selected = [
        id_
        for id_, record in records.items()
        if (not names or id_ in chosen)
        and (model is None or record.model == model)
        and (layers is None or record.layer in layers)
        and (sites is None or record.site in sites)
    ]
    if not selected and not names:
        raise IngestError(f"no dictionary is selected; the atlas holds {', '.join(list(records)[:6])}")
    return selected

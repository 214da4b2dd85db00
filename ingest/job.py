"""The ingest job: dictionaries in, matches staged, graph published.

1. Find the sources' dictionaries and check them against each other and against the atlas.
2. Write the rows of each new one: mapped into residual space, unit, memory-mapped.
3. Match each pair of the flow graph that is not staged yet; stage it.
4. Publish the graph that all of this amounts to, name it in the manifest, drop what is no longer named.

Every step leaves complete files only: after an interruption the same command goes on where it was, and a repeated one
does nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from atlas.atlas import atlas_path, load_dictionaries
from atlas.cli.progress import Progress
from atlas.errors import IngestError, NotAnAtlas
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.lock import writing
from atlas.folder.manifest import Manifest, disk_errors
from atlas.folder.matches import Pair, read_pair
from atlas.folder.paths import RECORD, dictionary_folder, is_own, matches_file
from atlas.graph.publish import publish, store_for_writing, with_run
from ingest.matching.pairs import plan_pairs
from ingest.matching.stage import stage_missing
from ingest.shards.join import checked_parts, take_parts
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import Source, check_models, find_sources, source_sha256
from ingest.sources.refetch import write_rows
from ingest.sources.selection import Selection


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did."""

    atlas: Path
    dictionaries: tuple[str, ...]  # ids of the dictionaries that were added
    pairs_matched: int  # pairs matched now
    pairs_kept: int  # pairs that were staged already
    edges: int  # edges between features, in the whole atlas
    seconds: float
    published: bool  # False: the graph stays as it was
    restored: tuple[str, ...] = ()  # ids of dictionaries whose rows were missing or damaged, and were written again


def ingest(
    sources: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    atlas: str | os.PathLike[str] | None = None,
    *,
    layers: Collection[int] | None = None,
    sites: Collection[str] | None = None,
    width: str | None = None,
    set_name: str | None = None,
    k: int | None = None,
    model: str | None = None,
    l0: str | None = None,
    checkpoint: int | None = None,
    device: str = "auto",
    min_res: float | str | None = None,
    min_module: float | str | None = None,
    join: Sequence[str | os.PathLike[str]] = (),
    ray: str | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Take dictionaries into an atlas, made if it is missing, and match them across layers.

    Args:
        sources: SAELens releases, `release/sae_id`, `release/GLOB` over its ids, or folders with SAELens dictionaries
            at any depth; none: only bring what the atlas holds to these settings (k, thresholds), or rebuild its graph.
        atlas: its folder; None: `$FEATURE_ATLAS` or `./feature-atlas`.
        layers, sites, width: take only these of what the sources hold (width as in `16k`).
        l0: of several at one place, `small`, `medium`, `big` or the nearest to a number of active features.
        checkpoint: step of a run that holds several; None: the last.
        set_name: the set's name in the ids, where two dictionaries would share one.
        k: matches kept on each side of a pair; None: what the atlas has, 5 in a new one.
        model: hub name or folder of the model, where the metadata does not name it or it lies elsewhere.
        device: auto, cpu or cuda:N, for matching.
        join: parts made by `ingest_shard` of the same sources, every one of the N.
        ray: address of a Ray cluster that matches; empty: one of this machine's own; None: this machine, without Ray.
        min_res, min_module: the life cycle's thresholds, a cosine or `floor`; None: what the atlas has (0.5, 0.25).

    Example:
        report = ingest(["ingest/bundle/smollm2-135m"], "demo-atlas", sites={"res"}, min_res="floor")
        print(f"{len(report.dictionaries)} dictionaries added, {report.edges:,} edges")

    Raises IngestError, LockedAtlas, CorruptAtlas, NewerAtlas, FolderError.
    """
    started = time.time()
    folder = atlas_path(atlas)
    progress = progress or Progress(quiet=True)
    # One name is a sequence too, of letters.
    wanted = [os.fspath(each) for each in ([sources] if isinstance(sources, str | os.PathLike) else sources)]
    selection = Selection(layers, sites, width, set_name, model, l0, checkpoint)
    with progress.waiting("reading configurations"):
        found = find_sources(wanted, selection) if wanted else []
    before = _manifest(folder)
    parts = checked_parts(join, found, before.k if k is None else k) if join else {}
    # Once more under the lock, where another process may have changed what is there.
    _settings(before, k, min_res, min_module)  # checked before anything is made
    if not found and not before.dictionaries:
        raise IngestError("nothing to ingest: name a SAELens release, release/sae_id or a folder of dictionaries")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder), store_for_writing(folder, before := _manifest(folder)) as store:
            settings = _settings(before, k, min_res, min_module)
            known = load_dictionaries(folder, before.dictionaries)
            # Before any rows: two models of one short name would share ids.
            check_models([*found, *known.values()])
            take_parts(folder, parts, progress)
            added, restored = _write_rows(folder, found, before, model is not None, progress)
            # Read again: rows written above may have changed records, and what is published is what is on the disk.
            records = load_dictionaries(folder, [*before.dictionaries, *(d.id for d in added)])
            _check_widths(records.values())
            pairs = plan_pairs(records.values(), settings.k)
            elsewhere = None if ray is None else partial(_on_ray, folder, ray, found, records, progress)
            names, matched = stage_missing(folder, records, pairs, device, progress, before.pairs, elsewhere)
            after = replace(settings, dictionaries=tuple(records), pairs=names)
            edges = sum(read_pair(matches_file(folder, name)).edges for name in names)
            renamed = any(records[id_] != known[id_] for id_ in known)
            # Without the runs, which differ by nothing but that an ingest took place; one that changes nothing is none.
            changed = renamed or replace(before, runs=()) != replace(after, runs=()) or not store.present()
            if changed:
                publish(folder, store, with_run(after, started, edges), progress)
    seconds = time.time() - started
    ids = tuple(d.id for d in added)
    return IngestReport(folder, ids, matched, len(names) - matched, edges, seconds, changed, restored=tuple(restored))


def _on_ray(
    folder: Path,
    address: str,
    found: Sequence[Source],
    records: dict[str, Dictionary],
    progress: Progress,
    missing: Mapping[str, Pair],
) -> None:
    from ingest.shards.on_ray import stage_on_ray

    sources = {source.id: source for source in found}
    if lacking := {id_ for pair in missing.values() for id_ in (pair.later, pair.earlier)} - set(sources):
        raise IngestError(f"workers read sources, and none is named for {min(lacking)}: name all SOURCEs with --ray")
    stage_on_ray(folder, address, sources, records, missing, progress)


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.load(folder)
    except NotAnAtlas:
        if folder.is_dir() and any(not is_own(path) for path in folder.iterdir()):
            raise IngestError(f"{folder} is not empty and holds no atlas; name another folder with -a") from None
        return Manifest()


def _settings(before: Manifest, k: int | None, min_res: float | str | None, min_module: float | str | None) -> Manifest:
    if k is not None and k < 1:
        raise IngestError(f"k is {k}; it must be at least 1")
    for threshold in (min_res, min_module):
        if isinstance(threshold, str) and threshold != "floor":
            raise IngestError(f"threshold {threshold!r} is neither a number nor floor")
    return replace(
        before,
        k=before.k if k is None else k,
        min_res=before.min_res if min_res is None else min_res,
        min_module=before.min_module if min_module is None else min_module,
    )


def _write_rows(
    folder: Path, found: list[Source], before: Manifest, named: bool, progress: Progress
) -> tuple[list[Dictionary], list[str]]:
    """Write the dictionaries that the atlas lacks, and the rows that it lacks of others.

    named: whether the user names the model, and not the metadata alone.
    Returns those that its manifest does not name yet, and the ids of those whose rows were written again.
    """
    added, restored = [], []
    with progress.steps("dictionaries", len(found), "dictionary") as step:
        for source in found:
            target = dictionary_folder(folder, source.id)
            record = Dictionary.load(target) if (target / RECORD).exists() else None
            if record is None or not _same_content(record, source, source.id in before.dictionaries):
                record = write_dictionary(source, target)
            # Only where the user names it: metadata name the hub's also after an earlier ingest was given a folder.
            elif named and record.model_name != source.model_name:
                record = _renamed(record, source, target)
                restored.append(record.id)
            elif not Rows.there(target, record):  # taken on from a server, or damaged
                write_rows(record, source, target)
                restored.append(record.id)
            if record.id not in before.dictionaries:
                added.append(record)
            step(1)
    return added, restored


def _renamed(record: Dictionary, source: Source, target: Path) -> Dictionary:
    """The record with the model that the user names now, as when its folder has moved; not for rows mapped with it."""
    if record.mapped:
        raise IngestError(
            f"{record.id} was mapped with the weights of {record.model_name}, not of {source.model_name}; ingest it "
            "into a new atlas"
        )
    renamed = replace(record, model_name=source.model_name)
    renamed.save(target)
    return renamed


def _check_widths(records: Iterable[Dictionary]) -> None:
    widths = {(d.model, d.d_model) for d in records}
    if len({model for model, _ in widths}) < len(widths):
        raise IngestError(
            f"dictionaries of one model differ in d_model: {sorted(widths)}; ingest only those that belong together"
        )


def _same_content(record: Dictionary, source: Source, kept: bool) -> bool:
    """Whether the rows written earlier are this source's; raises IngestError where a complete atlas holds others."""
    digest = source_sha256(source)
    if kept and digest != record.sha256:
        raise IngestError(
            f"{record.id} is in the atlas with other content (sha256 {record.sha256[:12]}…, {source.address} has "
            f"{digest[:12]}…); take it in beside it with --set NAME, or into a new atlas"
        )
    return digest == record.sha256

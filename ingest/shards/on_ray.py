"""Pairs matched on a Ray cluster: the same work as here, in stretches of pairs, wherever there is room.

1. The pairs that are not staged are cut into stretches of neighbours (ingest.shards.plan), several a processor, each a
   task: what shares a dictionary is matched by one worker, and a slow node takes fewer stretches.
2. A worker gets references to the sources, writes the rows of a stretch's dictionaries once into a folder of its own,
   and matches only where their digests are the driver's.
3. Staged files come back as bytes; the driver alone writes, each file when it has looked into it. Ray repeats the tasks
   of a node that was lost; a driver that was ended finds what was staged, and asks for the rest.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from atlas.cli.progress import Progress
from atlas.cluster import cluster
from atlas.errors import CorruptAtlas, IngestError
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import replacing
from atlas.folder.matches import Pair, read_pair, read_table
from atlas.folder.paths import RECORD, dictionary_folder, matches_file, matches_folder
from ingest.matching.stage import Stage, staged_name
from ingest.shards.plan import shards
from ingest.sources.dictionaries import write_dictionary
from ingest.sources.find import Source

TASKS = 4  # stretches for each processor (or GPU): a node that is slow, or lost, delays by no more than one of them

Staged = dict[str, bytes]  # names of staged files and their content


def stage_on_ray(
    folder: Path,
    address: str,
    sources: Mapping[str, Source],
    records: Mapping[str, Dictionary],
    missing: Mapping[str, Pair],
    progress: Progress,
) -> None:
    """Stage pairs by the names of their files, on the cluster at `address`; empty: one of this machine's own.

    Raises ClusterError where Ray is missing or the cluster cannot be reached or a worker fails, IngestError where a
    worker's rows are others.
    """
    sizes = {id_: record.d_sae for id_, record in records.items()}
    names = {(pair.later, pair.earlier): name for name, pair in missing.items()}
    with cluster(address) as there:
        stretches = [part for part in shards([*missing.values()], sizes, TASKS * there.workers) if part]
        tasks = {}
        for number, part in enumerate(stretches):
            needed = {id_ for pair in part for id_ in (pair.later, pair.earlier)}
            given = ({id_: sources[id_] for id_ in needed}, {id_: records[id_] for id_ in needed})
            tasks[number] = (*given, {names[p.later, p.earlier]: p for p in part})
        work = sum(sizes[pair.later] * sizes[pair.earlier] for pair in missing.values())
        with progress.work("matching", len(missing), work) as advance:
            for number, staged in there.results(matched, tasks):
                _write(folder, records, staged)
                for pair in stretches[number]:
                    advance(sizes[pair.later] * sizes[pair.earlier])
                    advance(0)


def matched(
    sources: Mapping[str, Source], records: Mapping[str, Dictionary], pairs: Mapping[str, Pair], gpu: bool
) -> Staged:
    """A task: the staged files of these pairs; raises IngestError where this machine makes other rows of a source."""
    from ingest.matching.matching import open_gpus

    folder = _folder()
    for id_, source in sources.items():
        target = dictionary_folder(folder, id_)
        made = Dictionary.load(target) if (target / RECORD).exists() else None
        if made is None or made.sha256 != records[id_].sha256:
            made = write_dictionary(source, target)
        if made.rows_sha256 != records[id_].rows_sha256:
            raise IngestError(
                f"{socket.gethostname()} makes other rows of {id_} than the driver ({source.address}): give all nodes "
                "the same source, and the same versions"
            )
    stage = Stage(folder, dict(records), lambda _: None)
    gpus = open_gpus("cuda:0") if gpu else []
    stage.on_gpus(dict(pairs), gpus) if gpus else stage.on_cpu(dict(pairs))
    found = {}
    for name in pairs:
        path = matches_file(folder, name)
        found[name] = path.read_bytes()
        path.unlink()
    return found


@cache
def _folder() -> Path:
    """This worker process' own, with the rows that it wrote; gone with it."""
    holder = tempfile.TemporaryDirectory(prefix="feature-atlas-worker-")
    _HELD.append(holder)
    return Path(holder.name)


_HELD: list[tempfile.TemporaryDirectory[str]] = []


def _write(folder: Path, records: Mapping[str, Dictionary], staged: Staged) -> None:
    """Each file under its name once it is what that says; raises CorruptAtlas where it is not."""
    matches_folder(folder).mkdir(parents=True, exist_ok=True)
    for name, content in staged.items():
        with replacing(matches_file(folder, name)) as temporary:
            temporary.write_bytes(content)
            pair = read_pair(temporary)
            if staged_name(pair, dict(records)) != name or len(read_table(temporary)) != pair.edges:
                raise CorruptAtlas(f"a worker's matches are not those of {name}: repeat the command")

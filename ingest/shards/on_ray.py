"""Pairs matched on a Ray cluster: the same work as here, in stretches of pairs, wherever there is room.

1. The pairs that are not staged are cut into stretches of neighbours (ingest.shards.plan), several a processor, each a
   task: what shares a dictionary is matched by one worker, and a slow node takes fewer stretches.
2. A worker gets references to the sources, writes the rows of a stretch's dictionaries once into a folder of its own,
   and matches only where their digests are the driver's.
3. Staged files come back as bytes; the driver alone writes, each file when it has looked into it. Ray repeats the tasks
   of a node that was lost; a driver that was ended finds what was staged, and asks for the rest.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from atlas.cli.progress import Progress
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
RETRIES = 5  # of a task whose node was lost

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

    Raises IngestError where Ray is missing or the cluster cannot be reached, a worker fails, or its rows are others.
    """
    ray = _ray()
    _check_reachable(address)
    sizes = {id_: record.d_sae for id_, record in records.items()}
    # Ray prints a great deal of its own; what is wrong comes back as errors.
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    try:
        ray.init(address=address or None, **({"log_to_driver": False} if address else quiet))
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise IngestError(f"no Ray cluster answers at {address or 'this machine'}: {reason}") from None
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        workers = gpus or int(there.get("CPU", 1))
        task = ray.remote(num_gpus=1 if gpus else 0, num_cpus=1, max_retries=RETRIES)(matched)
        names = {(pair.later, pair.earlier): name for name, pair in missing.items()}
        stretches = [part for part in shards([*missing.values()], sizes, TASKS * workers) if part]
        work = sum(sizes[pair.later] * sizes[pair.earlier] for pair in missing.values())
        with progress.work("matching", len(missing), work) as advance:
            waiting = {}
            for part in stretches:
                needed = {id_ for pair in part for id_ in (pair.later, pair.earlier)}
                given = ({id_: sources[id_] for id_ in needed}, {id_: records[id_] for id_ in needed})
                waiting[task.remote(*given, {names[p.later, p.earlier]: p for p in part}, bool(gpus))] = part
            while waiting:
                done, _ = ray.wait(list(waiting))
                for reference in done:
                    _write(folder, records, ray.get(reference))
                    for pair in waiting.pop(reference):
                        advance(sizes[pair.later] * sizes[pair.earlier])
                        advance(0)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, IngestError) else IngestError(f"a worker failed: {cause}") from None
    except ray.exceptions.RayError as error:
        raise IngestError(f"the Ray cluster failed ({str(error).partition(chr(10))[0]}); repeat the command") from None
    finally:
        ray.shutdown()


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


def _check_reachable(address: str) -> None:
    """Raise IngestError where nobody listens there: Ray itself asks for minutes before it says so."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            raise IngestError(f"no Ray cluster answers at {address} ({error.strerror or error})") from None


def _ray() -> Any:
    # No report of use goes out from a command that nobody asked for one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise IngestError("a Ray cluster needs the package ray: pip install 'feature-atlas[ray]'") from None
    return ray

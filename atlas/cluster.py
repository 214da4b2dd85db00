"""Work handed out to a Ray cluster: a function of this project, its tasks, and what they return, as they are done.

Ray repeats the tasks of a node that was lost. Workers find this project, and files that tasks name, on their own
machines: whatever they read is checked against digests that came with the task.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from atlas.errors import AtlasError, ClusterError

if TYPE_CHECKING:
    from atlas.atlas import Atlas

RETRIES = 5  # of a task whose node was lost
AHEAD = 2  # tasks for each worker that are handed out at once: results wait in the cluster's memory

K = TypeVar("K")


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers."""

    workers: int  # tasks that run at the same time: one a GPU, or one a processor where there is none
    gpus: int
    _ray: Any

    def results(self, function: Callable[..., Any], tasks: Mapping[K, tuple[Any, ...]]) -> Iterator[tuple[K, Any]]:
        """What `function(*arguments, gpu)` returns for each task, with the task's name, in the order of completion.

        `gpu`: whether the task has one. Raises what the function raises, an AtlasError as it is.
        """
        task = self._ray.remote(num_gpus=1 if self.gpus else 0, num_cpus=1, max_retries=RETRIES)(function)
        waiting: dict[Any, K] = {}
        for name, arguments in tasks.items():
            waiting[task.remote(*arguments, bool(self.gpus))] = name
            if len(waiting) >= AHEAD * self.workers:
                yield from self._done(waiting)
        while waiting:
            yield from self._done(waiting)

    def _done(self, waiting: dict[Any, K]) -> Iterator[tuple[K, Any]]:
        for reference in self._ray.wait(list(waiting))[0]:
            yield waiting.pop(reference), self._ray.get(reference)


@contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """The Ray cluster at an address; empty: one of this machine's own, which ends with the block.

    Raises ClusterError where Ray is missing, the cluster cannot be reached, or a worker fails.
    """
    ray = _ray()
    _check_reachable(address)
    # What is wrong comes back as errors. The rest that Ray prints, of a lost node even on stdout, is not the command's.
    with redirect_stdout(sys.stderr):
        own = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ClusterError(f"no Ray cluster answers at {address or 'this machine'}: {reason}") from None
        try:
            there = ray.cluster_resources()
            gpus = int(there.get("GPU", 0))
            yield Cluster(gpus or int(there.get("CPU", 1)), gpus, ray)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, AtlasError) else ClusterError(f"a worker failed: {cause}") from None
        except ray.exceptions.RayError as error:
            reason = str(error).partition("\n")[0]
            raise ClusterError(f"the Ray cluster failed ({reason}); repeat the command") from None
        finally:
            ray.shutdown()


@dataclass(frozen=True)
class Shared:
    """An atlas that nodes find where it is here, and by what they see that theirs is the same."""

    address: str  # its folder's whole path, or its server's
    state: tuple[str, str | None]  # its id, and the state of its graph
    rows: tuple[tuple[str, str], ...]  # dictionaries and the SHA-256 of their rows

    @classmethod
    def of(cls, atlas: Atlas) -> Shared:
        """What a driver gives to its tasks."""
        address = str(atlas.path.resolve() if atlas.path is not None else atlas.address)
        rows = tuple((id_, record.rows_sha256) for id_, record in atlas.dictionaries.items())
        return cls(address, (atlas.manifest.id, atlas.manifest.state), rows)


def _check_reachable(address: str) -> None:
    """Raise ClusterError where nobody listens there: Ray itself asks for minutes before it says so."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except OSError as error:
            raise ClusterError(f"no Ray cluster answers at {address} ({error.strerror or error})") from None


def _ray() -> Any:
    # No report of use goes out from a command that nobody asked for one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ClusterError("a Ray cluster needs the package ray: pip install 'feature-atlas[ray]'") from None
    return ray

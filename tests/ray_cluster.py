"""A Ray cluster of this machine for tests, and a node of it that is lost in the middle of work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """One node; workers find the project and the tests' own modules as this process does, and use a thread each."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent.parent}:{Path(__file__).parent}")
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        yield made
        ray.shutdown()
        made.shutdown()


@contextmanager
def losing_a_node(cluster: Any, folder: Path, files: int) -> Iterator[list[int]]:
    """A second node, which is lost when the folder has so many Parquet files; the list gets how many there were."""
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    lost: list[int] = []

    def lose() -> None:
        while len(list(folder.glob("*.parquet"))) < files:
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
        lost.append(len(list(folder.glob("*.parquet"))))

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    yield lost
    thread.join(60)

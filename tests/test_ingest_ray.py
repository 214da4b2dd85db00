"""An ingest on a Ray cluster of two nodes, one of which is lost in the middle; a worker with another source."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import losing_a_node, ray_cluster
from saes import planted
from served import CODE

from atlas import open_atlas
from atlas.errors import ClusterError, IngestError
from atlas.graph.digest import Digest, digest
from ingest import ingest
from ingest.shards.on_ray import matched
from ingest.sources.find import find_sources

pytest.importorskip("ray", reason="the extra ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


def digest_of(folder: Path) -> Digest:
    with open_atlas(folder) as atlas:
        return digest(atlas.store)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_is_the_same_though_a_node_is_lost_in_the_middle(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = planted(tmp_path / "saes", range(6), n=1500, d=64)
    # As many threads as a worker has: cosines differ in their last bit with the number of them.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import faiss

    faiss.omp_set_num_threads(1)
    ingest([sources], tmp_path / "here")
    with losing_a_node(cluster, tmp_path / "there" / "matches", 1) as lost:
        report = ingest([sources], tmp_path / "there", ray=cluster.address)
    assert report.pairs_matched == 17 and lost and lost[0] < 17  # 5 of the stream, 12 of modules
    assert digest_of(tmp_path / "there") == digest_of(tmp_path / "here")
    # Once more there is nothing left to ask the cluster for.
    assert ingest([sources], tmp_path / "there", ray=cluster.address).pairs_matched == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_driver_goes_on_where_it_was(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, killed when a few pairs are there; once more, it asks the cluster for the rest alone."""
    sources = planted(tmp_path / "saes", range(6), n=1500, d=64)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    staged = tmp_path / "there" / "matches"
    command = ["ingest", str(sources), "-a", str(tmp_path / "there"), "--ray", cluster.address]
    with subprocess.Popen([sys.executable, "-c", CODE, *command], stderr=subprocess.PIPE, text=True) as driver:
        while not staged.is_dir() or len(list(staged.glob("*.parquet"))) < 3:
            assert driver.poll() is None, driver.stderr and driver.stderr.read()
            time.sleep(0.01)
        driver.kill()
    assert not any(path.name == "feature-atlas.json" for path in (tmp_path / "there").iterdir())  # nothing half made
    there = len(list(staged.glob("*.parquet")))
    report = ingest([sources], tmp_path / "there", ray=cluster.address)
    assert 0 < report.pairs_matched <= 17 - there and report.pairs_kept >= there
    # What a worker makes by itself, on as many threads.
    done = [sys.executable, "-c", CODE, "ingest", str(sources), "-a", str(tmp_path / "here")]
    subprocess.run(done, check=True, capture_output=True)
    assert digest_of(tmp_path / "there") == digest_of(tmp_path / "here")


def test_a_worker_that_makes_other_rows_says_so(tmp_path: Path) -> None:
    """The task itself, in this process: what Ray carries is its arguments and what it returns."""
    sources = planted(tmp_path / "saes", range(2))
    ingest([sources], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        records = atlas.dictionaries
    shutil.rmtree(sources)
    planted(sources, range(2), seed=1)
    found = {source.id: source for source in find_sources([str(sources)])}
    with pytest.raises(IngestError, match="makes other rows"):
        matched(found, records, {}, False)


def test_an_address_where_no_cluster_is(tmp_path: Path) -> None:
    sources = planted(tmp_path / "saes", range(2))
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        ingest([sources], tmp_path / "a", ray="127.0.0.1:1")

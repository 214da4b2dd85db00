"""Evidence and sweeps on a Ray cluster: what this machine makes alone, bit by bit, though a node is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import saes
import tiny_models as tiny
import torch
from evidence_atlas import tiny_atlas, write_text
from ray_cluster import losing_a_node, ray_cluster

from atlas import open_atlas
from atlas.cli.main import _run
from atlas.cli.progress import Progress
from atlas.cluster import Shared
from atlas.cluster import cluster as reached
from atlas.errors import ClusterError
from atlas.graph.digest import digest
from hooked.load import load_model
from ingest import ingest
from queries.evidence.firing.edges import measure_edges
from queries.evidence.removals.deactivation import deactivation
from queries.sweep.design import KINDS, Design
from queries.sweep.on_ray import made_on_ray, trials_of
from queries.sweep.running import Sweep
from queries.sweep.trials import Batch
from queries.workers import worker_atlas

pytest.importorskip("ray", reason="the extra ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as made:
        yield made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as a worker has: sums differ in their last bit with the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_evidence_is_the_same_from_a_cluster(cluster: Any, one_thread: None, tmp_path: Path) -> None:
    """Contexts of two kinds, behind a start token and without one, in two shards of 64 contexts."""
    text = write_text(tmp_path / "t.txt", 20_000)
    here, there = tiny_atlas(tmp_path / "here", layers=(0, 1)), tiny_atlas(tmp_path / "there", layers=(0, 1))
    alone = measure_edges(here, [text], tokens=18_000)
    spread = measure_edges(there, [text], tokens=18_000, ray=cluster.address)
    assert vars(spread) | {"atlas": None} == vars(alone) | {"atlas": None} and alone.fires_with > 0
    with open_atlas(here) as one, open_atlas(there) as other:
        assert digest(one.store) == digest(other.store)
        expected = deactivation(one, [text], positions=30, permutation=True, frozen=True)
        found = deactivation(other, [text], positions=30, permutation=True, frozen=True, ray=cluster.address)
        assert found.rows() == expected.rows() and found.loss() == expected.loss()
        assert found.recall() == expected.recall() and found.by_cosine() == expected.by_cosine()
        assert {key: len(each) for key, each in found.effects.items()} == {
            key: len(each) for key, each in expected.effects.items()
        }


def sweep_design(atlas: Any, model: Path) -> Design:
    return Design(
        features=("tiny-1m/2-res-16/3",),
        theme="w3",
        words=("w3", "w4*"),
        model=str(model),
        strengths=("60%", "180%"),
        arms=tuple(kind for kind in KINDS["add"] if kind != "means"),
        prompts=("w5 w9", "w6", "w7 w8 w9", "w30"),
        samples=3,
        report_samples=4,
        max_new_tokens=5,
        atlas={"id": atlas.manifest.id, "state": atlas.manifest.state},
    )


def test_a_sweep_is_the_same_from_a_cluster_though_a_node_is_lost(
    cluster: Any, one_thread: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest([saes.planted(tmp_path / "saes", range(1, 4), n=16, d=32)], tmp_path / "atlas", k=2)
    tiny.tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny.tiny_tokenizer(padding=True).save_pretrained(tmp_path / "model")
    model, tokenizer = load_model(str(tmp_path / "model"), device="cpu")
    quiet = Progress(quiet=True)
    with open_atlas(tmp_path / "atlas") as atlas:
        design = sweep_design(atlas, tmp_path / "model")
        expected = Sweep(atlas, model, tokenizer, design).choose(tmp_path / "here", quiet)
        asked: list[Batch] = []

        parts = tmp_path / "there" / "trials"
        with losing_a_node(cluster, parts, 4) as lost, reached(cluster.address) as there:

            def elsewhere(batches: Any, streams: Any) -> Any:
                asked.extend(batches)
                return made_on_ray(there, atlas, design, batches, streams)

            sweep = Sweep(atlas, model, tokenizer, design, elsewhere=elsewhere)
            assert sweep.choose(tmp_path / "there", quiet) == expected
        assert lost and lost[0] < len(asked)
        plans = [sorted(path.name for path in (tmp_path / name / "plans").iterdir()) for name in ("here", "there")]
        assert plans[0] == plans[1]
        # Once more there is nothing left to ask for.
        count = len(asked)
        assert sweep.choose(tmp_path / "there", quiet) == expected and len(asked) == count
    told = ["sweep", "tiny-1m/2-res-16/3", "-a", str(tmp_path / "atlas"), "--model", str(tmp_path / "model")]
    told += ["--words", "w3,w4*", "--strengths", "60%", "--arms", "unsteered,lineage", "--samples", "2"]
    told += ["--report-samples", "2", "--prompt", "w5 w9", "--prompt", "w6", "--tokens", "5", "--device", "cpu"]
    printed = []
    for name, more in (("alone", []), ("spread", ["--ray", cluster.address])):
        assert _run([*told, "-o", str(tmp_path / name), "--rows", "trials", "--format", "json", *more]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and '"half": "report"' in printed[0]


def test_a_worker_that_finds_another_atlas_says_so(tmp_path: Path) -> None:
    """The task itself, in this process: what Ray carries is its arguments and what it returns."""
    ingest([saes.planted(tmp_path / "saes", range(1, 4), n=16, d=32)], tmp_path / "atlas", k=2)
    with open_atlas(tmp_path / "atlas") as atlas:
        design, shared = sweep_design(atlas, tmp_path / "model"), Shared.of(atlas)
        assert Shared.of(worker_atlas(shared)) == shared
    ingest([], tmp_path / "atlas", k=3)  # the same rows, other edges
    other = replace(shared, state=(*shared.state[:1], "an earlier one"))
    for given in (Shared(*vars(shared).values()), other):
        worker_atlas.cache_clear()  # as in a worker that has opened nothing yet
        with pytest.raises(ClusterError, match="finds another atlas"):
            trials_of(given, design, None, None, False)  # type: ignore[arg-type]


def _fails(_: int, gpu: bool) -> None:
    raise ValueError("out of luck")


def test_a_worker_s_error_is_one_line(cluster: Any) -> None:
    with pytest.raises(ClusterError, match="a worker failed: out of luck"), reached(cluster.address) as there:
        list(there.results(_fails, {"a": (1,)}))

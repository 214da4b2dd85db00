"""Parts of an ingest joined are the whole, whatever they were; what does not belong together is refused by its name."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from saes import planted, unit, write_sae

from atlas import open_atlas
from atlas.cli.main import root
from atlas.errors import AtlasError, CorruptAtlas, IngestError
from atlas.folder.matches import Pair
from atlas.graph.digest import Digest, digest
from ingest import ingest
from ingest.matching.floor import noise_floor
from ingest.shards.part import ingest_shard
from ingest.shards.plan import read_shard, shards


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers of three sites, and of layer 2 a second, wider dictionary of the stream."""
    folder = planted(tmp_path_factory.mktemp("saes"), range(4))
    rows = unit(np.random.default_rng(7).normal(size=(192, 48)))
    write_sae(folder, 2, "res", rows, name="wide")
    return folder


@pytest.fixture(scope="module")
def whole(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "a"
    ingest([sources], folder)
    return folder


def digest_of(folder: Path) -> Digest:
    with open_atlas(folder) as atlas:
        return digest(atlas.store)


def parts_of(sources: Path, folder: Path, count: int) -> list[Path]:
    parts = [folder / f"part-{number}" for number in range(1, count + 1)]
    for number, part in enumerate(parts, 1):
        ingest_shard([sources], part, (number, count))
    return parts


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 30])
def test_the_whole_is_the_same_whatever_the_parts(sources: Path, whole: Path, tmp_path: Path, count: int) -> None:
    """30 shards of 15 pairs: half of them have none."""
    parts = parts_of(sources, tmp_path, count)
    # In another order, and one of them twice.
    report = ingest([sources], tmp_path / "joined", join=[*reversed(parts), parts[0]])
    assert report.pairs_matched == 0 and report.pairs_kept == len(list((whole / "matches").iterdir()))
    assert digest_of(tmp_path / "joined") == digest_of(whole)
    names = [
        {path.name: path.read_bytes() for path in (each / "matches").iterdir()} for each in (tmp_path / "joined", whole)
    ]
    assert names[0] == names[1]


def test_stretches_are_of_equal_work_and_share_dictionaries() -> None:
    """Eight pairs of 100 × 100 and two of 200 × 200: 16 units of work, which four shards of 4 take as 4, 4, 1 + 1 …"""
    pairs = [Pair(f"b{n}", f"a{n}", "FROM_RES", 1, 5) for n in range(10)]
    sizes = {f"{side}{n}": 200 if n in (4, 5) else 100 for n in range(10) for side in "ab"}
    found = shards(pairs, sizes, 4)
    assert list(itertools.chain(*found)) == pairs
    work = [sum(sizes[p.later] * sizes[p.earlier] for p in part) // 10_000 for part in found]
    assert work == [4, 4, 4, 4]
    assert [len(part) for part in shards(pairs, sizes, 1)] == [10]
    assert sum(map(len, shards(pairs, sizes, 64))) == 10


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(IngestError, match="I from 1 to N"):
        read_shard(text)


def test_a_missing_shard_is_named(sources: Path, tmp_path: Path) -> None:
    parts = parts_of(sources, tmp_path, 3)
    with pytest.raises(IngestError, match="shard 2/3 is missing"):
        ingest([sources], tmp_path / "a", join=[parts[0], parts[2]])
    assert not (tmp_path / "a").exists()


def test_parts_that_do_not_belong_together_are_refused(sources: Path, whole: Path, tmp_path: Path) -> None:
    parts = parts_of(sources, tmp_path, 2)
    for wrong, why in (
        (lambda: ingest([sources], tmp_path / "a", k=3, join=parts), "k 5, not 3"),
        (lambda: ingest([sources], tmp_path / "a", layers=[0, 1], join=parts), "other sources"),
        (lambda: ingest([], tmp_path / "a", join=parts), "name the same SOURCEs"),
        (lambda: ingest([sources], tmp_path / "a", join=[whole]), "no part|unfinished part"),
        (lambda: ingest_shard([sources], parts[0], (2, 2)), "holds shard 1/2"),
        (lambda: ingest_shard([sources], whole, (1, 2)), "holds an atlas"),
    ):
        with pytest.raises(AtlasError, match=why):
            wrong()
    other = parts_of(sources, tmp_path / "three", 3)
    with pytest.raises(IngestError, match="2 and 3 shards"):
        ingest([sources], tmp_path / "a", join=[parts[0], *other])


def test_a_broken_part_goes_on_and_a_damaged_one_is_refused(
    sources: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def breaking(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return noise_floor(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("ingest.matching.floor.noise_floor", breaking)
    with pytest.raises(KeyboardInterrupt):
        ingest_shard([sources], tmp_path / "p", (1, 1))
    with pytest.raises(IngestError, match="unfinished part"):
        ingest([sources], tmp_path / "a", join=[tmp_path / "p"])
    report = ingest_shard([sources], tmp_path / "p", (1, 1))
    assert report.pairs_kept == 3 and report.pairs_matched > 3
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "p", broken)
    path = next((broken / "matches").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptAtlas):
        ingest([sources], tmp_path / "a", join=[broken])
    rows = next((tmp_path / "p" / "dictionaries").rglob("decoder.npy"))
    data = bytearray(rows.read_bytes())
    data[-3] ^= 1
    rows.write_bytes(data)
    with pytest.raises(CorruptAtlas, match="not what its record says"):
        ingest([sources], tmp_path / "b", join=[tmp_path / "p"])
    # What was begun is no obstacle to the right part.
    assert ingest_shard([sources], tmp_path / "p", (1, 1)).pairs_matched == 0
    ingest([sources], tmp_path / "b", join=[tmp_path / "p"])
    assert digest_of(tmp_path / "b") == digest_of(whole)


def test_parts_with_other_rows_of_one_dictionary_are_refused(sources: Path, tmp_path: Path) -> None:
    parts = parts_of(sources, tmp_path, 2)
    values = json.loads((parts[1] / "part.json").read_text())
    shared = next(
        iter(set(values["dictionaries"]) & set(json.loads((parts[0] / "part.json").read_text())["dictionaries"]))
    )
    values["dictionaries"][shared] = "0" * 64
    (parts[1] / "part.json").write_text(json.dumps(values))
    with pytest.raises(IngestError, match=f"other rows of {shared}"):
        ingest([sources], tmp_path / "a", join=parts)


def test_the_commands(sources: Path, whole: Path, tmp_path: Path) -> None:
    run = CliRunner()
    for number in ("1", "2"):
        words = ["ingest", str(sources), "--shard", f"{number}/2", "-a", str(tmp_path / number)]
        dry = run.invoke(root, [*words, "--dry-run", "--format", "json"])
        assert dry.exit_code == 0 and not (tmp_path / number).exists()
        planned = [row for row in json.loads(dry.stdout) if row["step"] == "pair"]
        done = run.invoke(root, words)
        assert (
            done.exit_code == 0
            and f"shard {number} of 2" in done.output
            and f"{len(planned)} pairs matched" in done.output
        )
    words = ["ingest", str(sources), "-a", str(tmp_path / "w")]
    done = run.invoke(root, [*words, "--join", str(tmp_path / "1"), "--join", str(tmp_path / "2")])
    assert done.exit_code == 0 and "0 pairs matched" in done.output
    assert digest_of(tmp_path / "w") == digest_of(whole)
    assert run.invoke(root, [*words, "--shard", "1/2", "--join", str(tmp_path / "1")]).exit_code == 2


def test_the_scripts_for_clusters_are_sound() -> None:
    docker = Path(__file__).parent.parent / "docker"
    subprocess.run(["bash", "-n", str(docker / "ingest.slurm")], check=True)
    manifest = yaml.safe_load((docker / "kuberay.yaml").read_text())
    words = manifest["spec"]["entrypoint"].split()
    assert words[:2] == ["feature-atlas", "ingest"] and "--ray" in words


@pytest.mark.slow
def test_the_slurm_script_makes_parts_and_joins_them(sources: Path, whole: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "docker" / "ingest.slurm"
    places = {"PARTS": str(tmp_path / "parts"), "ATLAS": str(tmp_path / "a")}
    # As many threads as the whole had: with others a cosine's last bit may be another.
    places["SLURM_CPUS_PER_TASK"] = str(faiss.omp_get_max_threads())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for number in ("1", "2", None):
        array = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_COUNT": "2"} if number else {"JOIN": "1"}
        environment = os.environ | places | array | {"PATH": path}
        subprocess.run([str(script), str(sources)], env=environment, check=True, capture_output=True)
    assert digest_of(tmp_path / "a") == digest_of(whole)

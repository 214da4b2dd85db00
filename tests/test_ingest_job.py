"""The ingest job on real files and the real store: same edges as brute force, resumable, incremental, refusing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from folders import configuration, tensors, write_folder
from saes import planted, unit, write_sae

from atlas import open_atlas
from atlas.cli.info import summary
from atlas.errors import CorruptAtlas, IngestError, LockedAtlas, NewerAtlas, NotAnAtlas
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.labels import Labels
from atlas.folder.lock import writing
from atlas.folder.manifest import FORMAT, GRAPH, Manifest
from atlas.schema import EDGES as EDGE_TABLES
from atlas.schema import NODES
from hooked.encoder import Encoder
from ingest import ingest
from queries import neighbours

EDGES = (
    "MATCH (b:Feature)-[e:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature) RETURN b.id AS later, a.id AS earlier, "
    "e.similarity AS similarity, e.rank AS rank, e.forward_rank AS forward_rank, e.gap AS gap ORDER BY later, earlier"
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("saes"), range(3))


def edges(atlas: Path) -> list[dict]:  # type: ignore[type-arg]
    with open_atlas(atlas) as opened:
        return opened.read(EDGES)


Reference = dict[tuple[int, int], tuple[float, int | None, int | None]]


def expected(later: np.ndarray, earlier: np.ndarray, k: int) -> Reference:
    """Brute force in float64: (later, earlier) -> (cosine, rank, forward rank)."""
    product = unit(later.astype(np.float64)) @ unit(earlier.astype(np.float64)).T
    found: Reference = {}
    for i in range(len(later)):
        for rank, j in enumerate(np.argsort(-product[i], kind="stable")[:k]):
            if product[i, j] > 0:
                found[i, int(j)] = (product[i, j], rank, None)
    for j in range(len(earlier)):
        for rank, i in enumerate(np.argsort(-product[:, j], kind="stable")[:k]):
            if product[i, j] > 0:
                found[int(i), j] = (product[i, j], found.get((int(i), j), (0, None, None))[1], rank)
    return found


def rows_of(folder: Path, hook: str) -> np.ndarray:
    from safetensors.numpy import load_file

    return np.asarray(load_file(folder / hook / "sae_weights.safetensors")["W_dec"])


def test_edges_are_brute_force_s(sources: Path, tmp_path: Path) -> None:
    report = ingest([sources], tmp_path / "a", k=3)
    assert (len(report.dictionaries), report.pairs_matched, report.published) == (9, 8, True)
    found = {(row["later"], row["earlier"]): row for row in edges(tmp_path / "a")}
    hooks = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "hook_attn_out"}
    count = 0
    for layer in range(3):
        pairs = [(layer, "mlp"), (layer, "att")] + ([(layer - 1, "res")] if layer else [])
        for other, site in pairs:
            later = rows_of(sources, f"blocks.{layer}.hook_resid_post")
            reference = expected(later, rows_of(sources, f"blocks.{other}.{hooks[site]}"), 3)
            count += len(reference)
            for (i, j), (cosine, rank, forward_rank) in reference.items():
                row = found[f"tiny-1m/{layer}-res-64/{i}", f"tiny-1m/{other}-{site}-64/{j}"]
                assert abs(row["similarity"] - cosine) < 2e-6
                assert (row["rank"], row["forward_rank"], row["gap"]) == (rank, forward_rank, layer - other)
    assert len(found) == count == report.edges


def test_planted_lineages_have_their_life_cycles(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        rows = atlas.read(
            "MATCH (f:Feature {layer: 1, site: 'res'}) "
            "RETURN f.index AS i, f.lifecycle AS l, f.origin AS o, f.s_res AS s ORDER BY i"
        )
        first = atlas.read("MATCH (f:Feature {layer: 0, site: 'res'}) RETURN DISTINCT f.lifecycle AS l")
        modules = atlas.read("MATCH (f:Feature {site: 'mlp'}) RETURN DISTINCT f.lifecycle AS l, f.s_res AS s")
    # 64 rows: the first 32 copy the layer before, the next 16 copy the mlp; noise .05·√48 ≈ .35 leaves a cosine ≈ .94.
    assert all(row["s"] > 0.85 and row["o"] == "res" for row in rows[:32])
    assert all(row["l"] == "appears" or row["s"] >= 0.5 for row in rows[32:48])
    assert all(row["o"] == "mlp" for row in rows[32:48])
    assert first == [{"l": "start"}] and modules == [{"l": None, "s": None}]


def test_a_repeated_ingest_does_nothing(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != "lock.json"}
    report = ingest([sources], tmp_path / "a")
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != "lock.json"}
    assert not report.published and report.pairs_matched == 0 and before.keys() == after.keys()
    assert {p for p in before if before[p] != after[p]} <= {tmp_path / "a" / "lock"}


def test_a_new_layer_adds_only_its_pairs_and_equals_an_atlas_made_at_once(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a", layers=[0, 2])  # 2-res meets 0-res: a gap of 2
    assert {row["gap"] for row in edges(tmp_path / "a")} == {0, 2}
    report = ingest([sources], tmp_path / "a")
    assert report.pairs_matched == 4  # 1 with its res, mlp, att; 2-res with 1-res. 2-res with 0-res is no pair any more
    ingest([sources], tmp_path / "b")
    assert edges(tmp_path / "a") == edges(tmp_path / "b")


@pytest.mark.slow
def test_another_k_matches_anew(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a", k=1)
    ingest([sources], tmp_path / "a", k=2)
    ingest([sources], tmp_path / "b", k=2)
    assert edges(tmp_path / "a") == edges(tmp_path / "b")


def test_the_atlas_stands_without_its_sources(sources: Path, tmp_path: Path) -> None:
    shutil.copytree(sources, tmp_path / "s")
    ingest([tmp_path / "s"], tmp_path / "a")
    shutil.rmtree(tmp_path / "s")
    with open_atlas(tmp_path / "a") as atlas:
        rows = rows_of(sources, "blocks.1.hook_mlp_out")
        found = atlas.directions(["tiny-1m/1-mlp-64/7", "tiny-1m/1-mlp-64/3"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(rows.astype(np.float64))[[7, 3]], atol=1e-6)


def test_dead_rows_are_counted_marked_and_not_matched(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows = unit(generator.normal(size=(16, 24)))
    dead = rows.copy()
    dead[3], dead[5, 2] = 0, np.nan
    write_sae(tmp_path / "s", 0, "res", dead)
    write_sae(tmp_path / "s", 1, "res", rows)
    ingest([tmp_path / "s"], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        assert atlas.dictionaries["tiny-1m/0-res-16"].dead_rows == 2
        gone = atlas.read("MATCH (f:Feature) WHERE f.dead RETURN f.id AS id, f.lifecycle AS l ORDER BY id")
        edges = atlas.read("MATCH (f:Feature)<-[e:FROM_RES]-() WHERE f.dead RETURN count(*) AS n")
    assert gone == [{"id": "tiny-1m/0-res-16/3", "l": None}, {"id": "tiny-1m/0-res-16/5", "l": None}]
    assert edges == [{"n": 0}]


def test_a_changed_source_is_refused(sources: Path, tmp_path: Path) -> None:
    shutil.copytree(sources, tmp_path / "s")
    ingest([tmp_path / "s"], tmp_path / "a")
    shutil.rmtree(tmp_path / "s" / "blocks.0.hook_mlp_out")
    write_sae(tmp_path / "s", 0, "mlp", np.eye(64, 48) + 0.01)
    with pytest.raises(IngestError, match=r"other content.*--set"):
        ingest([tmp_path / "s"], tmp_path / "a")


@pytest.mark.parametrize("name", ["decoder.npy", "encoder.npy", "vectors.npz"])
def test_rows_that_are_missing_or_damaged_are_written_again(sources: Path, tmp_path: Path, name: str) -> None:
    """Also from where the source lies now; labels stay."""
    ingest([sources], tmp_path / "a")
    place = tmp_path / "a" / "dictionaries" / "tiny-1m" / "1-mlp-64"
    words = pa.array([[f"w{i}"] for i in range(64)])
    Labels.load(place).updated({"fires_on": words}).save(place)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    shutil.copytree(sources, tmp_path / "s")
    for damaged in (None, before[name][:200], before[name].replace(b"{'descr", b"{((((((", 1)):
        (place / name).unlink() if damaged is None else (place / name).write_bytes(damaged)
        report = ingest([tmp_path / "s"], tmp_path / "a")
        assert report.restored == ("tiny-1m/1-mlp-64",) and not report.published and not report.dictionaries
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    assert ingest([tmp_path / "s"], tmp_path / "a").restored == ()
    assert [path.name for path in place.parent.iterdir() if path.name.startswith(".")] == []


def test_a_second_writer_is_told_who_holds_the_lock(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a", layers=[0])
    with writing(tmp_path / "a"), pytest.raises(LockedAtlas, match=f"process {os.getpid()} on .* since 20"):
        ingest([sources], tmp_path / "a")


def test_a_dead_writer_s_lock_is_taken_over(sources: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "a"
    atlas.mkdir()
    code = (
        "import sys, pathlib, time; from atlas.folder.lock import writing\n"
        "with writing(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(atlas)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(LockedAtlas, match=f"process {process.pid} "):
        ingest([sources], atlas)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ingest([sources], atlas, layers=[0]).published


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.05, 0.3, 0.6, 0.9, 1.2])
def test_killed_at_any_moment_the_same_command_gives_the_same_edges(
    sources: Path, tmp_path: Path, delay: float
) -> None:
    """`delay` counts from the first file the ingest writes, so that the blow falls inside its work."""
    atlas = tmp_path / "a"
    command = [sys.executable, "-c", "import sys; from ingest import ingest; ingest([sys.argv[1]], sys.argv[2])"]
    process = subprocess.Popen([*command, str(sources), str(atlas)])
    while not (atlas / "dictionaries").exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ingest([sources], atlas)
    ingest([sources], tmp_path / "b")
    assert edges(atlas) == edges(tmp_path / "b")
    left = [p.name for p in atlas.rglob("*") if p.name.endswith((".tmp", ".partial"))]
    assert left == []


def test_readers_keep_the_state_they_opened(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a", layers=[0])
    with open_atlas(tmp_path / "a") as atlas:
        before = atlas.read("MATCH (f:Feature) RETURN count(*) AS n")
        ingest([sources], tmp_path / "a")
        assert atlas.read("MATCH (f:Feature) RETURN count(*) AS n") == before == [{"n": 3 * 64}]
    with open_atlas(tmp_path / "a") as atlas:
        assert atlas.read("MATCH (f:Feature) RETURN count(*) AS n") == [{"n": 9 * 64}]


def test_a_full_disk_is_one_line_and_the_atlas_still_opens(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a", layers=[0])
    # No file may grow beyond 8 KiB: a write error at the first dictionary, as a full disk gives one.
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "from atlas.cli.main import main; main(['ingest', sys.argv[1], '-a', sys.argv[2]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sources), str(tmp_path / "a")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ") and "Traceback" not in done.stderr
    assert len({row["later"] for row in edges(tmp_path / "a")}) == 64


def test_a_manifest_of_before_is_read(sources: Path, tmp_path: Path) -> None:
    """It remembered the states that it came from, and had a null where nothing was begun."""
    ingest([sources], tmp_path / "a", layers=[0])
    manifest, path = Manifest.load(tmp_path / "a"), tmp_path / "a" / "feature-atlas.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"previous": ["state"], "pending": None}))
    assert Manifest.load(tmp_path / "a") == manifest
    assert not ingest([sources], tmp_path / "a", layers=[0]).published


def test_the_format_follows_the_schema() -> None:
    """An embedded graph knows only the columns it was made with: with other columns the format is another."""
    digest = hashlib.sha256(repr((NODES, EDGE_TABLES)).encode()).hexdigest()[:16]
    assert (GRAPH, digest) == (4, "a03a2f157fce1db0"), "raise FORMAT of atlas.folder.manifest, and GRAPH to it"


def test_an_atlas_of_an_earlier_version_is_brought_up_without_its_sources(sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "a", layers=[0, 1])
    before, path = edges(tmp_path / "a"), tmp_path / "a" / "feature-atlas.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": GRAPH - 1}))
    with pytest.raises(NotAnAtlas, match=f"earlier version.*feature-atlas ingest -a {tmp_path / 'a'}"):
        open_atlas(tmp_path / "a")
    report = ingest([], tmp_path / "a")
    assert report.published and report.pairs_matched == 0 and edges(tmp_path / "a") == before


def test_an_atlas_whose_rows_are_all_float32_is_read_and_goes_on(sources: Path, tmp_path: Path) -> None:
    """Format 4 kept unit rows. Its edges, and those of a layer that comes later, are the ones of today."""
    ingest([sources], tmp_path / "new")
    ingest([sources], tmp_path / "old", layers=[0, 1])
    for record in (tmp_path / "old" / "dictionaries").rglob("dictionary.json"):
        rows = Rows.open(record.parent, Dictionary.load(record.parent))
        plain = {name: rows.vectors[name] for name in set(rows.vectors) - {"decoder_divisors", "encoder_factors"}}
        decoder, encoder = rows.decoder.copy(), rows.encoder.copy()
        np.save(record.parent / "decoder.npy", decoder)
        np.save(record.parent / "encoder.npy", encoder)
        np.savez(record.parent / "vectors.npz", **plain)  # type: ignore[arg-type]
    path = tmp_path / "old" / "feature-atlas.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 4}))
    with open_atlas(tmp_path / "old") as old, open_atlas(tmp_path / "new") as new:
        id_ = next(iter(old.dictionaries))
        assert (old.directions([f"{id_}/5"]) == new.directions([f"{id_}/5"])).all()
    report = ingest([sources], tmp_path / "old")
    assert report.pairs_kept and report.pairs_matched and not report.restored
    assert edges(tmp_path / "old") == edges(tmp_path / "new")
    assert json.loads(path.read_text())["format"] == FORMAT == 5


def test_damaged_atlases_are_named_and_never_overwritten(sources: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "a"
    ingest([sources], atlas, layers=[0])
    manifest = atlas / "feature-atlas.json"
    good = manifest.read_text()
    newer = json.dumps(json.loads(good) | {"format": 99})
    for text, error in (("", CorruptAtlas), ("{", CorruptAtlas), ("[1]", CorruptAtlas), (newer, NewerAtlas)):
        manifest.write_text(text)
        for act in (lambda: open_atlas(atlas), lambda: ingest([sources], atlas)):
            with pytest.raises(error):
                act()
        assert manifest.read_text() == text
    manifest.write_text(good)
    (graph,) = (p for p in (atlas / "graph").iterdir() if p.is_file())
    content = graph.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:5000] + b"\xff" + content[5001:]):
        graph.write_bytes(damaged)
        with pytest.raises(CorruptAtlas):
            edges(atlas)
        with pytest.raises(CorruptAtlas, match="delete that file"):
            ingest([], atlas)
    graph.unlink()
    assert ingest([], atlas).published and len(edges(atlas)) > 0  # rebuilt from what is staged, without the sources
    with pytest.raises(NotAnAtlas, match="ingest"):
        open_atlas(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(IngestError, match="not empty"):
        ingest([sources], tmp_path / "full")


def test_no_life_cycle_by_noise(tmp_path: Path) -> None:
    """Random rows of 12 numbers: the best of 20 has a cosine of about 0.65, far above the paper's 0.25 and 0.5."""
    for seed, hook in enumerate(("0.hook_resid_post", "1.hook_resid_post", "1.hook_mlp_out")):
        cfg = configuration(f"blocks.{hook}")
        write_folder(tmp_path / "saes" / hook, cfg, tensors(cfg, seed=seed))
    ingest([tmp_path / "saes"], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        rows = atlas.read("MATCH (f:Feature {layer: 1, site: 'res'}) RETURN f.lifecycle AS l, f.s_mlp AS s")
        assert min(row["s"] for row in rows) > 0.25, "all would transform or appear"
        assert sum(row["l"] == "unexplained" for row in rows) > 10
        assert "which stand in for them in 2 of 2 pairs" in summary(atlas)["thresholds"]


def flip(path: Path, place: float) -> None:
    """One bit of the file, that far into it."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.05, 0.3, 0.6])
def test_a_flipped_bit_in_staged_matches_becomes_no_edge(sources: Path, tmp_path: Path, place: float) -> None:
    ingest([sources], tmp_path / "a")
    for path in (tmp_path / "a" / "matches").glob("*"):
        flip(path, place)
    with pytest.raises(CorruptAtlas, match="delete it and ingest again"):
        ingest([], tmp_path / "a", min_res=0.4)
    with open_atlas(tmp_path / "a") as atlas:  # what was published is still there
        assert atlas.read("MATCH ()-[r:FROM_RES]->() RETURN count(*) AS n")[0]["n"]
    for path in (tmp_path / "a" / "matches").glob("*"):
        path.unlink()
    ingest([], tmp_path / "a", min_res=0.4)


def test_a_flipped_bit_in_rows_is_served_to_nobody(sources: Path, tmp_path: Path) -> None:
    """Found where the row is used, by its own digest, and mended by an ingest of the source."""
    ingest([sources], tmp_path / "a", layers={0}, sites={"res"})
    (id_,) = Manifest.load(tmp_path / "a").dictionaries
    for name in ("decoder.npy", "encoder.npy"):
        path = tmp_path / "a" / "dictionaries" / id_ / name
        size = path.stat().st_size
        row = 5
        width = (size - 128) // 64
        flip(path, (128 + width * row + 1) / size)
        with open_atlas(tmp_path / "a") as atlas:
            record, rows = atlas.dictionaries[id_], atlas.rows(id_)
            if name == "decoder.npy":
                atlas.directions([f"{id_}/4"])
                with pytest.raises(CorruptAtlas, match="changed since they were written"):
                    atlas.directions([f"{id_}/5"])
                with pytest.raises(CorruptAtlas, match="changed since they were written"):
                    neighbours(atlas, f"{id_}/4")
            else:
                Encoder.of(record, rows, [4])
                for features in ([3, 5], None):
                    with pytest.raises(CorruptAtlas, match="changed since they were written"):
                        Encoder.of(record, rows, features)
        report = ingest([sources], tmp_path / "a", layers={0}, sites={"res"})
        assert report.restored == (id_,)
        with open_atlas(tmp_path / "a") as atlas:
            assert len(atlas.directions([f"{id_}/5"])) == 1

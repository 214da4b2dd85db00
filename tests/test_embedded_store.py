"""The embedded store: states exchanged as a whole, readers that keep theirs, files checked before they are trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from planted_graph import PlantedGraph

import atlas.embedded.file
import atlas.embedded.load
from atlas.embedded.file import fingerprint, state_path
from atlas.embedded.store import LadybugStore
from atlas.errors import CorruptAtlas, FolderError, IngestError, NotAnAtlas, QueryError
from atlas.graph.store import Batch
from atlas.schema import EDGE_FIGURES

COUNT = "MATCH ()-[r:FROM_RES]->() RETURN count(r) AS n"


def published(folder: Path, graph: PlantedGraph | None = None) -> LadybugStore:
    """A store that reads a newly published state."""
    graph = graph or PlantedGraph()
    return LadybugStore(folder, graph.state, LadybugStore(folder, None).publish(graph))


def edges(store: LadybugStore) -> int:
    count = store.read(COUNT)[0]["n"]
    assert store.query(COUNT, {}).rows == [{"n": count}]
    return int(count)


def test_publish_reports_progress_and_leaves_one_file(tmp_path: Path) -> None:
    written: list[int] = []
    graph = PlantedGraph()
    LadybugStore(tmp_path / "graph", None).publish(graph, progress=written.append)
    # Feature: 4 layers of 10; FROM_RES: 3 pairs of 10 of rank 0 and 9 of rank 1; MATCHED: 3
    assert sum(written) == 40 + 57 + 3
    assert list((tmp_path / "graph").iterdir()) == [state_path(tmp_path / "graph", graph.state)]


def test_large_tables_are_copied_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas.embedded.load, "ROWS", 7)
    written: list[int] = []
    folder = tmp_path / 'graph\'s "place" é'
    graph = PlantedGraph()
    LadybugStore(folder, None).publish(graph, progress=written.append)
    assert max(written) == 7 and sum(written) == 100
    store = LadybugStore(folder, graph.state)
    assert edges(store) == 57
    store.close()


@pytest.mark.slow
def test_a_graph_may_be_much_larger_than_the_engine_s_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """330,000 edges with 64 MB; what was loaded and kept in the buffer until the end took 130 MB, at 1 GB 6 million."""
    monkeypatch.setattr(atlas.embedded.load, "ROWS", 40_000)
    monkeypatch.setattr(atlas.embedded.store, "LOADING", 64 << 20)
    graph = PlantedGraph(layers=10, width=3000, extra=27_333)
    written: list[int] = []
    LadybugStore(tmp_path, None).publish(graph, progress=written.append)
    store = LadybugStore(tmp_path, graph.state)
    assert edges(store) > 290_000
    store.close()


def test_a_process_may_have_many_graphs_open(tmp_path: Path) -> None:
    """The engine's own 8 TB of address space each are too much for sixteen."""
    graph = PlantedGraph()
    LadybugStore(tmp_path, None).publish(graph)
    stores = [LadybugStore(tmp_path, graph.state) for _ in range(50)]
    assert [store.read(COUNT)[0]["n"] for store in stores] == [57] * 50
    for store in stores:
        store.close()


def test_values_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = published(tmp_path)
    rows = store.read(
        "MATCH (f:Feature {index: $i})-[r:FROM_RES {rank: 0}]->(g) RETURN f, r, g.dead AS dead, f.s_res AS s "
        "ORDER BY f.layer LIMIT 1",
        {"i": 9},
    )
    feature = rows[0]["f"]
    assert (feature["id"], feature["index"], feature["dead"], feature["norm"]) == ("tiny/1-res-10/9", 9, False, 1.0)
    assert feature["label"] == "theme 9; it's “quoted”" and feature["s_res"] is None
    assert rows[0]["r"] == {
        "type": "FROM_RES",
        "similarity": 0.509,
        "rank": 0,
        "forward_rank": 0,
        "gap": 1,
        **dict.fromkeys(EDGE_FIGURES),
    }
    path = store.read("MATCH p = (:Feature {id: 'tiny/1-res-10/9'})-[:FROM_RES*1..2]->() RETURN p")[0]["p"]
    assert [node["index"] for node in path["nodes"]] == [9, 9] and path["relationships"][0]["rank"] == 0
    store.close()
    store.close()


def test_reading_is_fast(tmp_path: Path) -> None:
    """A lineage is about 50 such reads."""
    store = published(tmp_path)
    cypher = "MATCH (:Feature {id: $id})-[r:FROM_RES {rank: 0}]->(g:Feature) RETURN g.id AS id, r.similarity AS s"
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for i in range(50):
            store.read(cypher, {"id": f"tiny/3-res-10/{i % 10}"})
        best = min(best, time.perf_counter() - start)
    assert best < 0.1
    store.close()


def test_a_state_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotAnAtlas, match="ingest"):
        LadybugStore(tmp_path, None).read(COUNT)
    with pytest.raises(CorruptAtlas, match="cannot be opened"):
        LadybugStore(tmp_path, "gone").query(COUNT, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "longer"])
def test_damaged_files_are_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    store = published(tmp_path)
    path = state_path(tmp_path, str(store.state))
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content.clear()
    elif damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content += b"x"
    path.write_bytes(content)
    for ask in (store.open, lambda: store.read(COUNT), lambda: store.query(COUNT, {})):
        with pytest.raises(CorruptAtlas, match=r"graph-.*ingest"):
            ask()
    assert path.read_bytes() == content


def test_a_file_of_something_else_is_corrupt_even_without_a_fingerprint(tmp_path: Path) -> None:
    state_path(tmp_path, "x").write_bytes(b"not a database" * 1000)
    with pytest.raises(CorruptAtlas, match="cannot be read"):
        LadybugStore(tmp_path, "x").read(COUNT)
    with pytest.raises(QueryError, match="could not open"):
        LadybugStore(tmp_path, "x").query(COUNT, {})


def test_large_files_are_hashed_in_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas.embedded.file, "HASHED", 6400)  # 64 places of 100 bytes
    path = tmp_path / "x"
    path.write_bytes(bytes(64_000))
    whole = fingerprint(path)
    for place, noticed in ((0, True), (99, True), (100, False), (63_999, True)):
        content = bytearray(64_000)
        content[place] = 1
        path.write_bytes(content)
        assert (fingerprint(path) != whole) is noticed


def test_readers_keep_their_state_while_another_is_published_and_retired(tmp_path: Path) -> None:
    old, other = published(tmp_path), None
    assert old.state is not None
    other = LadybugStore(tmp_path, old.state, old.expected)
    other.open()
    script = (
        "import sys; from pathlib import Path; from atlas.embedded.store import LadybugStore\n"
        "store = LadybugStore(Path(sys.argv[1]), sys.argv[2])\n"
        f"for _ in range(2): print(store.read({COUNT!r}), flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), old.state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    assert edges(old) == 57 and process.stdout.readline() == "[{'n': 57}]\n"
    new = published(tmp_path, PlantedGraph(layers=3))
    assert new.state is not None
    new.retire(new.state)
    assert list(tmp_path.iterdir()) == [state_path(tmp_path, new.state)]
    # A reader that had read, one that had only opened, one in another process, and a worker started afterwards.
    old._reader.close()  # type: ignore[union-attr]
    assert edges(old) == edges(other) == 57 and edges(new) == 38
    assert process.communicate("\n\n", timeout=30)[0] == "[{'n': 57}]\n"
    for store in (old, other, new):
        store.close()


class WithBatch(PlantedGraph):
    """A graph whose edges are one given table."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__()
        self.table = table

    def edges(self, type_: str):  # type: ignore[no-untyped-def]
        if type_ == "FROM_RES":
            yield Batch(type_, "x", self.dictionary(1), self.dictionary(0), self.table)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"similarity": [float("nan")]}, IngestError, "similarity that is not a number"),
        ({"similarity": None}, IngestError, "columns of the schema"),
        ({"rank": ["first"]}, IngestError, "columns of the schema"),
        ({"earlier": [10]}, FolderError, "tiny/0-res-10/10"),
    ],
)
def test_wrong_tables_are_refused(
    tmp_path: Path, change: dict[str, list[object] | None], error: type[Exception], message: str
) -> None:
    columns: dict[str, list[object] | None] = {
        "later": [0],
        "earlier": [0],
        "similarity": [0.5],
        "rank": [0],
        "forward_rank": [None],
        "gap": [1],
    }
    table = pa.table({name: value for name, value in {**columns, **change}.items() if value is not None})
    with pytest.raises(error, match=message):
        LadybugStore(tmp_path, None).publish(WithBatch(table))
    assert not list(tmp_path.iterdir())


def test_a_failing_source_leaves_the_old_state(tmp_path: Path) -> None:
    store = published(tmp_path)
    with pytest.raises(FolderError, match="No space left"):
        store.publish(PlantedGraph(edges_before_failure=2))
    assert edges(store) == 57 and len(list(tmp_path.iterdir())) == 1
    store.close()


PUBLISH = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from planted_graph import PlantedGraph
from atlas.errors import FolderError
from atlas.embedded.store import LadybugStore
if limit := int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    LadybugStore(Path(sys.argv[2]), None).publish(PlantedGraph(layers=10, width=2000, extra=50_000), progress=print)
except FolderError as error:
    print("FolderError:", error)
"""


def _publish(folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    arguments = [str(Path(__file__).parent), str(folder), str(limit)]
    return subprocess.Popen([sys.executable, "-c", PUBLISH, *arguments], stdout=subprocess.PIPE, text=True)


# bytes a file may have: within the staged nodes, the database's nodes, the staged edges, the database's edges
@pytest.mark.slow
@pytest.mark.parametrize("limit", [20_000, 500_000, 2_000_000, 10_000_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_state(tmp_path: Path, limit: int) -> None:
    store = published(tmp_path)
    process = _publish(tmp_path, limit)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    last = out.splitlines()[-1]
    assert last.startswith("FolderError: the graph could not be written to") and "room" in last
    assert edges(store) == 57 and len(list(tmp_path.iterdir())) == 1
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.4, 0.8])
def test_a_killed_publish_leaves_the_old_state_and_the_next_one_cleans_up(tmp_path: Path, moment: float) -> None:
    store = published(tmp_path)
    process = _publish(tmp_path)
    end = time.monotonic() + 30
    while not list(tmp_path.glob("*.building")) and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert edges(store) == 57
    again = published(tmp_path)
    assert edges(again) == 57 and not list(tmp_path.glob("*.building"))
    again.retire(str(again.state))
    assert len(list(tmp_path.iterdir())) == 1
    store.close()
    again.close()


@pytest.mark.parametrize(
    "name", ["run[1]", "a*b", "what?", 'it\'s "here"', "back\\slash", "päth mit電影", "[", "$HOME", "%s{x}"]
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = published(tmp_path / name)
    assert edges(store) == 57
    store.close()

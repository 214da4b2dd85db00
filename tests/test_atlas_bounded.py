"""Users' statements on a real graph: right rows, and bounds that hold whatever the engine does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted_graph import PlantedGraph

from atlas.bounded import BoundedReader
from atlas.embedded.store import LadybugStore
from atlas.errors import QueryError, QueryTimeout, QueryTooLarge
from atlas.graph.store import Answer

MARGIN = 3.0  # seconds past its timeout within which every statement has ended


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LadybugStore]:
    """4 layers of 10 features, 30 edges of rank 0 and 27 of rank 1 (see PlantedGraph)."""
    folder = tmp_path_factory.mktemp("graph")
    graph = PlantedGraph()
    reader = LadybugStore(folder, graph.state, LadybugStore(folder, None).publish(graph))
    yield reader
    reader.close()


def ask(store: LadybugStore, cypher: str, *, limit: int = 0, timeout: float = 30.0, **parameters: object) -> Answer:
    return store.query(cypher, parameters, limit=limit, timeout=timeout, max_bytes=64 << 20)


ROWS = [
    ("MATCH (f:Feature) RETURN count(*)", {}, [{"count(*)": 40}]),
    ("MATCH (f:Feature) RETURN count(DISTINCT f.layer) AS n;", {}, [{"n": 4}]),
    ("MATCH (f:Feature {index: 3}) RETURN f.layer AS l ORDER BY l DESC LIMIT 2", {}, [{"l": 3}, {"l": 2}]),
    ("MATCH (f:Feature) WHERE f.index = 3 AND f.layer = 1 RETURN f.index AS index ORDER BY index", {}, [{"index": 3}]),
    ("MATCH (d:Dictionary) WHERE d.set = 'res-10' RETURN count(d) AS n", {}, [{"n": 4}]),
    (
        "MATCH (f:Feature {id: $id})-[r:FROM_RES {rank: 0}]->(g) RETURN g.id, r.similarity AS s, type(r) AS t",
        {"id": "tiny/3-res-10/7"},
        [{"g.id": "tiny/2-res-10/7", "s": 0.507, "t": "FROM_RES"}],
    ),
    (
        "MATCH p = (:Feature {id: $id})-[:FROM_RES*1..25 {rank: 0}]->(g) "
        "RETURN g.layer AS l, length(p) AS n ORDER BY n",
        {"id": "tiny/3-res-10/7"},
        [{"l": 2, "n": 1}, {"l": 1, "n": 2}, {"l": 0, "n": 3}],
    ),
    (
        "MATCH (:Feature {id: 'tiny/2-res-10/0'})-[:FROM_RES|FROM_MLP*2 {rank: $rank}]->(g) RETURN g.id AS id",
        {"rank": 1},
        [{"id": "tiny/0-res-10/2"}],
    ),
    # One step down per hop, so 3 hops from layer 3 to 0; two of rank 1 move the index by 2.
    (
        "MATCH (a:Feature {id: 'tiny/3-res-10/0'}), (b:Feature {id: 'tiny/0-res-10/2'}) "
        "MATCH p = shortestPath((a)-[:FROM_RES*..5]->(b)) RETURN length(p) AS n",
        {},
        [{"n": 3}],
    ),
    (
        "MATCH p = (:Feature {id: 'tiny/3-res-10/0'})-[:FROM_RES*3..3]->(g) "
        "WHERE all(r IN relationships(p) WHERE r.rank = 1) RETURN g.id AS id",
        {},
        [{"id": "tiny/0-res-10/3"}],
    ),
    (
        "MATCH p = (:Feature {id: 'tiny/3-res-10/5'})-[:FROM_RES*3..3 {rank: 0}]->() "
        "UNWIND relationships(p) AS r RETURN min(r.similarity) AS weakest",
        {},
        [{"weakest": 0.505}],
    ),
    ("MATCH (f:Feature) WHERE NOT EXISTS { MATCH (f)-[:FROM_RES]->() } RETURN count(*) AS n", {}, [{"n": 10}]),
    (
        "MATCH (f:Feature {layer: 1}) "
        "RETURN f.index AS i, COUNT { MATCH (f)-[:FROM_RES]->() } AS n ORDER BY n, i LIMIT 2",
        {},
        [{"i": 9, "n": 1}, {"i": 0, "n": 2}],
    ),
    (
        "MATCH (f:Feature {index: 0}) OPTIONAL MATCH (f)-[:FROM_RES {rank: 0}]->(g) "
        "RETURN f.layer AS l, coalesce(g.id, 'none') AS g ORDER BY l LIMIT 1",
        {},
        [{"l": 0, "g": "none"}],
    ),
    ("MATCH (f:Feature)<-[r:FROM_RES]-() WITH f, count(r) AS n WHERE n > 1 RETURN count(f) AS n", {}, [{"n": 27}]),
    ("MATCH (f:Feature {layer: 3}) WHERE (f)-[:FROM_RES {rank: 1}]->() RETURN count(f) AS n", {}, [{"n": 9}]),
    ("UNWIND [1, 2, 3] AS x WITH x WHERE x > 1 RETURN sum(x) AS s", {}, [{"s": 5}]),
    ("RETURN CASE WHEN 1 < 2 THEN 'a' ELSE 'b' END AS x", {}, [{"x": "a"}]),
    ("RETURN 1 AS x UNION ALL RETURN 2 AS x", {}, [{"x": 1}, {"x": 2}]),
    ("MATCH (f:Feature) RETURN collect(DISTINCT f.site) AS sites", {}, [{"sites": ["res"]}]),
    ("RETURN [1, 2, 3][1..3] AS x, size([1]) AS n", {}, [{"x": [2, 3], "n": 1}]),
    ("RETURN [x IN [1, 2] | x + 1] AS x", {}, [{"x": [2, 3]}]),
    ("// all\nMATCH (f:Feature) /* of */ WHERE f.layer = 2 // layer\nRETURN count(*) AS n", {}, [{"n": 10}]),
    ("RETURN 'CREATE (n); DROP' AS s, 'it\\'s' AS `delete me`", {}, [{"s": "CREATE (n); DROP", "delete me": "it's"}]),
    ("MATCH (f:Feature) WHERE f.id =~ '.*/1-res-[0-9]+/3' RETURN f.index", {}, [{"f.index": 3}]),
    ("MATCH (f:Feature) WHERE f.label CONTAINS '“quoted”' RETURN count(*) AS n", {}, [{"n": 40}]),
    ("MATCH (f:Feature) WHERE f.id IN $ids RETURN count(*) AS n", {"ids": ["tiny/0-res-10/1", "x"]}, [{"n": 1}]),
    ("MATCH (f:Feature) WHERE f.id IN $ids RETURN count(*) AS n", {"ids": []}, [{"n": 0}]),
    ("RETURN $a + $b AS s, $text AS t", {"a": 1, "b": 2.5, "text": "'; CREATE ("}, [{"s": 3.5, "t": "'; CREATE ("}]),
    (
        "MATCH (f:Feature {layer: 0}) RETURN percentileCont(f.index, 0.5) AS m, avg(f.index) AS a",
        {},
        [{"m": 4.5, "a": 4.5}],
    ),
    ("RETURN {set: 1, x: [null, true]} AS m", {}, [{"m": {"set": 1, "x": [None, True]}}]),
    (
        "MATCH (m:Model {id: 'x'}) RETURN m UNION ALL MATCH (m:Model) RETURN m",
        {},
        [{"m": {"id": "tiny", "name": "tiny", "d_model": 16}}],
    ),
    (
        "MATCH p = (a:Dictionary {layer: 3})-[r:MATCHED]->(b) RETURN r, labels(a) AS l, size(nodes(p)) AS n",
        {},
        [
            {
                "r": {
                    "type": "MATCHED",
                    "key": "3",
                    "k": None,
                    "edges": 19,
                    "fires_with": None,
                    "gap": None,
                    "floor": 0.1,
                    "floor_median": None,
                }
            }
        ],
    ),
]


@pytest.mark.parametrize(("cypher", "parameters", "rows"), ROWS, ids=[row[0][:50] for row in ROWS])
def test_right_rows(
    store: LadybugStore, cypher: str, parameters: dict[str, Any], rows: list[dict[str, object]]
) -> None:
    found = ask(store, cypher, **parameters).rows
    kept = [{name: row[name] for name in rows[0]} for row in found]
    # A union comes in no particular order.
    assert sorted(kept, key=str) == rows if "UNION" in cypher else kept == rows
    # The project's own way to the graph gives the same.
    assert sorted(store.read(cypher, parameters), key=str) == sorted(found, key=str)


# What passes the guard and would not end, or not fit.
HEAVY = [
    "UNWIND range(1, 300000000) AS x RETURN sum(x)",
    "RETURN range(1, 300000000) AS x",
    "UNWIND range(1, 300000000) AS x RETURN x",
    "UNWIND range(1, 100000) AS x UNWIND range(1, 100000) AS y WITH x, y WHERE x * y = 7 RETURN count(*)",
    "MATCH p = (a)-[*]-(b) RETURN count(p)",
    "MATCH (a)-[*1..30]-(b)-[*1..30]-(c) RETURN count(*)",
    "MATCH (a), (b), (c), (d), (e) WHERE a.id + b.id + c.id + d.id + e.id = 'x' RETURN count(*)",
    "MATCH (a:Feature), (b:Feature), (c:Feature), (d:Feature) RETURN a.id, b.id, c.id, d.id",
    "RETURN reduce(s = 'a', x IN range(1, 40) | s + s) AS x",
    "UNWIND range(1, 100000) AS x RETURN collect(reduce(s = 'a', x IN range(1, 17) | s + s)) AS y",
    "MATCH (f:Feature) WHERE f.index IN range(1, 300000000) RETURN count(*)",
    "MATCH (f:Feature) RETURN f.id LIMIT size(range(1, 300000000))",
    "MATCH (f:Feature) WHERE f.label = reduce(s = 'a', x IN range(1, 40) | s + s) RETURN count(*)",
    "UNWIND range(1, 100000000) AS x RETURN collect(x) AS xs ORDER BY xs",
    "RETURN reduce(s = '', x IN range(1, 10000) | s + 'a') =~ '(a*)*(a*)*(a*)*b' AS x",
    "UNWIND range(1, 100000000) AS x WITH x ORDER BY x DESC RETURN collect(x) AS x",
]


@pytest.mark.slow
@pytest.mark.parametrize("cypher", HEAVY, ids=[text[:50] for text in HEAVY])
def test_heavy_statements_end_in_time(store: LadybugStore, cypher: str) -> None:
    start = time.monotonic()
    try:
        answer = ask(store, cypher, timeout=0.5)
    except (QueryTimeout, QueryTooLarge, QueryError) as error:
        assert "\n" not in str(error)
    else:
        assert len(answer.rows) <= 1
    assert time.monotonic() - start < 0.5 + MARGIN


# All walks between all nodes of 4 layers: endless, in little memory.
ENDLESS = "MATCH p = (a)-[*1..30]-(b) RETURN count(p)"


def test_after_a_timeout_the_next_statement_works(store: LadybugStore) -> None:
    start = time.monotonic()
    with pytest.raises(QueryTimeout, match="within 1 s"):
        ask(store, ENDLESS, timeout=1)
    assert time.monotonic() - start < 1 + MARGIN
    assert ask(store, "RETURN 1 AS x").rows == [{"x": 1}]


@pytest.mark.slow
def test_a_worker_that_answers_no_more_is_ended(store: LadybugStore) -> None:
    ask(store, "RETURN 1 AS x")
    os.kill(_worker(store), signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(QueryTimeout, match="within 1 s"):
        ask(store, "RETURN 1 AS x", timeout=1)
    assert time.monotonic() - start < 1 + MARGIN
    assert ask(store, "RETURN 1 AS x").rows == [{"x": 1}]


def test_a_worker_that_died_is_replaced(store: LadybugStore) -> None:
    ask(store, "RETURN 1 AS x")
    os.kill(_worker(store), signal.SIGKILL)
    # Its main thread is gone before the others are: only when all are is the process.
    assert store._reader is not None and store._reader._process is not None
    store._reader._process.wait(MARGIN)
    assert ask(store, "RETURN 1 AS x").rows == [{"x": 1}]


def _worker(store: LadybugStore) -> int:
    assert store._reader is not None and store._reader._process is not None
    return store._reader._process.pid


def test_memory_is_capped(store: LadybugStore) -> None:
    descriptor, path = store._held()
    worker = ("atlas.embedded.worker", path, str(128 << 20))
    reader = BoundedReader(worker, descriptors=(descriptor,), max_memory=256 << 20)
    with pytest.raises(QueryTooLarge, match="memory"):
        statement = "UNWIND range(1, 30000000) AS x RETURN collect(x + 1) AS xs"
        reader.query(statement, {}, limit=0, timeout=60, max_bytes=64 << 20)
    answer = reader.query("RETURN 1 AS x", {}, limit=0, timeout=60, max_bytes=64 << 20)
    assert answer.rows == [{"x": 1}]
    reader.close()


def test_limit_and_whether_there_are_more(store: LadybugStore) -> None:
    features = "MATCH (f:Feature) RETURN f.id"
    assert [(len(a.rows), a.more) for a in (ask(store, features, limit=n) for n in (0, 39, 40, 41))] == [
        (40, False),
        (39, True),
        (40, False),
        (40, False),
    ]
    written = ask(store, f"{features} LIMIT 5", limit=3)
    assert (len(written.rows), written.more) == (3, True)
    union = ask(store, "UNWIND [1, 2] AS x RETURN x UNION ALL UNWIND [3, 4] AS x RETURN x", limit=3)
    assert (len(union.rows), union.more) == (3, True)


def test_a_limit_reaches_the_engine(store: LadybugStore) -> None:
    start = time.monotonic()
    answer = ask(store, "UNWIND range(1, 3000000) AS x RETURN x", limit=10, timeout=20)
    assert (len(answer.rows), answer.more) == (10, True)
    assert time.monotonic() - start < 10


def test_bytes_are_capped(store: LadybugStore) -> None:
    with pytest.raises(QueryTooLarge, match="exceed 1 MiB"):
        store.query(
            "UNWIND range(1, 2000) AS x RETURN $a AS a", {"a": "a" * 1000}, limit=0, timeout=30, max_bytes=1 << 20
        )
    answer = store.query("UNWIND range(1, 900) AS x RETURN $a AS a", {"a": "é" * 1000}, max_bytes=1 << 20)
    assert len(answer.rows) == 900 and answer.rows[0]["a"] == "é" * 1000


@pytest.mark.parametrize(
    ("cypher", "parameters", "message"),
    [
        ("MATCH (f:Feature) RETURN f.nope", {}, "nope"),
        ("MATCH (f:Nope) RETURN f", {}, "Nope"),
        ("RETURN 1 / 0", {}, "zero"),
        ("RETURN $x AS x", {}, r"\$x"),
        ("RETURN 1 AS x", {"y": 1}, r"\$y"),
        ("RETURN $x AS x", {"x": object()}, "JSON"),
        ("RETURN $x AS x", {"x": float("nan")}, "JSON"),
        ("RETURN 1 AS x, 2 AS x", {}, "two columns"),
        ("MATCH (f:Feature RETURN f", {}, "not closed"),
        ("MATCH (f:Feature) RETURN f.id ORDER f.id", {}, "ORDER is not expected"),
        ("RETURN 1.0 / 0.0 AS x", {}, "column x holds Infinity"),
        ("MATCH (f:Feature {layer: 0, index: 0}) RETURN [0.0 / f.layer] AS x", {}, "column x holds NaN"),
        ("MATCH (m:Model)-->(x) RETURN x", {}, "no relationship .*Model"),
    ],
)
def test_mistakes_are_named(store: LadybugStore, cypher: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        ask(store, cypher, **parameters)
    assert "\n" not in str(caught.value)


UNGUARDED = """
import sys
from atlas.embedded import worker
from atlas.embedded.statement.compile import Branch, Plan
from atlas.worker import Failed
worker.guard = lambda text, _: Plan((Branch(text, (), (), (), True, False),), True, ("x",), (), (), (), False)
execute = worker.connect(sys.argv[1], str(1 << 28))
for text in sys.argv[2:]:
    try:
        with execute({"text": text, "parameters": {}, "timeout": 5, "limit": 0}) as (_, rows):
            print("answered", list(rows))
    except Failed as error:
        print("failed", str(error.args[1]).splitlines()[0])
"""


def test_the_worker_can_open_no_file(store: LadybugStore, tmp_path: Path) -> None:
    """Even a statement that the guard let through could not read or write one."""
    descriptor, path = store._held()
    statements = (
        "LOAD FROM '/etc/passwd' (file_format='csv', delim=':') RETURN *",
        f"COPY (MATCH (f) RETURN f.id) TO '{tmp_path}/x.csv'",
        "CREATE (:Run {id: 'x'})",
        "RETURN 1",
    )
    command = [sys.executable, "-c", UNGUARDED, path, *statements]
    done = subprocess.run(command, pass_fds=(descriptor,), capture_output=True, text=True, check=True)
    *failed, last = done.stdout.splitlines()
    assert len(failed) == 3 and all(line.startswith("failed") for line in failed), done.stdout
    assert "read-only" in failed[2] and last == "answered [[1]]"
    assert not list(tmp_path.iterdir())


PARENT = """
import sys, threading, time
from pathlib import Path
from typing import Any
from atlas.embedded.guard import guard
from atlas.embedded.store import LadybugStore
store = LadybugStore(Path(sys.argv[1]), sys.argv[2])
store.query("RETURN 1 AS x", {})
print(store._reader._process.pid, flush=True)
store.query("MATCH p = (a)-[*1..30]-(b) RETURN count(p)", {}, timeout=100)
"""


def test_a_killed_parent_takes_its_worker_along(store: LadybugStore) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(store.folder), str(store.state)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + MARGIN
    while _runs(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_threads_share_one_worker(store: LadybugStore) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda i: ask(store, "RETURN $i AS i", i=i).rows[0]["i"], range(20))
        own = pool.map(lambda i: store.read("RETURN $i AS i", {"i": i})[0]["i"], range(20))
        assert list(answers) == list(own) == list(range(20))

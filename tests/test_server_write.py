"""Writers that are killed, meet each other or are cut off: the next one completes what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import neo4j
import pyarrow as pa
import pytest
from neo4j_for_tests import Server, emptied
from planted_graph import PlantedGraph, Rematched
from published import LARGE, SMALL, Killed, numbers, publish, store_at, undisturbed
from saes import planted as write_saes

import atlas.server.edges
import atlas.server.features
import atlas.server.lock
import atlas.server.write
from atlas import schema
from atlas.address import ServerAddress
from atlas.atlas import open_atlas
from atlas.errors import LockedAtlas
from atlas.graph.binding import bind
from atlas.graph.digest import Digest, digest
from atlas.server.connect import Connection
from atlas.server.lock import Claim, claimed
from atlas.server.schema import WRITER
from ingest import ingest


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Digest:
    return undisturbed(tmp_path_factory.mktemp("large"), LARGE())


def end_lease(server: Server) -> None:
    """As if so long a time had gone by."""
    with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
        driver.execute_query(f"MATCH (w:{WRITER}) SET w.until = 0")


WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
import atlas.server.edges, atlas.server.features
atlas.server.edges.CHUNK = atlas.server.features.CHUNK = 300
from published import LARGE, publish
publish(sys.argv[2], LARGE(), lambda n: print(n, flush=True))
"""


@pytest.mark.parametrize("lines", [3, 60])  # among the features, among the edges
def test_a_killed_writer_leaves_what_the_next_one_completes(neo4j_lts: Server, large: Digest, lines: int) -> None:
    emptied(neo4j_lts)
    arguments = [sys.executable, "-c", WRITE, str(Path(__file__).parent), neo4j_lts.uri]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline()
    with pytest.raises(LockedAtlas, match=f"process {process.pid} on "):
        publish(neo4j_lts.uri, SMALL())
    with pytest.raises(LockedAtlas, match=f"being written to by process {process.pid} on "):
        numbers(neo4j_lts.uri)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(LockedAtlas, match=rf"process {process.pid} on .* is given up in at most (30|2\d) s"):
        publish(neo4j_lts.uri, SMALL())
    end_lease(neo4j_lts)
    with pytest.raises(LockedAtlas, match="was broken off; repeat its command"):
        numbers(neo4j_lts.uri)
    publish(neo4j_lts.uri, LARGE())
    assert numbers(neo4j_lts.uri) == large


def test_an_ingest_that_was_killed(neo4j_lts: Server, tmp_path: Path) -> None:
    uri = emptied(neo4j_lts)
    sources = write_saes(tmp_path / "saes", range(3))
    bind(tmp_path / "a", ServerAddress.parse(uri))
    command = [sys.executable, "-c", "import sys; from ingest import ingest; ingest([sys.argv[1]], sys.argv[2])"]
    for delay in (0.3, 0.9):
        process = subprocess.Popen([*command, str(sources), str(tmp_path / "a")])
        while not (tmp_path / "a" / "dictionaries").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        end_lease(neo4j_lts)
    ingest([sources], tmp_path / "a")
    ingest([sources], tmp_path / "b")
    with open_atlas(tmp_path / "a") as one, open_atlas(tmp_path / "b") as other:
        assert digest(one.store).sha256 == digest(other.store).sha256


def test_a_writer_and_its_lease(neo4j_lts: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for as long as it renews its claim, by the server's clock alone; then it is fenced off."""
    emptied(neo4j_lts)
    monkeypatch.setattr(atlas.server.lock, "LEASE", 4.0)
    monkeypatch.setattr(atlas.server.lock, "RENEW", 1.0)
    first, second = (Connection(ServerAddress.parse(neo4j_lts.uri)) for _ in range(2))
    with claimed(first) as claim:
        monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is decades ahead
        for _ in range(2):
            with pytest.raises(LockedAtlas, match=rf"by process {os.getpid()} on .* since"), claimed(second):
                pass
            time.sleep(3)  # together longer than the lease, which was renewed
        monkeypatch.setattr(atlas.server.lock, "RENEWAL", "RETURN 1")  # cut off: no renewal arrives any more
        time.sleep(6)  # longer than the lease and a renewal that was on its way
        with claimed(second), pytest.raises(LockedAtlas, match="taken over"):
            first.write(claim.check)
    assert first.read(f"MATCH (w:{WRITER}) RETURN count(w) AS n") == [{"n": 0}]
    first.close()
    second.close()


def test_readers_while_another_state_is_written(neo4j_lts: Server) -> None:
    emptied(neo4j_lts)
    publish(neo4j_lts.uri, SMALL())
    reader = store_at(neo4j_lts.uri)
    count = "MATCH ()-[r:FROM_RES]->() RETURN count(r) AS n"
    assert reader.read(count) == reader.query(count, {}).rows
    publish(neo4j_lts.uri, PlantedGraph(layers=2, width=60))
    for ask in (reader.read, lambda cypher: reader.query(cypher, {})):
        with pytest.raises(LockedAtlas, match="was written to while this was read"):
            ask(count)
    reader.close()


def test_what_was_written_is_seen_through_the_connection_beside_it(neo4j_lts: Server) -> None:
    """By its bookmark, which a cluster's member that lags behind waits for."""
    emptied(neo4j_lts)
    reader = Connection(ServerAddress.parse(neo4j_lts.uri))
    writer = Connection(reader.address, beside=reader)
    reader.read("RETURN 1")
    before = set(reader.bookmarks.get_bookmarks())
    writer.run("CREATE (:Feature)")
    after = set(reader.bookmarks.get_bookmarks())
    assert after and after != before
    assert reader.read("MATCH (f:Feature) RETURN count(f) AS n") == [{"n": 1}]
    reader.close()
    writer.close()


# --- broken off, and then something else is written -----------------------------------------------------------------


class Relabelled(PlantedGraph):
    """The same features with another label."""

    def nodes(self, label: str) -> Iterator[pa.Table]:
        for table in super().nodes(label):
            if label == schema.FEATURE:
                column = table.column_names.index("label")
                table = table.set_column(column, "label", pa.array(["other"] * len(table)))
            yield table


def features(uri: str) -> list[Any]:
    store = store_at(uri)
    try:
        return store.read("MATCH (f:Feature) RETURN f ORDER BY f.id")
    finally:
        store.close()


# What a break can leave, each caught by something else in remove_pairs, remove_features or write_features. Dying at any
# other statement leaves one of these or nothing half done.
BROKEN_OFF = {
    "no edges, their pair counts them": (Rematched(), "DELETE_EDGES", False),  # its key goes before the edges
    "edges, their pair has no key": (Rematched(), "DELETE_EDGES", True),  # they are removed all the same
    "features half rewritten": (Relabelled(), "MERGE_FEATURES", False),  # the digest goes first
    "no features, their dictionary there": (PlantedGraph(layers=2), "DELETE_FEATURES", False),  # here too
}


@pytest.mark.parametrize(("other", "statement", "before"), BROKEN_OFF.values(), ids=BROKEN_OFF)
def test_a_write_broken_off_and_then_another(
    neo4j_lts: Server, monkeypatch: pytest.MonkeyPatch, other: PlantedGraph, statement: str, before: bool
) -> None:
    """What was begun is in no way taken for what is written then."""
    uri = emptied(neo4j_lts)
    publish(uri, PlantedGraph())
    wanted, rows = numbers(uri), features(uri)
    module = atlas.server.features if hasattr(atlas.server.features, statement) else atlas.server.edges
    run, deadly = Claim.run, getattr(module, statement)

    def dying(self: Any, cypher: str, **parameters: Any) -> Any:
        if cypher == deadly and before:
            raise Killed
        found = run(self, cypher, **parameters)
        if cypher == deadly:
            raise Killed
        return found

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Claim, "run", dying)
        publish(uri, other)
    publish(uri, PlantedGraph())
    assert numbers(uri) == wanted and features(uri) == rows


def test_a_writer_that_stood_still_is_rolled_back(neo4j_lts: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passed every check, and then slept while another took over and wrote the same chunk."""
    uri = emptied(neo4j_lts)
    publish(uri, PlantedGraph())
    wanted = numbers(uri)
    emptied(neo4j_lts)
    chunk, asleep, awake = Claim.check, threading.Event(), threading.Event()

    def slow(self: Any, tx: Any) -> None:
        if not asleep.is_set() and tx.run("MATCH (:Feature)-[r:FROM_RES]->() RETURN count(r) AS n").single()["n"]:
            asleep.set()
            awake.wait(60)
        chunk(self, tx)

    monkeypatch.setattr(Claim, "check", slow)
    monkeypatch.setattr(atlas.server.edges, "WORKERS", 1)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            publish(uri, PlantedGraph())
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    assert asleep.wait(60)
    with neo4j.GraphDatabase.driver(uri, auth=(neo4j_lts.user, neo4j_lts.password)) as driver:
        driver.execute_query(f"MATCH (w:{WRITER}) SET w.token = 'of another'")
    awake.set()
    writer.join(120)
    assert len(failed) == 1 and isinstance(failed[0], LockedAtlas) and "taken over" in str(failed[0])
    with neo4j.GraphDatabase.driver(uri, auth=(neo4j_lts.user, neo4j_lts.password)) as driver:
        assert driver.execute_query("MATCH (:Feature)-[r]->() RETURN count(r) AS n").records[0]["n"] == 0
        driver.execute_query(f"MATCH (w:{WRITER}) DELETE w")
    monkeypatch.undo()
    publish(uri, PlantedGraph())
    assert numbers(uri) == wanted


def test_no_statement_of_a_writer_without_the_claim_stays(neo4j_lts: Server) -> None:
    emptied(neo4j_lts)
    connection = Connection(ServerAddress.parse(neo4j_lts.uri))
    with claimed(connection) as claim:
        claim.run("CREATE (:Model {id: 'one'})")
        connection.run(f"MATCH (w:{WRITER}) SET w.token = 'of another'")
        with pytest.raises(LockedAtlas, match="taken over"):
            claim.run("CREATE (:Model {id: 'two'})")
    assert connection.read("MATCH (m:Model) RETURN m.id AS id") == [{"id": "one"}]
    connection.run(f"MATCH (w:{WRITER}) DELETE w")
    connection.close()


def test_a_narrower_dictionary_after_a_write_broken_off(neo4j_lts: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features beyond those that it has are gone, in more than one piece."""
    uri = emptied(neo4j_lts)
    monkeypatch.setattr(atlas.server.lock, "MANY", 7)
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(atlas.server.write, "write_edges", _killed)
        publish(uri, PlantedGraph(width=40))
    # The same ids, as `--set` gives them whatever the width is.
    monkeypatch.setattr(PlantedGraph, "dictionary", lambda self, layer: f"tiny/{layer}-res-40")
    publish(uri, PlantedGraph())
    wanted = numbers(uri)
    found = features(uri)
    publish(emptied(neo4j_lts), PlantedGraph())
    assert numbers(uri) == wanted and features(uri) == found and len(found) == 40


def test_what_is_removed_in_many_pieces(neo4j_lts: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = emptied(neo4j_lts)
    monkeypatch.setattr(atlas.server.lock, "MANY", 7)
    for graph in (PlantedGraph(), Rematched(), PlantedGraph(layers=2)):
        publish(uri, graph)
    assert numbers(uri) == undisturbed(tmp_path, PlantedGraph(layers=2))


def _killed(*_: Any) -> None:
    raise Killed

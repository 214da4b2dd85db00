"""What goes wrong with a server, done to a real one: the same command again gives the same graph as undisturbed."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import neo4j
import pytest
from cut_proxy import CutProxy
from neo4j_for_tests import PASSWORD, emptied
from neo4j_server import Neo4jServer, free_port
from planted_graph import PlantedGraph
from saes import planted as write_saes

import atlas.neo4j_connect
import atlas.neo4j_lock
import atlas.neo4j_write
from atlas.address import ServerAddress
from atlas.atlas import open_atlas
from atlas.binding import bind
from atlas.cli import _run
from atlas.digest import digest
from atlas.errors import LockedAtlas, StoreError
from atlas.neo4j_connect import Connection
from atlas.neo4j_lock import claimed
from atlas.neo4j_store import Neo4jStore
from ingest import ingest

LARGE = {"layers": 8, "width": 1500, "extra": 6000}  # 7 pairs of about 9,000 edges
SMALL = {"layers": 4, "width": 60, "extra": 100}


@pytest.fixture(scope="module")
def server() -> Iterator[Neo4jServer]:
    """A server of this file's own: it is stopped, killed and filled up."""
    with Neo4jServer(password=PASSWORD) as running:
        yield running
        running.kill()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many transactions for few edges, so that there is much to break off."""
    monkeypatch.setattr(atlas.neo4j_write, "NODES_CHUNK", 300)
    monkeypatch.setattr(atlas.neo4j_write, "EDGES_CHUNK", 500)


def store_at(uri: str) -> Neo4jStore:
    return Neo4jStore(ServerAddress.parse(uri))


def publish(uri: str, graph: PlantedGraph, progress: Callable[[int], None] | None = None) -> None:
    store = store_at(uri)
    try:
        with store.writing():
            store.publish(graph, progress=progress)
    finally:
        store.close()


def numbers(uri: str) -> object:
    store = store_at(uri)
    try:
        return digest(store)
    finally:
        store.close()


@pytest.fixture(scope="module")
def undisturbed(server: Neo4jServer) -> dict[str, object]:
    """What the graphs are when nothing happens."""
    found = {}
    for name, size in (("small", SMALL), ("large", LARGE)):
        emptied(server)
        publish(server.uri, PlantedGraph(**size))
        found[name] = numbers(server.uri)
    return found


# --- connections --------------------------------------------------------------------------------------------------


def test_lost_acknowledgements(server: Neo4jServer, undisturbed: dict[str, object]) -> None:
    emptied(server)
    with CutProxy(server.port, lose=4) as proxy:
        publish(proxy.uri, PlantedGraph(**SMALL))
        assert proxy.lost >= 5
    assert numbers(server.uri) == undisturbed["small"]


def test_connections_cut_at_any_point(server: Neo4jServer, undisturbed: dict[str, object]) -> None:
    emptied(server)
    cuts = (3_000, 17_000, 26_000, 60_000)
    with CutProxy(server.port, cut=cuts) as proxy:
        publish(proxy.uri, PlantedGraph(**SMALL))
        assert proxy.cut == len(cuts)
    assert numbers(server.uri) == undisturbed["small"]


def test_two_connections_at_a_time_never_wait_for_each_other(
    server: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No deadlock, so no transaction is repeated: each runs once."""
    emptied(server)
    counts = {"writes": 0, "attempts": 0}
    write = Connection.write

    def counted(self: Connection, work: Callable[..., object]) -> object:
        counts["writes"] += 1

        def once(tx: neo4j.ManagedTransaction) -> object:
            counts["attempts"] += 1
            return work(tx)

        return write(self, once)

    monkeypatch.setattr(Connection, "write", counted)
    publish(server.uri, PlantedGraph(**LARGE))
    assert counts["writes"] == counts["attempts"] > 150


# --- the server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_server_restarts_in_the_middle(server: Neo4jServer, undisturbed: dict[str, object], end: str) -> None:
    emptied(server)
    written, half = [0], threading.Event()

    def progress(count: int) -> None:
        written[0] += count
        if written[0] > 20_000:
            half.set()

    failed: list[BaseException] = []

    def work() -> None:
        try:
            publish(server.uri, PlantedGraph(**LARGE), progress)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    assert half.wait(60)
    getattr(server, end)()
    server.start()
    writer.join(120)
    assert not writer.is_alive() and not failed
    assert numbers(server.uri) == undisturbed["large"]


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    server: Neo4jServer, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may make no file larger than it is now, which it meets as it would a full disk."""
    emptied(server)
    monkeypatch.setattr(atlas.neo4j_connect, "WRITE_RETRIES", 3.0)
    monkeypatch.setattr("atlas.neo4j_store.WRITE_RETRIES", 3.0)
    assert server._process is not None
    before = resource.prlimit(server._process.pid, resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
    try:
        with pytest.raises(StoreError) as caught:
            publish(server.uri, PlantedGraph(**LARGE))
    finally:
        if server.running:
            resource.prlimit(server._process.pid, resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value) and "repeat" in str(caught.value)
    server.kill()
    server.start()
    publish(server.uri, PlantedGraph(**LARGE))
    assert numbers(server.uri) == undisturbed["large"]


@contextmanager
def restarted(server: Neo4jServer, setting: str, value: str) -> Iterator[None]:
    """The server with one more setting, and afterwards without it again."""
    server.stop()
    server.settings[setting] = value
    server.start()
    try:
        yield
    finally:
        server.stop()
        del server.settings[setting]
        server.start()


def test_a_read_only_database(
    server: Neo4jServer, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(server)
    monkeypatch.setattr("atlas.neo4j_store.WRITE_RETRIES", 3.0)
    publish(server.uri, PlantedGraph(**SMALL))
    with restarted(server, "server.databases.read_only", "neo4j"):
        with pytest.raises(StoreError, match=r"read-only|read only"):
            publish(server.uri, PlantedGraph(**SMALL))
        assert numbers(server.uri) == undisturbed["small"]
    publish(server.uri, PlantedGraph(**SMALL))
    assert numbers(server.uri) == undisturbed["small"]


def test_too_little_memory_for_a_transaction(
    server: Neo4jServer, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends within seconds although to the driver it is a passing fault."""
    emptied(server)
    with restarted(server, "db.memory.transaction.max", "4m"):
        with monkeypatch.context() as patch, pytest.raises(StoreError, match=r"too little memory .* raise") as caught:
            patch.setattr(atlas.neo4j_connect, "READ_RETRIES", 3.0)
            patch.setattr(atlas.neo4j_write, "EDGES_CHUNK", 20_000)
            start = time.monotonic()
            publish(server.uri, PlantedGraph(**LARGE))
        assert "\n" not in str(caught.value) and time.monotonic() - start < 40
    publish(server.uri, PlantedGraph(**LARGE))
    assert numbers(server.uri) == undisturbed["large"]


# --- the writer ---------------------------------------------------------------------------------------------------

WRITE = """
import sys
sys.path.insert(0, sys.argv[1])
import atlas.neo4j_write
atlas.neo4j_write.EDGES_CHUNK = atlas.neo4j_write.NODES_CHUNK = 300
from planted_graph import PlantedGraph
from test_neo4j_faults import LARGE, publish
publish(sys.argv[2], PlantedGraph(**LARGE), lambda n: print(n, flush=True))
"""


@pytest.mark.parametrize("lines", [0, 3, 60])
def test_a_killed_writer_leaves_what_the_next_one_completes(
    server: Neo4jServer, undisturbed: dict[str, object], lines: int
) -> None:
    emptied(server)
    arguments = [sys.executable, "-c", WRITE, str(Path(__file__).parent), server.uri]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if lines == 0:  # before the first edge
        with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
            while not driver.execute_query("MATCH (f:Feature) RETURN count(f) AS n").records[0]["n"]:
                time.sleep(0.02)
    for _ in range(lines):
        assert process.stdout.readline()
    with pytest.raises(LockedAtlas, match=f"process {process.pid} on "):
        publish(server.uri, PlantedGraph(**SMALL))
    with pytest.raises(LockedAtlas, match=f"being written to by process {process.pid} on "):
        numbers(server.uri)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(LockedAtlas, match=r"being written to|broken off"):
        numbers(server.uri)
    publish(server.uri, PlantedGraph(**LARGE))
    assert numbers(server.uri) == undisturbed["large"]


def test_an_ingest_that_was_killed(server: Neo4jServer, tmp_path: Path) -> None:
    uri = emptied(server)
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
    ingest([sources], tmp_path / "a")
    ingest([sources], tmp_path / "b")
    with open_atlas(tmp_path / "a") as one, open_atlas(tmp_path / "b") as other:
        assert digest(one.store).sha256 == digest(other.store).sha256


def _as_elsewhere(server: Neo4jServer) -> None:
    """Make the claim that is held look like one from another machine."""
    with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
        driver.execute_query("MATCH (w:Writer) SET w.host = 'elsewhere', w.pid = 4194305")


def test_a_writer_on_another_machine(server: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for as long as it renews its claim, by the server's clock alone; then it is fenced off."""
    emptied(server)
    first, second = (Connection(ServerAddress.parse(server.uri)) for _ in range(2))
    with claimed(first, lease=4) as claim:
        _as_elsewhere(server)
        monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is decades ahead
        for _ in range(2):
            with pytest.raises(LockedAtlas, match="by process 4194305 on elsewhere since"), claimed(second, lease=4):
                pass
            time.sleep(3)  # together longer than the lease, which was renewed
        monkeypatch.setattr(atlas.neo4j_lock, "RENEWAL", "RETURN 1")  # cut off: no renewal arrives any more
        time.sleep(6)  # longer than the lease and a renewal that was on its way
        with claimed(second, lease=4), pytest.raises(LockedAtlas, match="taken over"):
            first.write(claim.check)
    first.close()
    second.close()
    with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
        assert driver.execute_query("MATCH (w:Writer) RETURN count(w) AS n").records[0]["n"] == 0


def test_readers_while_another_state_is_written(server: Neo4jServer) -> None:
    emptied(server)
    publish(server.uri, PlantedGraph(**SMALL))
    reader = store_at(server.uri)
    count = "MATCH ()-[r:FROM_RES]->() RETURN count(r) AS n"
    assert reader.read(count) == reader.query(count, {}).rows
    publish(server.uri, PlantedGraph(layers=2, width=60))
    for ask in (reader.read, lambda cypher: reader.query(cypher, {})):
        with pytest.raises(LockedAtlas, match="was written to while this was read"):
            ask(count)
    reader.close()


# --- what users see -----------------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that fails with exit code 1."""
    assert _run(list(arguments)) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1, captured.err
    return captured.err


def test_wrong_password(
    server: Neo4jServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for password in ("wrong password", ""):
        monkeypatch.setenv("NEO4J_PASSWORD", password)
        for command in (["info", "-a", server.uri], ["init", str(tmp_path / "a"), "--store", server.uri]):
            line = said(capsys, *command)
            assert "NEO4J_PASSWORD" in line and (not password or password not in line)


def test_nobody_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    uri = f"neo4j://127.0.0.1:{free_port()}"
    start = time.monotonic()
    assert "no Neo4j server answers" in said(capsys, "info", "-a", uri)
    assert "no Neo4j server answers" in said(capsys, "init", str(tmp_path / "a"), "--store", uri)
    line = said(capsys, "info", "-a", "bolt://no-such-host.invalid")
    assert "no-such-host.invalid" in line and ("cannot be reached" in line or "no Neo4j server answers" in line)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x00", b""])
def test_what_answers_is_no_server_that_is_known(capsys: pytest.CaptureFixture[str], answer: bytes) -> None:
    """Another protocol; a server whose versions of Bolt this driver does not know; one that hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(64)
            client.sendall(answer)
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    line = said(capsys, "info", "-a", f"bolt://127.0.0.1:{listener.getsockname()[1]}")
    assert "Bolt" in line or "no Neo4j server answers" in line
    listener.close()


def test_a_server_that_is_too_old(server: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas.neo4j_connect, "OLDEST", (9999, 1))
    with pytest.raises(StoreError, match=r"is Neo4j 5\.26\.\d+; feature-atlas needs 9999\.1 or newer"):
        store_at(server.uri).open()


def test_a_database_that_is_not_there(server: Neo4jServer, capsys: pytest.CaptureFixture[str]) -> None:
    os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
    line = said(capsys, "info", "-a", f"{server.uri}/nowhere")
    assert "nowhere" in line and "--database" in line


def test_addresses_that_carry_a_password_are_refused_and_never_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = "neo4j://neo4j:s3cret@localhost:7687"
    for command in (["info", "-a", address], ["init", str(tmp_path / "a"), "--store", address]):
        line = said(capsys, *command)
        assert "NEO4J_PASSWORD" in line and "s3cret" not in line
    assert not (tmp_path / "a").exists()


def test_nothing_secret_is_kept(server: Neo4jServer, tmp_path: Path) -> None:
    uri = emptied(server)
    bind(tmp_path / "a", ServerAddress.parse(uri))
    ingest([write_saes(tmp_path / "saes", range(1))], tmp_path / "a")
    for path in (tmp_path / "a").rglob("*"):
        assert path.is_dir() or server.password.encode() not in path.read_bytes(), path

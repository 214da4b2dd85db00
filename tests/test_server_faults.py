"""Faults of a connection and of a server, done to a real one: afterwards the graph is the same as undisturbed."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import neo4j
import pytest
from cut_proxy import CutProxy
from neo4j_for_tests import PASSWORD, emptied
from neo4j_server import Neo4jServer
from published import LARGE, SMALL, numbers, publish, undisturbed

import atlas.server.connect
import atlas.server.edges
import atlas.server.features
from atlas.errors import StoreError
from atlas.graph.digest import Digest
from atlas.server.connect import Connection


@pytest.fixture(scope="module")
def server() -> Iterator[Neo4jServer]:
    """A server of this file's own: it is stopped, killed and filled up."""
    with Neo4jServer(password=PASSWORD) as running:
        yield running
        running.kill()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many transactions for few edges, so that there is much to break off."""
    monkeypatch.setattr(atlas.server.features, "CHUNK", 300)
    monkeypatch.setattr(atlas.server.edges, "CHUNK", 500)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Digest:
    return undisturbed(tmp_path_factory.mktemp("small"), SMALL())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Digest:
    return undisturbed(tmp_path_factory.mktemp("large"), LARGE())


# --- connections --------------------------------------------------------------------------------------------------


def test_lost_acknowledgements(server: Neo4jServer, small: Digest) -> None:
    emptied(server)
    with CutProxy(server.port, lose=4) as proxy:
        publish(proxy.uri, SMALL())
        assert proxy.lost >= 5
    assert numbers(server.uri) == small


def test_connections_cut_at_any_point(server: Neo4jServer, small: Digest) -> None:
    emptied(server)
    cuts = (3_000, 17_000, 26_000, 60_000)
    with CutProxy(server.port, cut=cuts) as proxy:
        publish(proxy.uri, SMALL())
        assert proxy.cut == len(cuts)
    assert numbers(server.uri) == small


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
    publish(server.uri, LARGE())
    assert counts["writes"] == counts["attempts"] > 150


# --- the server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_server_restarts_in_the_middle(server: Neo4jServer, large: Digest, end: str) -> None:
    emptied(server)
    written, half = [0], threading.Event()

    def progress(count: int) -> None:
        written[0] += count
        if written[0] > 30_000:  # 12,000 features and a part of the edges
            half.set()

    failed: list[BaseException] = []

    def work() -> None:
        try:
            publish(server.uri, LARGE(), progress)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=work)
    writer.start()
    assert half.wait(60)
    getattr(server, end)()
    server.start()
    writer.join(120)
    assert not writer.is_alive() and not failed
    assert numbers(server.uri) == large


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    server: Neo4jServer, large: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may make no file larger than it is now, which it meets as it would a full disk."""
    emptied(server)
    monkeypatch.setattr(atlas.server.connect, "WRITE_RETRIES", 3.0)
    monkeypatch.setattr("atlas.server.store.WRITE_RETRIES", 3.0)
    assert server._process is not None
    before = resource.prlimit(server._process.pid, resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
    try:
        with pytest.raises(StoreError) as caught:
            publish(server.uri, LARGE())
    finally:
        if server.running:
            resource.prlimit(server._process.pid, resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value) and "repeat" in str(caught.value)
    server.kill()
    server.start()
    publish(server.uri, LARGE())
    assert numbers(server.uri) == large


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


def test_a_read_only_database(server: Neo4jServer, small: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied(server)
    monkeypatch.setattr("atlas.server.store.WRITE_RETRIES", 3.0)
    publish(server.uri, SMALL())
    with restarted(server, "server.databases.read_only", "neo4j"):
        with pytest.raises(StoreError, match=r"read-only|read only"):
            publish(server.uri, SMALL())
        assert numbers(server.uri) == small
    publish(server.uri, SMALL())
    assert numbers(server.uri) == small


def test_too_little_memory_for_a_transaction(
    server: Neo4jServer, large: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends within seconds although to the driver it is a passing fault."""
    emptied(server)
    with restarted(server, "db.memory.transaction.max", "4m"):
        with monkeypatch.context() as patch, pytest.raises(StoreError, match=r"too little memory .* raise") as caught:
            patch.setattr(atlas.server.connect, "READ_RETRIES", 3.0)
            patch.setattr(atlas.server.edges, "CHUNK", 20_000)
            start = time.monotonic()
            publish(server.uri, LARGE())
        assert "\n" not in str(caught.value) and time.monotonic() - start < 40
    publish(server.uri, LARGE())
    assert numbers(server.uri) == large

"""Shared by all tests: quiet libraries, few threads, planted dictionaries."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from neo4j_for_tests import PASSWORD, Server, emptied, server_for_tests
from neo4j_server import CURRENT, Neo4jServer

STORES = ("embedded", "neo4j_lts", "neo4j_current")

# Set before torch, faiss and tokenizers are imported: tests run beside each other on few cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers with as many threads as there are cores each wait for one another more than they work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell's background job has it, and every process that a test starts and interrupts would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def neo4j_lts() -> Iterator[Server]:
    """A running Neo4j of the oldest line that is supported (tests/neo4j_for_tests.py says which)."""
    server = server_for_tests()
    yield server
    if isinstance(server, Neo4jServer):
        server.kill()  # nobody needs its data
    server.close()


@pytest.fixture(scope="session")
def neo4j_current() -> Iterator[Neo4jServer]:
    """A running Neo4j of the current line."""
    with Neo4jServer(CURRENT, password=PASSWORD) as server:
        yield server
        server.kill()


@pytest.fixture(params=STORES, scope="module")
def address(request: pytest.FixtureRequest) -> str | None:
    """The server's address; None for the embedded store."""
    return None if request.param == "embedded" else request.getfixturevalue(request.param).uri


@pytest.fixture
def empty(address: str | None, request: pytest.FixtureRequest) -> str | None:
    """The same, its database emptied."""
    if address is None:
        return None
    name = next(name for name in STORES if name in request.fixturenames or name in str(request.node.name))
    return emptied(request.getfixturevalue(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a Neo4j, so that `make test-fast` can leave it out."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        needed = {*getattr(item, "fixturenames", ()), *map(str, parameters.values())}
        if item.path.name.startswith("test_server_") or not needed.isdisjoint((*STORES[1:], "server")):
            item.add_marker(pytest.mark.server)

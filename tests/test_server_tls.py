"""The encrypted forms of an address, against a server that takes nothing else and has a certificate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from neo4j_for_tests import PASSWORD
from neo4j_server import Neo4jServer, free_port
from planted_graph import PlantedGraph

from atlas.address import ServerAddress
from atlas.errors import StoreError
from atlas.graph.digest import digest
from atlas.server.store import Neo4jStore

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jServer]:
    """A server whose certificate is for localhost, not for 127.0.0.1."""
    folder, port = tmp_path_factory.mktemp("certificates"), free_port()
    issued = AUTHORITY.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "private.key")
    (folder / "public.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    settings = {
        "server.bolt.tls_level": "REQUIRED",
        "server.bolt.advertised_address": f"localhost:{port}",  # where neo4j:// is sent on to
        "dbms.ssl.policy.bolt.enabled": "true",
        "dbms.ssl.policy.bolt.base_directory": str(folder),
    }
    with Neo4jServer(port=port, password=PASSWORD, settings=settings) as running:
        yield running
        running.kill()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEO4J_USERNAME", "neo4j")
    monkeypatch.setenv("NEO4J_PASSWORD", PASSWORD)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server's authority is one that this machine trusts."""
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


def used(address: str) -> None:
    """Write a graph, read it, and ask it in the process that bounds a user's query."""
    graph = PlantedGraph()
    store = Neo4jStore(ServerAddress.parse(address))
    try:
        with store.writing():
            store.publish(graph)
        assert digest(store).edges == 57
        found = store.query("MATCH (f:Feature) RETURN count(*) AS n", {}, limit=1, timeout=30, max_bytes=1 << 20)
        assert found.rows == [{"n": 40}]
    finally:
        store.close()


@pytest.mark.parametrize("scheme", ["neo4j+s", "bolt+s"])
def test_a_certificate_that_is_trusted(server: Neo4jServer, trusted: None, scheme: str) -> None:
    used(f"{scheme}://localhost:{server.port}")
    with pytest.raises(StoreError, match=r"certificate is not accepted \(.*127\.0\.0\.1"):
        used(f"{scheme}://127.0.0.1:{server.port}")  # another name than the certificate's


@pytest.mark.parametrize("scheme", ["neo4j+ssc", "bolt+ssc"])
def test_any_certificate(server: Neo4jServer, scheme: str) -> None:
    used(f"{scheme}://localhost:{server.port}")


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_a_certificate_that_is_not_trusted(server: Neo4jServer, scheme: str) -> None:
    wanted = rf"certificate is not accepted .* SSL_CERT_FILE .* {scheme}\+ssc://"
    with pytest.raises(StoreError, match=wanted) as caught:
        used(f"{scheme}+s://localhost:{server.port}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_encryption_on_one_side_only(server: Neo4jServer, scheme: str) -> None:
    with pytest.raises(StoreError, match=r"if it encrypts, its scheme is neo4j\+s"):
        used(f"{scheme}://localhost:{server.port}")


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_encryption_on_the_other_side_only(neo4j_lts: Neo4jServer, scheme: str) -> None:
    host = neo4j_lts.uri.partition("://")[2]
    with pytest.raises(StoreError, match=rf"does not encrypt .* its address is {scheme}://{host}$"):
        used(f"{scheme}+ssc://{host}")

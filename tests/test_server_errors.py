"""What a user sees where a server cannot be used: one line that says what to do, and no secret."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from neo4j_for_tests import Server, emptied
from neo4j_server import free_port
from published import store_at
from saes import planted as write_saes

import atlas.server.connect
from atlas.address import ServerAddress
from atlas.cli.main import _run
from atlas.errors import StoreError
from atlas.graph.binding import bind
from ingest import ingest


@pytest.fixture
def uri(neo4j_lts: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server's address; its credentials are in the environment."""
    monkeypatch.setenv("NEO4J_USERNAME", neo4j_lts.user)
    monkeypatch.setenv("NEO4J_PASSWORD", neo4j_lts.password)
    return neo4j_lts.uri


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that fails with exit code 1."""
    assert _run(list(arguments)) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1, captured.err
    return captured.err


def test_wrong_password(
    uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for password in ("wrong password", ""):
        monkeypatch.setenv("NEO4J_PASSWORD", password)
        for command in (["info", "-a", uri], ["init", str(tmp_path / "a"), "--store", uri]):
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


def test_what_is_silent_is_given_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server that was stopped (SIGSTOP), or whose machine is gone behind a firewall."""
    monkeypatch.setattr(atlas.server.connect, "_CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        assert "no Neo4j server answers" in said(capsys, "info", "-a", f"bolt://127.0.0.1:{listener.getsockname()[1]}")
        assert time.monotonic() - start < 5


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
    assert "is it a Neo4j server's Bolt port?" in line and "pip install --upgrade neo4j" in line
    listener.close()


def test_a_server_that_is_too_old(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atlas.server.connect, "OLDEST", (9999, 1))
    with pytest.raises(StoreError, match=r"is Neo4j 5\.26\.\d+; feature-atlas needs 9999\.1 or newer"):
        store_at(uri).open()


def test_a_database_that_is_not_there(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = said(capsys, "info", "-a", f"{uri}/nowhere")
    assert "nowhere" in line and "--database" in line


def test_addresses_that_carry_a_password_are_refused_and_never_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = "neo4j://neo4j:s3cret@localhost:7687"
    for command in (["info", "-a", address], ["init", str(tmp_path / "a"), "--store", address]):
        line = said(capsys, *command)
        assert "NEO4J_PASSWORD" in line and "s3cret" not in line
    assert not (tmp_path / "a").exists()


def test_nothing_secret_is_kept(neo4j_lts: Server, uri: str, tmp_path: Path) -> None:
    emptied(neo4j_lts)
    bind(tmp_path / "a", ServerAddress.parse(uri))
    ingest([write_saes(tmp_path / "saes", range(1))], tmp_path / "a")
    for path in (tmp_path / "a").rglob("*"):
        assert path.is_dir() or neo4j_lts.password.encode() not in path.read_bytes(), path

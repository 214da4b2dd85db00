"""The Neo4j that other tests stand on: it keeps what was written, comes back on its port and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from neo4j import GraphDatabase
from neo4j_server import Neo4jServer, free_port

SCRIPT = Path(__file__).with_name("neo4j_server.py")


def count(uri: str, password: str) -> int:
    """Write one node and count them all."""
    with GraphDatabase.driver(uri, auth=("neo4j", password)) as driver:
        driver.execute_query("CREATE (:Kept)")
        return int(driver.execute_query("MATCH (n:Kept) RETURN count(n) AS n").records[0]["n"])


def test_data_outlives_a_restart_and_a_kill() -> None:
    with Neo4jServer() as server:
        uri, home = server.uri, server.home
        assert count(uri, server.password) == 1
        server.stop()
        assert not server.running
        server.start()
        assert count(uri, server.password) == 2
        server.kill()
        server.start()
        assert (server.uri, count(uri, server.password)) == (uri, 3)
    assert not home.exists()


def test_a_start_that_fails_says_why() -> None:
    server = Neo4jServer(settings={"no.such.setting": "1"})
    with pytest.raises(RuntimeError, match=r"No declared setting with name: no\.such\.setting"):
        server.start()
    server.close()
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Neo4jServer(port=other.getsockname()[1])
        with pytest.raises(RuntimeError, match="is taken: another server runs there"):
            server.start()
        server.close()


def in_foreground(home: Path, port: int) -> tuple[subprocess.Popen[str], str]:
    """`make neo4j` in that folder, once it runs; and the three lines that say how to use it."""
    command = [sys.executable, str(SCRIPT), "--home", str(home), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]
    return process, "".join(lines[2:])


def password_of(exports: str) -> str:
    """What a shell that was given the lines has as password."""
    shell = exports.replace("feature-atlas", "true") + 'printf %s "$NEO4J_PASSWORD"'
    return subprocess.run(["sh", "-c", shell], check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed parent cannot take its child along")
def test_in_the_foreground_it_keeps_password_and_data_and_dies_with_its_script(tmp_path: Path) -> None:
    home, port = tmp_path / "with space", free_port()
    process, exports = in_foreground(home, port)
    assert exports.endswith(f"feature-atlas init DIR --store neo4j://127.0.0.1:{port}\n")
    password = password_of(exports)
    assert (home / "password").stat().st_mode & 0o777 == 0o600
    assert count(f"neo4j://127.0.0.1:{port}", password) == 1

    process.kill()
    process.wait()
    gone_by = time.monotonic() + 20
    while answers(port):
        assert time.monotonic() < gone_by, "the server outlived its killed script"
        time.sleep(0.1)

    process, exports = in_foreground(home, port)
    assert password_of(exports) == password
    assert count(f"neo4j://127.0.0.1:{port}", password) == 2
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    assert not answers(port)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0

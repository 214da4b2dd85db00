"""Which Neo4j the tests of the server store run on.

The server that NEO4J_URI names, else the official image where a container engine runs, else the packages of
tests/neo4j_packages.py. Where none of these can be had, RuntimeError says why and the tests fail.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass

from neo4j import GraphDatabase
from neo4j.exceptions import DriverError, Neo4jError
from neo4j_server import Neo4jServer, free_port

PASSWORD = secrets.token_hex(12)  # of every server that one run of the tests starts


class ContainerServer:
    """A server from the official image."""

    IMAGE = "neo4j:5.26-community"
    user, password = "neo4j", PASSWORD

    def __init__(self) -> None:
        port = free_port()
        self.uri = f"neo4j://127.0.0.1:{port}"
        options = ["--rm", "-d", "-p", f"127.0.0.1:{port}:7687", "-e", f"NEO4J_AUTH={self.user}/{self.password}"]
        options += ["-e", f"NEO4J_server_bolt_advertised__address=127.0.0.1:{port}"]
        run = ["docker", "run", *options, self.IMAGE]
        self._id = subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
        atexit.register(self.close)
        end = time.monotonic() + 180
        while True:
            try:
                with GraphDatabase.driver(self.uri, auth=(self.user, self.password)) as driver:
                    driver.verify_connectivity()
                    return
            except (DriverError, Neo4jError, OSError) as error:
                if time.monotonic() > end:
                    raise RuntimeError(f"{self.IMAGE} did not answer ({error})") from None
                time.sleep(0.5)

    def close(self) -> None:
        """Remove the container; idempotent."""
        subprocess.run(["docker", "rm", "-f", self._id], check=False, capture_output=True)


@dataclass(frozen=True)
class NamedServer:
    """The server that NEO4J_URI names."""

    uri: str
    user: str
    password: str

    def close(self) -> None:
        """Nothing: it is not ours."""


Server = Neo4jServer | ContainerServer | NamedServer


def server_for_tests() -> Server:
    """A running server; the tests empty its database, so one that is named must be empty."""
    if uri := os.environ.get("NEO4J_URI"):
        server = NamedServer(uri, os.environ.get("NEO4J_USERNAME", "neo4j"), os.environ.get("NEO4J_PASSWORD", ""))
        with GraphDatabase.driver(uri, auth=(server.user, server.password)) as driver:
            count = driver.execute_query("MATCH (n) RETURN count(n) AS n").records[0]["n"]
        if count:
            raise RuntimeError(f"{uri} (NEO4J_URI) holds {count} nodes, and the tests empty the database they run on")
        return server
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ContainerServer()
    packaged = Neo4jServer(password=PASSWORD)
    packaged.start()
    return packaged


def emptied(server: Server) -> str:
    """The server's address, its database emptied; its credentials go to the environment, where the store looks."""
    os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
    with GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver, driver.session() as session:
        session.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS").consume()
    return server.uri

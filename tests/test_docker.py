"""docker/: its settings hold on a real server of that version, its image runs as nobody, its README's Cypher parses."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import saes
import yaml
from neo4j import Driver, GraphDatabase
from neo4j.exceptions import ClientError, Neo4jError
from neo4j_server import LTS, Neo4jServer, free_port

REPOSITORY = Path(__file__).parent.parent
DOCKER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVER: dict[str, Any] = COMPOSE["services"]["neo4j"]
TOOL: dict[str, Any] = COMPOSE["services"]["atlas"]
# What a test machine has room for; the ratios are the compose file's.
SMALL = {
    "server.memory.heap.initial_size": "256m",
    "server.memory.heap.max_size": "512m",
    "server.memory.pagecache.size": "256m",
    "dbms.memory.transaction.total.max": "350m",
    "db.memory.transaction.max": "256m",
}


def settings_of(environment: dict[str, str]) -> dict[str, str]:
    """The settings of neo4j.conf that the official image makes of its environment; secrets' files are none."""
    names = [name for name in environment if name.startswith("NEO4J_") and not name.endswith("_FILE")]
    return {name[len("NEO4J_") :].replace("_", ".").replace("..", "_"): environment[name] for name in names}


@pytest.fixture(scope="module")
def server() -> Iterator[Neo4jServer]:
    """A server with the compose file's settings, where its clients do not find it under the address that it tells."""
    settings = settings_of(SERVER["environment"])
    assert settings.keys() >= SMALL.keys()
    hardened = {**settings, **SMALL, "server.bolt.advertised_address": None}
    with Neo4jServer(settings=hardened, heap="512m") as running:
        yield running


@pytest.fixture(scope="module")
def driver(server: Neo4jServer) -> Iterator[Driver]:
    # Out of memory counts as passing: without a limit the driver repeats the statement for 30 seconds.
    auth = (server.user, server.password)
    with GraphDatabase.driver(server.uri, auth=auth, max_transaction_retry_time=0) as opened:
        yield opened


def test_names_of_settings_follow_the_images_rule() -> None:
    made = settings_of({"NEO4J_db_tx__log_rotation_retention__policy": "1", "NEO4J_AUTH_FILE": "2", "PATH": "3"})
    assert made == {"db.tx_log.rotation.retention_policy": "1"}


def test_the_image_is_the_tested_version_and_is_reached_from_this_machine_only() -> None:
    assert SERVER["image"] == f"neo4j:{'.'.join(LTS.split('.')[:2])}-community"
    assert SERVER["ports"] and all(port.startswith("127.0.0.1:") for port in SERVER["ports"])
    assert "ports" not in TOOL
    assert "network_mode" not in SERVER and "privileged" not in SERVER


@pytest.mark.parametrize("service", [SERVER, TOOL], ids=["neo4j", "atlas"])
def test_no_container_can_gain_rights_or_tells_its_password(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["secrets"] == ["neo4j_auth"]
    assert service["environment"]["NEO4J_AUTH_FILE"] == "/run/secrets/neo4j_auth"
    assert not {"NEO4J_AUTH", "NEO4J_PASSWORD", "NEO4J_PLUGINS", "NEO4J_DEBUG"} & service["environment"].keys()
    assert COMPOSE["secrets"] == {"neo4j_auth": {"file": "./secrets/neo4j_auth"}}
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "docker/secrets/" in ignored


def test_the_server_keeps_its_data_and_its_bounds() -> None:
    assert SERVER["user"] == "7474:7474"
    assert SERVER["restart"] == "unless-stopped"
    assert SERVER["volumes"] == ["data:/data", "logs:/logs"]
    assert COMPOSE["volumes"].keys() == {"data", "logs", "atlas"}
    assert SERVER["mem_limit"] and SERVER["pids_limit"] and SERVER["logging"]["options"]["max-size"]
    settings = settings_of(SERVER["environment"])
    assert settings["server.config.strict_validation.enabled"] == "true"
    assert settings["dbms.usage_report.enabled"] == settings["client.allow_telemetry"] == "false"
    assert settings["db.tx_log.rotation.retention_policy"].endswith("size")
    assert "dbms.security.procedures.unrestricted" not in settings
    assert "dbms.security.auth_enabled" not in settings


def test_limits_on_time_are_in_force(driver: Driver) -> None:
    rows = driver.execute_query("SHOW SETTINGS YIELD name, value").records
    values = {row["name"]: row["value"] for row in rows}
    assert (values["db.transaction.timeout"], values["db.lock.acquisition.timeout"]) == ("10m", "1m")


@pytest.mark.parametrize("file", ["file:///etc/passwd", "file:///inside-import.csv"])
def test_load_csv_reads_no_file(server: Neo4jServer, driver: Driver, file: str) -> None:
    (server.home / "import" / "inside-import.csv").write_text("a,b\n")
    with pytest.raises(ClientError, match=r"allow_csv_import_from_file_urls' is false"):
        driver.execute_query("LOAD CSV FROM $file AS line RETURN line", file=file)


def test_load_csv_reaches_no_address(driver: Driver) -> None:
    seen: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        for host in ("127.0.0.1", "localhost", "[::1]"):
            with pytest.raises(ClientError, match=r"blocked via the configuration property .*cypher_ip_blocklist"):
                url = f"http://{host}:{web.server_port}/secret"
                driver.execute_query("LOAD CSV FROM $url AS line RETURN line", url=url)
        web.shutdown()
    assert seen == []


def test_a_statement_too_large_is_stopped_and_the_server_goes_on(driver: Driver) -> None:
    with pytest.raises(Neo4jError, match=r"db\.memory\.transaction\.max"):
        driver.execute_query("UNWIND range(1, 100000000) AS i WITH collect(i + 0) AS numbers RETURN size(numbers)")
    assert driver.execute_query("RETURN 1 AS one").records[0]["one"] == 1


def test_the_tool_writes_an_atlas_to_it_with_the_secret(server: Neo4jServer, driver: Driver, tmp_path: Path) -> None:
    secret = tmp_path / "neo4j_auth"
    secret.write_text(f"neo4j/{server.password}")
    saes.planted(tmp_path / "dictionaries", range(2))
    # Elsewhere the credentials must come from the secret alone.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEO4J_")}
    environment |= {"NEO4J_AUTH_FILE": str(secret), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def tool(*arguments: str) -> str:
        command = ["sh", str(DOCKER / "entrypoint.sh"), *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tool("init", "my-atlas", "--store", server.uri)
    tool("ingest", "dictionaries", "-a", "my-atlas")
    # Two layers of three sites of 64 rows each.
    assert driver.execute_query("MATCH (f:Feature) RETURN count(f) AS n").records[0]["n"] == 2 * 3 * 64
    assert driver.execute_query("MATCH ()-[r:FROM_RES]->() RETURN count(r) AS n").records[0]["n"] > 0


@pytest.mark.parametrize("secret", ["neo4j", "neo4j/", "", None])
def test_a_secret_without_a_password_is_named(secret: str | None, tmp_path: Path) -> None:
    path = tmp_path / "neo4j_auth"
    if secret is not None:
        path.write_text(secret)
    environment = {"NEO4J_AUTH_FILE": str(path), "PATH": os.environ["PATH"]}
    command = ["sh", str(DOCKER / "entrypoint.sh"), "info"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"{path} is not readable or does not hold USER/PASSWORD" in done.stderr


def test_health_check_needs_a_server_that_speaks_bolt(server: Neo4jServer) -> None:
    kind, *command = SERVER["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy(port: int) -> bool:
        words = [word.replace("$$", "$").replace("/7687", f"/{port}") for word in command]
        return subprocess.run(words, capture_output=True, timeout=10, check=False).returncode == 0

    assert healthy(server.port)
    assert not healthy(free_port())


def test_the_readmes_roles_parse(driver: Driver) -> None:
    blocks = re.findall(r"```cypher\n(.*?)```", (DOCKER / "README.md").read_text(), re.S)
    statements = [statement.strip() for block in blocks for statement in block.split(";") if statement.strip()]
    assert len(statements) > 15
    for statement in statements:
        # Community Edition has users but no roles, and says so of a statement that it has understood.
        if statement.startswith("CREATE USER"):
            driver.execute_query(statement, database_="system")
            continue
        with pytest.raises(ClientError, match="Unsupported administration command"):
            driver.execute_query(statement, database_="system")


def test_the_image_is_built_from_files_that_exist_and_runs_as_nobody() -> None:
    lines = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [shlex.split(line, comments=True) for line in lines if line and not line.startswith("#")]
    assert re.fullmatch(r"python:3\.\d+-slim", steps[0][1])
    sources = [path for step in steps if step[0] == "COPY" for path in step[1:-1] if not path.startswith("--")]
    kept = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in kept, f".dockerignore keeps {source} out"
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix("*") for name in found} <= set(sources)
    users = [step[1] for step in steps if step[0] == "USER"]
    assert users and int(users[-1].split(":")[0]) >= 10000
    assert [step[0] for step in steps].index("USER") < [step[0] for step in steps].index("ENTRYPOINT")
    assert os.access(DOCKER / "entrypoint.sh", os.X_OK)

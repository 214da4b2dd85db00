"""A real Neo4j from packages, for tests and for `make neo4j`: starts, stops, dies and starts again on one home folder."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import neo4j
from neo4j.exceptions import AuthError, DriverError, Neo4jError
from neo4j_packages import CURRENT, LTS, packages

__all__ = ["CURRENT", "LTS", "Neo4jServer"]

_OPENS = ("java.nio", "java.io", "sun.nio.ch")
# Half a start's time is compiling. The optimising compiler pays only in servers that run for minutes.
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_FOLDERS = ("conf", "data", "import", "logs", "run", "plugins", "licenses", "lib")
_LOGS = """<Configuration status="ERROR"><Appenders><File name="file" fileName="{path}">
<PatternLayout pattern="%d{{yyyy-MM-dd HH:mm:ss.SSSZ}} %-5p [%c{{1.}}] %m%n"/></File></Appenders>
<Loggers><Root level="{level}"><AppenderRef ref="file"/></Root></Loggers></Configuration>
"""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Neo4jServer:
    """A server with its own home folder, loopback port and password; a context manager that starts and stops it.

    home: kept when it is given, with its password in `home/password`; else a temporary folder.
    settings: of neo4j.conf, over the ones below; None takes one out.
    quick: starts sooner, and runs slower once it has run for minutes.
    Start it in a thread that lives as long as the server: on Linux it dies with that thread.
    """

    user = "neo4j"

    def __init__(
        self,
        version: str = LTS,
        *,
        home: Path | None = None,
        port: int | None = None,
        password: str | None = None,
        heap: str = "1g",
        page_cache: str = "512m",
        settings: Mapping[str, str | None] | None = None,
        quick: bool = True,
    ) -> None:
        self.packages = packages(version)
        self._kept = home is not None
        self.home = (home or Path(tempfile.mkdtemp(prefix=f"neo4j-{version}-"))).resolve()
        self.port = port or free_port()
        self.heap = heap
        self.settings = _settings(self.port, heap, page_cache) | dict(settings or {})
        self._quick = _QUICK if quick else ()
        self._process: subprocess.Popen[bytes] | None = None
        for name in _FOLDERS:
            (self.home / name).mkdir(parents=True, exist_ok=True)
        self.password = _kept_password(self.home / "password", password)
        atexit.register(self.close)

    @property
    def uri(self) -> str:
        return f"neo4j://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 120.0) -> None:
        """Start and wait until statements are answered; raises RuntimeError with the log's end when that fails."""
        if self.running:
            return
        self._configure()
        if not (self.home / "data" / "dbms").exists():
            # From a file: arguments can be seen by every user of the machine.
            self.admin("dbms", "set-initial-password", f"@{self.home / 'password'}")
        with open(self.home / "logs" / "console.log", "wb") as console:
            self._process = subprocess.Popen(
                self._java(self.packages.main_class, f"--home-dir={self.home}", f"--config-dir={self.home / 'conf'}"),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the server
                preexec_fn=_die_with_parent if _LIBC else None,
            )
        try:
            self._wait(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop as `neo4j stop` does: transactions end, the store is closed. Killed when that takes over a minute."""
        if self.running:
            assert self._process is not None
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a power failure would (SIGKILL)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop, and remove a temporary home folder; idempotent."""
        self.stop()
        atexit.unregister(self.close)
        if not self._kept:
            shutil.rmtree(self.home, ignore_errors=True)

    def admin(self, *arguments: str) -> str:
        """Run neo4j-admin, e.g. admin("database", "import", "full", …), on the stopped server; returns what it printed."""
        self._configure()
        command = self._java("org.neo4j.cli.AdminTool", *arguments)
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"neo4j-admin {' '.join(arguments)} failed:\n{_end(done.stdout + done.stderr)}")
        return done.stdout

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the server printed and logged for its user."""
        files = [self.home / "logs" / name for name in ("console.log", "neo4j.log")]
        return "\n".join(_end(path.read_text(errors="replace"), lines) for path in files if path.exists())

    def __enter__(self) -> Neo4jServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _configure(self) -> None:
        conf, logs = self.home / "conf", self.home / "logs"
        lines = [f"{name}={value}\n" for name, value in self.settings.items() if value is not None]
        (conf / "neo4j.conf").write_text("".join(lines))
        (conf / "user-logs.xml").write_text(_LOGS.format(path=logs / "neo4j.log", level="INFO"))
        (conf / "server-logs.xml").write_text(_LOGS.format(path=logs / "debug.log", level="WARN"))

    def _java(self, main: str, *arguments: str) -> list[str]:
        opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENS]
        return [str(self.packages.java), *self._quick, *opens, f"-Xmx{self.heap}", main, *arguments]

    def _environment(self) -> dict[str, str]:
        jars = os.pathsep.join(map(str, self.packages.jars))
        return os.environ | {"CLASSPATH": jars, "NEO4J_HOME": str(self.home), "NEO4J_CONF": str(self.home / "conf")}

    def _wait(self, end: float) -> None:
        reason = ""
        while time.monotonic() < end:
            if not self.running:
                raise RuntimeError(f"Neo4j {self.packages.version} stopped while it started:\n{self.log_tail()}")
            try:
                with neo4j.GraphDatabase.driver(self.uri, auth=(self.user, self.password)) as driver:
                    driver.verify_connectivity()
                    return
            except AuthError as error:
                raise RuntimeError(f"{self.home} holds a server with another password: {error.message}") from error
            except (Neo4jError, DriverError, OSError) as error:
                reason = str(error)
            time.sleep(0.1)
        raise RuntimeError(f"Neo4j {self.packages.version} did not answer in time ({reason}):\n{self.log_tail()}")


def free_port() -> int:
    """A free loopback port below the range that clients get theirs from: a stopped server's is not taken by a client."""
    for port in random.SystemRandom().sample(range(20000, 32000), 200):
        with contextlib.suppress(OSError), socket.socket() as attempt:
            attempt.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def _settings(port: int, heap: str, page_cache: str) -> dict[str, str | None]:
    return {
        "server.default_listen_address": "127.0.0.1",
        "server.bolt.listen_address": f"127.0.0.1:{port}",
        "server.bolt.advertised_address": f"127.0.0.1:{port}",
        "server.http.enabled": "false",
        "server.https.enabled": "false",
        "server.memory.heap.max_size": heap,
        "server.memory.pagecache.size": page_cache,
        "server.config.strict_validation.enabled": "true",
        "db.tx_log.rotation.retention_policy": "100M size",
        "dbms.security.allow_csv_import_from_file_urls": "false",
        "dbms.usage_report.enabled": "false",
        "internal.dbms.bolt.netty_server_shutdown_quiet_period": "0",  # stops in 1 s, not 11
    }


def _kept_password(path: Path, wanted: str | None) -> str:
    """The home folder's password: the one it was made with, else `wanted` or a random one, readable by its user only."""
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(wanted or secrets.token_hex(16))
    return path.read_text().strip()


def _die_with_parent() -> None:
    """In the child, before Java: be killed when the parent dies, however it dies."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(text: str, lines: int = 30) -> str:
    return "\n".join(text.splitlines()[-lines:])


def main() -> None:
    """Run a server in the foreground and say how to use it."""
    parser = argparse.ArgumentParser(description="Run Neo4j on this machine until Ctrl-C; its data stays in a folder.")
    parser.add_argument("--version", default=LTS, help=f"default: {LTS}; also tested: {CURRENT}")
    parser.add_argument("--home", type=Path, default=Path("neo4j-data"), help="default: ./neo4j-data")
    parser.add_argument("--port", type=int, default=7687, help="of Bolt, on 127.0.0.1; default: 7687")
    options = parser.parse_args()
    for stopped in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stopped, lambda *_: sys.exit(0))
    try:
        with Neo4jServer(options.version, home=options.home, port=options.port, quick=False) as server:
            print(f"Neo4j {options.version} runs; stop it with Ctrl-C. In another terminal:\n")
            print(f"export NEO4J_USERNAME={server.user}")
            print(f'export NEO4J_PASSWORD="$(cat {shlex.quote(str(server.home / "password"))})"')
            print(f"feature-atlas init DIR --store {server.uri}", flush=True)
            while server.running:
                time.sleep(0.5)
            sys.exit(f"Neo4j stopped by itself:\n{server.log_tail()}")
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

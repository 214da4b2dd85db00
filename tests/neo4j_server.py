"""A real Neo4j from packages, for tests and for `make neo4j`: it starts, stops, dies and starts again on its data."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import os
import random
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
from neo4j_home import Neo4jHome, default_settings, end
from neo4j_packages import CURRENT, LTS, packages

__all__ = ["CURRENT", "LTS", "Neo4jServer"]

_OPENS = ("java.nio", "java.io", "sun.nio.ch")
# Without the optimising compiler a start takes a third less time, and hundreds of thousands of writes a third more.
_QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Neo4jServer:
    """A server with its own home folder, loopback port and password; a context manager that starts and stops it.

    home: kept when it is given, with its password in `home/password`; else a temporary folder.
    settings: of neo4j.conf, over the ones below; None takes one out.
    quick: starts sooner and writes slower; False for benchmarks and for users.
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
        self._home = Neo4jHome(home or Path(tempfile.mkdtemp(prefix=f"neo4j-{version}-")), password)
        self.home, self.password = self._home.path, self._home.password
        self.port = port or free_port()
        self.heap = heap
        self.settings = default_settings(self.port, heap, page_cache) | dict(settings or {})
        self._quick = _QUICK if quick else ()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def uri(self) -> str:
        return f"neo4j://127.0.0.1:{self.port}"

    @property
    def _encrypted(self) -> bool:
        return self.settings.get("server.bolt.tls_level") == "REQUIRED"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 120.0) -> None:
        """Start and wait until statements are answered; raises RuntimeError with the log's end when that fails."""
        if self.running:
            return
        if not _free(self.port):
            raise RuntimeError(f"port {self.port} is taken: another server runs there")
        self._home.configure(self.settings)
        if not self._home.used:
            # From a file: arguments can be seen by every user of the machine.
            self.admin("dbms", "set-initial-password", f"@{self._home.password_file}")
        with open(self._home.console, "wb") as console:
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
        """Run neo4j-admin on the stopped server, e.g. admin("database", "import", "full", …); what it printed."""
        self._home.configure(self.settings)
        command = self._java("org.neo4j.cli.AdminTool", *arguments)
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"neo4j-admin {' '.join(arguments)} failed:\n{end(done.stdout + done.stderr)}")
        return done.stdout

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the server printed and logged for its user."""
        return self._home.log_tail(lines)

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

    def _java(self, main: str, *arguments: str) -> list[str]:
        opens = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENS]
        return [str(self.packages.java), *self._quick, *opens, f"-Xmx{self.heap}", main, *arguments]

    def _environment(self) -> dict[str, str]:
        jars = os.pathsep.join(map(str, self.packages.jars))
        return os.environ | {"CLASSPATH": jars, "NEO4J_HOME": str(self.home), "NEO4J_CONF": str(self.home / "conf")}

    def _wait(self, deadline: float) -> None:
        reason = ""
        while time.monotonic() < deadline:
            if not self.running:
                raise RuntimeError(f"Neo4j {self.packages.version} stopped while it started:\n{self.log_tail()}")
            try:
                # The driver logs each attempt that finds nobody: knock first.
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                address = f"{'bolt+ssc' if self._encrypted else 'bolt'}://127.0.0.1:{self.port}"
                with neo4j.GraphDatabase.driver(address, auth=(self.user, self.password)) as driver:
                    driver.verify_connectivity()
                    return
            except AuthError as error:
                raise RuntimeError(f"{self.home} holds a server with another password: {error.message}") from error
            except (Neo4jError, DriverError, OSError) as error:
                reason = str(error)
            time.sleep(0.1)
        raise RuntimeError(f"Neo4j {self.packages.version} did not answer in time ({reason}):\n{self.log_tail()}")


def free_port() -> int:
    """A free loopback port, below the range that clients get theirs from: none takes it while the server is stopped."""
    for port in random.SystemRandom().sample(range(20000, 32000), 200):
        if _free(port):
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def _free(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a server that has ended linger
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    """In the child, before Java: be killed when the parent dies, however it dies."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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

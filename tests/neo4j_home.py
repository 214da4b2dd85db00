"""A Neo4j server's home folder: its settings, its logs, its password."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

_FOLDERS = ("conf", "data", "import", "logs", "run", "plugins", "licenses", "lib")
_LOGS = """<Configuration status="ERROR"><Appenders><File name="file" fileName="{path}">
<PatternLayout pattern="%d{{yyyy-MM-dd HH:mm:ss.SSSZ}} %-5p [%c{{1.}}] %m%n"/></File></Appenders>
<Loggers><Root level="{level}"><AppenderRef ref="file"/></Root></Loggers></Configuration>
"""


class Neo4jHome:
    """A home folder, made where it is missing.

    password: what it was made with, else `password`, else a random one; in a file that only its user may read.
    """

    def __init__(self, path: Path, password: str | None) -> None:
        self.path = path.resolve()
        for name in _FOLDERS:
            (self.path / name).mkdir(parents=True, exist_ok=True)
        self.password_file = self.path / "password"
        if not self.password_file.exists():
            with open(os.open(self.password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(password or secrets.token_hex(16))
        self.password = self.password_file.read_text().strip()

    @property
    def used(self) -> bool:
        """Whether a password was set in it, which is possible only before the first start."""
        return (self.path / "data" / "dbms").exists()

    @property
    def console(self) -> Path:
        """The file that takes what the server prints."""
        return self.path / "logs" / "console.log"

    def configure(self, settings: Mapping[str, str | None]) -> None:
        """Write neo4j.conf, without the settings that are None, and where to log."""
        conf, logs = self.path / "conf", self.path / "logs"
        lines = [f"{name}={value}\n" for name, value in settings.items() if value is not None]
        (conf / "neo4j.conf").write_text("".join(lines))
        (conf / "user-logs.xml").write_text(_LOGS.format(path=logs / "neo4j.log", level="INFO"))
        (conf / "server-logs.xml").write_text(_LOGS.format(path=logs / "debug.log", level="WARN"))

    def log_tail(self, lines: int) -> str:
        """The end of what the server printed and of what it logged for its user."""
        files = [path for path in (self.console, self.path / "logs" / "neo4j.log") if path.exists()]
        return "\n".join(end(path.read_text(errors="replace"), lines) for path in files)


def default_settings(port: int, heap: str, page_cache: str) -> dict[str, str | None]:
    """Bolt on a loopback port and nothing else, little memory, small logs, no reports."""
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


def end(text: str, lines: int = 30) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])

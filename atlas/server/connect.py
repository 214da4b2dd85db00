"""Connections to a Neo4j server: credentials from the environment, managed transactions.

A transaction that failed for a passing reason (a restart, a lost connection, a deadlock) is repeated by the driver for
some seconds, and here while a server's restart may take; here also one whose acknowledgement was lost, so that nobody
knows whether it took place. What is written through here must therefore be the same when it is written twice.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from atlas.address import ServerAddress
from atlas.errors import StoreError
from atlas.server.errors import MEMORY, PASSWORD, USERNAME, too_little_memory, translated, user

if TYPE_CHECKING:
    from neo4j import Driver, ManagedTransaction, Session
    from neo4j.api import BookmarkManager

    T = TypeVar("T")

OLDEST = (5, 26)  # the oldest server that the tests run on
READ_RETRIES = 10.0  # seconds in which a transaction that failed is repeated
WRITE_RETRIES = 120.0  # the same while writing: a server's restart is waited for
_CONNECT = 10.0  # seconds that a connection may take
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # OpenSSL's

# What the driver reports while it tries again is not for who runs a command; what fails in the end is raised.
logging.getLogger("neo4j").addHandler(logging.NullHandler())


class Connection:
    """A database on a server, connected to at its first use. May be used by several threads."""

    def __init__(
        self, address: ServerAddress, *, retries: float = READ_RETRIES, beside: Connection | None = None
    ) -> None:
        """retries: seconds in which a transaction is repeated. beside: a connection to the same database; each sees
        what was written through the other, also where the members of a cluster lag behind."""
        self.address = address
        self.version = ""  # of the server, once connected
        self._retries = retries
        self._driver: Driver | None = None
        self._beside = beside
        self._bookmarks: BookmarkManager | None = None

    @property
    def driver(self) -> Driver:
        """The driver, which has reached the server once; raises StoreError where it does not."""
        if self._driver is None:
            driver = _driver(self.address, self._retries)
            try:
                with translated(self.address):
                    # The driver connects lazily: a wrong address would show only after the retries of a transaction.
                    driver.verify_connectivity()
                    self.version = _version(driver, self.address)
            except BaseException:
                driver.close()
                raise
            self._driver = driver
        return self._driver

    @property
    def bookmarks(self) -> BookmarkManager:
        """What this connection has seen written, so that the next transaction sees it too."""
        if self._bookmarks is None:
            from neo4j import GraphDatabase

            self._bookmarks = self._beside.bookmarks if self._beside else GraphDatabase.bookmark_manager()
        return self._bookmarks

    def session(self, **options: Any) -> Session:
        """A session of the database; not to be shared between threads."""
        return self.driver.session(database=self.address.database, bookmark_manager=self.bookmarks, **options)

    def read(self, cypher: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a reading statement as the driver gives them."""
        with self.session(default_access_mode="READ") as session, translated(self.address):
            return session.execute_read(lambda tx: tx.run(cypher, dict(parameters or {})).data())

    def write(self, work: Callable[[ManagedTransaction], T]) -> T:
        """Do `work` in a managed transaction, which may be repeated as a whole."""
        from neo4j.exceptions import DriverError, IncompleteCommit, Neo4jError

        end = time.monotonic() + self._retries
        while True:
            with self.session() as session, translated(self.address):
                try:
                    return session.execute_write(work)
                except (DriverError, Neo4jError) as error:
                    if isinstance(error, Neo4jError) and MEMORY in str(error.code):
                        # Passing where another statement has the memory. After the driver's retries, it is not.
                        raise too_little_memory(self.address, error) from None
                    # The driver does not repeat a commit of unknown outcome: it cannot know that twice is as once here.
                    passing = isinstance(error, IncompleteCommit) or error.is_retryable()
                    if not passing or time.monotonic() > end:
                        raise

    def run(self, cypher: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a statement that may write, in a managed transaction."""
        return self.write(lambda tx: tx.run(cypher, dict(parameters or {})).data())

    def close(self) -> None:
        """Close every connection; idempotent."""
        if self._driver is not None:
            self._driver.close()
            self._driver = None


def environment() -> dict[str, str]:
    """What another process needs to connect as this one does: credentials, and which certificates to trust."""
    found = {name: os.environ[name] for name in (USERNAME, PASSWORD) if name in os.environ}
    for name in _TRUSTED:
        if paths := os.environ.get(name):  # that process is in another folder
            found[name] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    return found


def _driver(address: ServerAddress, retries: float) -> Driver:
    from neo4j import GraphDatabase

    password = os.environ.get(PASSWORD)
    with translated(address):
        driver: Driver = GraphDatabase.driver(
            address.uri,
            auth=(user(), password) if password else None,
            connection_timeout=_CONNECT,
            connection_acquisition_timeout=2 * _CONNECT,  # which includes the server's first words
            # What takes longer is repeated by `write`, which also repeats what the driver does not.
            max_transaction_retry_time=min(retries, READ_RETRIES),
            # Hints of the planner are for who writes the statement, not for who runs a command.
            notifications_min_severity="OFF",
            user_agent="feature-atlas",
        )
    return driver


def _version(driver: Driver, address: ServerAddress) -> str:
    """The server's version; raises StoreError for one that is too old. Newer ones than the tests know are tried."""
    agent = str(driver.get_server_info().agent)
    version = agent.partition("/")[2]
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if number and number < OLDEST:
        raise StoreError(f"{address} is Neo4j {version}; feature-atlas needs {'.'.join(map(str, OLDEST))} or newer")
    return version

"""One writer a database, whatever machine it is on: a node that says who writes, renewed while it does.

Times are the server's alone, since clocks differ. A writer that has not renewed its claim for LEASE seconds has lost
it. Every transaction that writes ends with `FENCE`, which takes the node's lock until the commit: either the next
writer waits for that commit, or this one finds its claim gone and is rolled back, however long it stood still in
between.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from atlas.errors import AtlasError, LockedAtlas
from atlas.server.connect import Connection
from atlas.server.schema import WRITER, check_owner, unique

if TYPE_CHECKING:
    from neo4j import ManagedTransaction

    T = TypeVar("T")

LEASE = 30.0  # seconds: so long a writer that was killed keeps others out
RENEW = 5.0
MANY = 20_000  # things that one transaction removes
_RETRIES = 2.0  # seconds: what fails now is tried again at the next renewal

CURRENT = f"""
MATCH (w:{WRITER} {{id: 'writer'}}) WHERE w.until >= timestamp()
RETURN w.host AS host, w.pid AS pid, w.since AS since, (w.until - timestamp()) / 1000 + 1 AS seconds
"""
# Setting a property first takes the node's lock, so that two claims are looked at one after the other.
CLAIM = f"""
MERGE (w:{WRITER} {{id: 'writer'}})
SET w.asked = timestamp()
WITH w WHERE w.token IS NULL OR w.token = $token OR w.until < timestamp()
SET w.token = $token, w.host = $host, w.pid = $pid, w.since = toString(datetime()), w.until = timestamp() + $lease
RETURN w.token AS token
"""
RENEWAL = f"MATCH (w:{WRITER} {{id: 'writer', token: $token}}) SET w.until = timestamp() + $lease"
RELEASE = f"MATCH (w:{WRITER} {{id: 'writer', token: $token}}) DELETE w"
FENCE = f"""
MATCH (w:{WRITER} {{id: 'writer'}})
SET w.fenced = timestamp()
WITH w WHERE w.token = $token
RETURN w.token AS token
"""


class Claim:
    """The right to write, as long as it is renewed."""

    def __init__(self, connection: Connection, token: str) -> None:
        self.connection = connection
        self.token = token

    def write(self, work: Callable[[ManagedTransaction], T]) -> T:
        """Do `work` in a managed transaction, which may be repeated as a whole and is rolled back without the right."""

        def checked(tx: ManagedTransaction) -> T:
            result = work(tx)
            self.check(tx)
            return result

        return self.connection.write(checked)

    def run(self, cypher: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of one statement in a transaction of its own."""
        return self.write(lambda tx: tx.run(cypher, parameters).data())

    def until_none(self, cypher: str, **parameters: Any) -> None:
        """A statement that handles `limit` things and returns their number `n`, until there are none."""
        while self.run(cypher, limit=MANY, **parameters)[0]["n"]:
            pass

    def check(self, tx: ManagedTransaction) -> None:
        """End a transaction that writes; raises LockedAtlas, and so rolls it back, where the right was lost."""
        if tx.run(FENCE, token=self.token).single() is None:
            raise LockedAtlas(
                f"{self.connection.address} was taken over by another writer while this one was cut off; repeat the "
                "command when that one is done"
            )


@contextmanager
def claimed(connection: Connection) -> Iterator[Claim]:
    """Hold the right to write to a database.

    Raises LockedAtlas with the writer that has it, StoreError where the database is another program's.
    """
    # Not host and process number, which two containers may share.
    token = secrets.token_hex(16)
    _claim(connection, token)
    done = threading.Event()
    brief = Connection(connection.address, retries=_RETRIES, beside=connection)
    renewing = threading.Thread(target=_renew, args=(brief, token, done), daemon=True)
    renewing.start()
    try:
        yield Claim(connection, token)
    finally:
        done.set()
        # The thread uses the connection that is closed below.
        renewing.join()
        # Where the server is gone the claim ends by itself.
        with suppress(AtlasError):
            brief.run(RELEASE, {"token": token})
        brief.close()


def current_writer(connection: Connection) -> str | None:
    """Who writes to the database, in words; None where nobody does, or who did has been given up."""
    for found in connection.read(CURRENT):
        return (
            f"process {found['pid']} on {found['host']} since {found['since']} (one that is gone is given up in at "
            f"most {found['seconds']} s)"
        )
    return None


def _claim(connection: Connection, token: str) -> None:
    check_owner(connection)  # before the constraint, which would bind another program
    connection.run(unique(WRITER))
    writer = {"host": socket.gethostname(), "pid": os.getpid()}
    if not connection.run(CLAIM, writer | {"token": token, "lease": _milliseconds()}):
        raise LockedAtlas(
            f"{connection.address} is being written to by {current_writer(connection) or 'another process'}; wait for "
            "it or end it"
        )


def _renew(connection: Connection, token: str, done: threading.Event) -> None:
    while not done.wait(RENEW):
        # A server that restarts comes back with the claim; one that stays away ends the write anyhow.
        with suppress(AtlasError):
            connection.run(RENEWAL, {"token": token, "lease": _milliseconds()})


def _milliseconds() -> int:
    return int(LEASE * 1000)

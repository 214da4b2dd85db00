"""One writer a database, whatever machine it is on: a node that says who writes, renewed while it does.

Times are the server's alone, since clocks differ. A writer that has not renewed its claim for LEASE seconds has lost
it, and so has at once one whose process is dead, seen from the same machine. Every transaction that writes ends with
`FENCE`, which takes the node's lock until the commit: either the next writer waits for that commit, or this one finds
its claim gone and is rolled back, however long it stood still in between.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from atlas.errors import AtlasError, LockedAtlas
from atlas.server.connect import Connection
from atlas.server.schema import WRITER

if TYPE_CHECKING:
    from neo4j import ManagedTransaction

    T = TypeVar("T")

LEASE = 60.0  # seconds
RENEW = 10.0
MANY = 20_000  # things that one transaction removes
_RETRIES = 2.0  # seconds: what fails now is tried again at the next renewal

CONSTRAINT = f"CREATE CONSTRAINT {WRITER.lower()}_id IF NOT EXISTS FOR (n:{WRITER}) REQUIRE n.id IS UNIQUE"
HOLDER = f"""
MATCH (w:{WRITER} {{id: 'writer'}})
RETURN w.token AS token, w.host AS host, w.machine AS machine, w.pid AS pid, w.since AS since,
       w.renewed < timestamp() - $lease AS late
"""
# Setting a property first takes the node's lock, so that two claims are looked at one after the other.
CLAIM = f"""
MERGE (w:{WRITER} {{id: 'writer'}})
SET w.asked = timestamp()
WITH w WHERE w.token IS NULL OR w.token = $token OR w.token = $dead OR w.renewed < timestamp() - $lease
SET w.token = $token, w.host = $host, w.machine = $machine, w.pid = $pid, w.since = toString(datetime()),
    w.renewed = timestamp()
RETURN w.token AS token
"""
RENEWAL = f"MATCH (w:{WRITER} {{id: 'writer', token: $token}}) SET w.renewed = timestamp()"
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
def claimed(connection: Connection, lease: float = LEASE) -> Iterator[Claim]:
    """Hold the right to write to a database; raises LockedAtlas with its holder where another has it."""
    token = secrets.token_hex(16)
    _claim(connection, token, lease)
    done = threading.Event()
    brief = Connection(connection.address, retries=_RETRIES, beside=connection)
    renewing = threading.Thread(target=_renew, args=(brief, token, done, min(RENEW, lease / 4)), daemon=True)
    renewing.start()
    try:
        yield Claim(connection, token)
    finally:
        done.set()
        renewing.join()
        # Where the server is gone the claim ends by itself.
        with suppress(AtlasError):
            brief.run(RELEASE, {"token": token})
        brief.close()


def holder(connection: Connection, lease: float = LEASE) -> str | None:
    """Who writes to the database, in words; None where nobody does, or who did is gone."""
    found = _holder(connection, lease)
    if not found or found["late"] or _dead(found):
        return None
    return f"process {found['pid']} on {found['host']} since {found['since']}"


def _holder(connection: Connection, lease: float) -> dict[str, Any]:
    return next(iter(connection.read(HOLDER, {"lease": int(lease * 1000)})), {})


def _dead(found: dict[str, Any]) -> bool:
    """Whether the holder is known to be gone: only its own machine can tell."""
    return bool(found["machine"]) and found["machine"] == _machine() and not _alive(found["pid"])


def _claim(connection: Connection, token: str, lease: float) -> None:
    connection.run(CONSTRAINT)
    found = _holder(connection, lease)
    dead = found["token"] if found and _dead(found) else None
    parameters = {"token": token, "dead": dead, "lease": int(lease * 1000)}
    if not connection.run(
        CLAIM, parameters | {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine()}
    ):
        raise LockedAtlas(
            f"{connection.address} is being written to by {holder(connection, lease) or 'another process'}; wait for "
            f"it or end it (a writer that is gone is given up after {lease:g} s)"
        )


def _renew(connection: Connection, token: str, done: threading.Event, seconds: float) -> None:
    while not done.wait(seconds):
        # A server that restarts comes back with the claim; one that stays away ends the write anyhow.
        with suppress(AtlasError):
            connection.run(RENEWAL, {"token": token})


def _machine() -> str | None:
    """Names the place in which process numbers mean the same: this boot of this machine, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: a dead writer is waited for until its lease ends
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

"""Users' statements on a server: `python -m atlas.server.worker ADDRESS STATE` (see atlas.worker).

A statement is checked by the server's own plan (atlas.server.guard), runs in a READ transaction with a timeout, and its
answer counts only where the atlas is still in STATE afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atlas.address import ServerAddress
from atlas.errors import AtlasError, LockedAtlas, QueryRefused, QueryTimeout, QueryTooLarge
from atlas.server.connect import Connection
from atlas.server.errors import translated
from atlas.server.guard import PLANS, check_statement
from atlas.server.store import STATE, changed
from atlas.server.values import plain
from atlas.worker import Execute, Failed, serve

if TYPE_CHECKING:
    from neo4j import Result

FETCH = 1000  # records that the server sends at a time
_KINDS: tuple[tuple[type[AtlasError], str], ...] = (
    (QueryRefused, "refused"),
    (QueryTimeout, "timeout"),
    (QueryTooLarge, "memory"),
    (LockedAtlas, "locked"),
    (AtlasError, "engine"),
)


def connect(address: str, state: str) -> Execute:
    """Connect to the server; returns what runs a statement on it."""
    connection = Connection(ServerAddress.parse(address))
    try:
        # Reached now, so that a server out of reach is the start's error and not the first statement's.
        connection.driver  # noqa: B018
    except AtlasError as error:
        raise _failed(error) from None

    @contextmanager
    def execute(request: dict[str, Any]) -> Iterator[tuple[list[str], Iterator[list[Any]]]]:
        try:
            with (
                connection.session(default_access_mode="READ", fetch_size=FETCH) as session,
                translated(connection.address),
                session.begin_transaction(timeout=request["timeout"]) as tx,
            ):
                check_statement(tx, request["text"])
                result = tx.run(request["text"], request["parameters"])
                yield list(result.keys()), _rows(result)
                # The look at the text sees EXPLAIN only at its beginning, and a comment may stand before it.
                if result.consume().plan is not None:
                    raise QueryRefused(PLANS)
                if [row["state"] for row in tx.run(STATE).data()] != [state]:
                    raise changed(connection.address)
        except AtlasError as error:
            raise _failed(error) from None

    return execute


def _rows(result: Result) -> Iterator[list[Any]]:
    for record in result:
        yield [plain(value, name) for name, value in zip(record.keys(), record.values(), strict=True)]


def _failed(error: AtlasError) -> Failed:
    return Failed(next(kind for type_, kind in _KINDS if isinstance(error, type_)), str(error))


if __name__ == "__main__":
    serve(lambda: connect(*sys.argv[1:]))

"""Users' statements on an embedded graph: `python -m atlas.embedded.worker DATABASE BUFFER_BYTES` (see atlas.worker).

The database is opened read-only; then the process gives up what it does not need: no file may be opened or written any
more.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atlas.embedded.engine import without_asyncio
from atlas.embedded.file import mapped_sizes
from atlas.embedded.guard import guard
from atlas.embedded.statement.run import executed, prepared, rows_of
from atlas.embedded.values import explained
from atlas.errors import QueryError, QueryRefused
from atlas.worker import Execute, Failed, serve

if TYPE_CHECKING:
    import ladybug


def connect(path: str, buffer_bytes: str) -> Execute:
    """Open the database; returns what runs a statement on it."""
    without_asyncio()
    import ladybug

    try:
        database = ladybug.Database(path, read_only=True, max_num_threads=2, **mapped_sizes(int(buffer_bytes)))
        _warm(database)
    except RuntimeError as error:
        raise Failed("engine", str(error)) from None
    # Nothing can be opened or connected to from here on, whatever a statement makes the engine try.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))

    @contextmanager
    def execute(request: dict[str, Any]) -> Iterator[tuple[list[str], Iterator[list[Any]]]]:
        # A connection a statement: its cache of prepared statements would grow without end.
        connection = ladybug.Connection(database)
        try:
            prepared(connection)
            connection.set_query_timeout(max(1, int(request["timeout"] * 1000)))
            given = request["parameters"]
            plan = guard(request["text"], given)
            rows = rows_of(plan, given, lambda text, own: executed(connection, text, own), request["limit"])
            yield list(plan.columns), rows
        except QueryRefused as error:
            raise Failed("refused", str(error)) from None
        except QueryError as error:
            raise Failed("engine", str(error)) from None
        except RuntimeError as error:
            message = str(error)
            interrupted = message.startswith("Interrupted")
            kind = "timeout" if interrupted else "memory" if "Buffer manager" in message else "engine"
            raise Failed(kind, f"the graph cannot answer this: {explained(message)}") from None
        finally:
            connection.close()

    return execute


def _warm(database: ladybug.Database) -> None:
    """Let the engine import what its values need while files can still be opened."""
    import datetime  # noqa: F401
    import decimal  # noqa: F401
    import random  # noqa: F401
    import uuid  # noqa: F401

    import ladybug

    connection = ladybug.Connection(database)
    connection.execute("UNWIND [1, 2] AS x RETURN sum(x), avg(x), collect({x: x})").get_all()
    connection.execute("MATCH (n) RETURN n LIMIT 1").get_all()
    connection.close()


if __name__ == "__main__":
    serve(lambda: connect(*sys.argv[1:]))

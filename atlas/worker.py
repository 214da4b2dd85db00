"""The process that runs users' statements: `python -m atlas.worker DATABASE BUFFER_BYTES`, started by atlas.bounded.

It opens the database read-only, gives up what it does not need (no file may be opened or written any more), and answers
one JSON request a line on stdin with JSON lines on stdout:

    {"text", "parameters", "limit", "timeout", "max_bytes"}
    → {"columns": […]} {"rows": [[…], …]} … {"more": bool}   or at any point   {"error": kind, "message": text}

It ends when its parent does, and by the kernel's alarm when a statement outlives its timeout, whatever the engine does.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
import time
from typing import IO, Any

import ladybug

from atlas.plain import converters, plain_row

GRACE = 1.0  # seconds past its timeout after which the kernel ends this process
_BATCH = 1 << 18  # characters of rows a line


def main(path: str, buffer_bytes: str) -> None:
    """Answer requests until stdin ends."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What the engine may print must not mix with the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    try:
        database = ladybug.Database(path, read_only=True, buffer_pool_size=int(buffer_bytes), max_num_threads=2)
        _warm(database)
    except RuntimeError as error:
        _send(out, {"error": "engine", "message": str(error)})
        return
    # Nothing can be opened, written or connected to from here on, whatever a statement makes the engine try.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _send(out, {"ready": True})
    while True:
        _answer(database, json.loads(requests.get()), out)


def _listen(requests: queue.SimpleQueue[str]) -> None:
    """Hand on requests; when the parent is gone, so is this process, even in the middle of a statement."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _warm(database: ladybug.Database) -> None:
    """Let the engine import what its values need while files can still be opened."""
    import datetime  # noqa: F401
    import decimal  # noqa: F401
    import uuid  # noqa: F401

    connection = ladybug.Connection(database)
    connection.execute("UNWIND [1, 2] AS x RETURN sum(x), avg(x), collect({x: x})").get_all()
    connection.execute("MATCH (n) RETURN n LIMIT 1").get_all()
    connection.close()


def _answer(database: ladybug.Database, request: dict[str, Any], out: IO[str]) -> None:
    """Run one statement and send its rows."""
    deadline = time.monotonic() + request["timeout"]
    signal.setitimer(signal.ITIMER_REAL, request["timeout"] + GRACE)
    # A connection a statement: its cache of prepared statements would grow without end.
    connection = ladybug.Connection(database)
    try:
        connection.set_query_timeout(max(1, int(request["timeout"] * 1000)))
        result = connection.execute(request["text"], request["parameters"])
        if isinstance(result, list):
            _send(out, {"error": "refused", "message": "the engine took this for several statements"})
            return
        _stream(result, request, deadline, out)
    except RuntimeError as error:
        message = str(error)
        kind = "timeout" if message.startswith("Interrupted") else "memory" if "Buffer manager" in message else "engine"
        _send(out, {"error": kind, "message": message})
    except MemoryError:
        _send(out, {"error": "memory", "message": "out of memory"})
    finally:
        connection.close()
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stream(result: ladybug.QueryResult, request: dict[str, Any], deadline: float, out: IO[str]) -> None:
    """Send columns and rows until the limit, the deadline or the cap on bytes."""
    _send(out, {"columns": result.get_column_names()})
    convert = converters(result.get_column_data_types())
    rows: list[str] = []
    count = size = held = 0
    while result.has_next() and not 0 < request["limit"] <= count:
        row = json.dumps(plain_row(result.get_next(), convert), ensure_ascii=False, separators=(",", ":"))
        count, size, held = count + 1, size + len(row), held + len(row)
        rows.append(row)
        if size > request["max_bytes"]:
            _send(out, {"error": "bytes", "message": ""})
            return
        if time.monotonic() > deadline:
            _send(out, {"error": "timeout", "message": ""})
            return
        if held > _BATCH:
            out.write(f'{{"rows":[{",".join(rows)}]}}\n')
            rows, held = [], 0
    out.write(f'{{"rows":[{",".join(rows)}]}}\n')
    _send(out, {"more": result.has_next()})


def _send(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

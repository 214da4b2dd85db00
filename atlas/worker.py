"""The process that runs users' statements: `python -m atlas.worker_ENGINE ARGUMENTS`, started by atlas.bounded.

It answers one JSON request a line on stdin with JSON lines on stdout:

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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, Any

GRACE = 1.0  # seconds past its timeout after which the kernel ends this process
_BATCH = 1 << 18  # characters of rows a line

# Runs a request's statement: columns and rows as plain values; leaving the context ends the statement. Raises Failed.
Execute = Callable[[dict[str, Any]], AbstractContextManager[tuple[list[str], Iterator[list[Any]]]]]


class Failed(Exception):
    """A statement that was not answered; its arguments are the kind (see atlas.bounded) and a message."""


def serve(connect: Callable[[], Execute]) -> None:
    """Connect, then answer requests until stdin ends."""
    # An ignored signal would be inherited, and a handler in Python runs only once the engine returns.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # An engine that crashes would leave its memory, up to gigabytes, as a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What the engine may print must not mix with the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    try:
        execute = connect()
    except Failed as error:
        _send(out, {"error": error.args[0], "message": error.args[1]})
        return
    # Whatever gets past a guard writes no file: COPY TO and EXPORT act in a read-only database as well.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _send(out, {"ready": True})
    while True:
        _answer(execute, json.loads(requests.get()), out)


def _listen(requests: queue.SimpleQueue[str]) -> None:
    """Hand on requests; when the parent is gone, so is this process, even in the middle of a statement."""
    for line in sys.stdin:
        requests.put(line)
    # sys.exit would end this thread alone, and the statement would go on.
    os._exit(0)


def _answer(execute: Execute, request: dict[str, Any], out: IO[str]) -> None:
    """Run one statement and send its rows."""
    deadline = time.monotonic() + request["timeout"]
    signal.setitimer(signal.ITIMER_REAL, request["timeout"] + GRACE)
    try:
        with execute(request) as (columns, rows):
            _send(out, {"columns": columns})
            more = _stream(rows, request, deadline, out)
        _send(out, {"more": more})
    except Failed as error:
        _send(out, {"error": error.args[0], "message": error.args[1]})
    except MemoryError:
        _send(out, {"error": "memory", "message": "out of memory"})
    finally:
        # Left set, the alarm would end this process while it waits for the next request.
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stream(found: Iterator[list[Any]], request: dict[str, Any], deadline: float, out: IO[str]) -> bool:
    """Send rows until the limit, the deadline or the cap on bytes; returns whether there are more."""
    rows: list[str] = []
    count = size = held = 0
    for values in found:
        # Looked at when one row more is there, so that `more` is known and not guessed.
        if 0 < request["limit"] <= count:
            out.write(f'{{"rows":[{",".join(rows)}]}}\n')
            return True
        row = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        count, size, held = count + 1, size + len(row), held + len(row)
        rows.append(row)
        if size > request["max_bytes"]:
            raise Failed("bytes", "")
        if time.monotonic() > deadline:
            raise Failed("timeout", "")
        if held > _BATCH:
            out.write(f'{{"rows":[{",".join(rows)}]}}\n')
            rows, held = [], 0
    out.write(f'{{"rows":[{",".join(rows)}]}}\n')
    return False


def _send(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()

"""Users' statements within bounds: a worker process runs them, and this side ends it when it passes one.

- Seconds: the engine's own timeout first, which it checks only now and then; then the process is ended, at most
  KILL_AFTER seconds later.
- Memory: the process is ended when its resident memory passes MAX_MEMORY (Linux; elsewhere the engine's page cache of
  half of it is the only bound).
- Rows and bytes: the worker counts them before it sends them.

The process starts at the first statement, serves further ones, and is started anew after it was ended.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from atlas.embedded.values import first_line
from atlas.errors import LockedAtlas, QueryError, QueryRefused, QueryTimeout, QueryTooLarge
from atlas.graph.store import Answer, Row

MAX_MEMORY = 2 << 30  # bytes of the worker's resident memory
KILL_AFTER = 1.5  # seconds past its timeout after which a statement's process is ended
START = 10.0  # seconds that the process may take to start
_POLL = 0.05  # seconds between looks at the process's memory


class BoundedReader:
    """A worker process for one graph; one statement at a time."""

    def __init__(
        self,
        worker: Sequence[str],
        *,
        descriptors: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        max_memory: int = MAX_MEMORY,
        outlived: str = "",
    ) -> None:
        """worker: its module and arguments. descriptors: open files that it inherits. environment: variables that are
        set for it. outlived: what to say of a statement that had to be ended from outside."""
        self._worker = tuple(worker)
        self._descriptors = tuple(descriptors)
        self._environment = dict(environment or {})
        self._max_memory = max_memory
        self._outlived = outlived
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def query(
        self,
        text: str,
        parameters: Mapping[str, Any],
        *,
        columns: Callable[[list[str]], list[str]] = list,
        limit: int,
        timeout: float,
        max_bytes: int,
    ) -> Answer:
        """Rows of a statement, at most `limit` (0: all) and `max_bytes` of JSON, within `timeout` seconds.

        `columns` turns the engine's names of the columns into those of the answer.
        Raises QueryTimeout, QueryTooLarge, QueryRefused, LockedAtlas or QueryError, at most KILL_AFTER seconds past
        the timeout.
        """
        # So written, NaN is refused too.
        if not 0 < timeout < 1e6:
            raise QueryError(f"a timeout of {timeout} is not possible; give seconds above 0")
        bounds = {"limit": limit, "timeout": timeout, "max_bytes": max_bytes}
        try:
            # json would escape a lone surrogate without a word, and the engine would be given it.
            text.encode()
        except UnicodeEncodeError as error:
            raise QueryError(f"the statement is not Unicode text ({error})") from None
        try:
            request = {"text": text, "parameters": _sendable(dict(parameters)), **bounds}
            # Python's parser on the other side would take NaN, which is no JSON.
            line = json.dumps(request, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise QueryError(f"parameters are JSON values: text, numbers, lists, maps ({error})") from None
        with self._lock:
            process = self._started()
            answered = False
            try:
                answer = _Answer(columns, timeout, max_bytes)
                for message in self._messages(process, line, timeout + KILL_AFTER):
                    answered = answer.ends_with(message)
                    if answered:
                        return answer.result()
                raise self._death(process, timeout)
            except TimeoutError:
                raise self._ended(timeout) from None
            finally:
                # An answer half read, after Ctrl-C too, must not meet the next statement; nor must a swollen process.
                if not answered or _memory(process) > self._max_memory // 2:
                    self._end()

    def close(self) -> None:
        """End the process; idempotent."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        """The process, running and ready."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        # The rest stays here: what runs a stranger's statement inherits no password or token by accident.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
        # Absolute, since the process starts in `/`; -P keeps that folder itself off its path.
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", *self._worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=kept | self._environment,
            pass_fds=self._descriptors,
            # Ctrl-C in a terminal goes to the parent alone, which ends this process itself.
            start_new_session=True,
        )
        first = {"error": "engine", "message": "it did not start"}
        with suppress(TimeoutError):
            first = next(self._messages(process, b"", START), first)
        if "error" in first:
            self._end()
            raise QueryError(f"the process that runs statements could not open the graph: {first['message']}")
        return process

    def _messages(self, process: subprocess.Popen[bytes], line: bytes, seconds: float) -> Iterator[dict[str, Any]]:
        """Send a line and yield the messages that come back until the process ends.

        Raises TimeoutError after so many seconds, QueryTooLarge when the process holds too much memory.
        """
        assert process.stdin is not None and process.stdout is not None
        end = time.monotonic() + seconds
        pending = [b""]
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError:
                return
            while True:
                # In every round, not only when nothing came: who keeps sending must not outlive the time either.
                if time.monotonic() > end:
                    raise TimeoutError
                if _memory(process) > self._max_memory:
                    raise QueryTooLarge(f"the statement needs more than {_mib(self._max_memory)} of memory; {_NARROW}")
                if not selector.select(_POLL):
                    continue
                # Past the file object: select knows the pipe, and nothing of what a buffer would already hold.
                piece = os.read(process.stdout.fileno(), 1 << 20)
                if not piece:
                    return
                *lines, rest = piece.split(b"\n")
                if lines:
                    lines[0] = b"".join(pending) + lines[0]
                    pending = []
                # Pieces of a long line are joined once, at its end: joining each time costs the square of its length.
                pending.append(rest)
                yield from map(json.loads, lines)

    def _death(self, process: subprocess.Popen[bytes], timeout: float) -> QueryError:
        """What the end of the process in the middle of a statement means."""
        self._end()
        # The worker's own alarm comes before this side's clock: its grace is shorter than KILL_AFTER.
        if process.returncode == -signal.SIGALRM:
            return self._ended(timeout)
        return QueryError(
            "the engine failed on this statement and its process ended (the graph is unharmed); simplify it"
        )

    def _ended(self, timeout: float) -> QueryTimeout:
        return QueryTimeout(f"the statement did not end within {timeout:g} s{self._outlived}; {_NARROW}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Nothing gentler: an engine in the middle of an expression does not listen.
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()


def _sendable(value: Any) -> Any:
    """The value; raises ValueError where text in it is not Unicode, or a number has more than a graph's 64 bits."""
    if isinstance(value, str):
        value.encode()
    if isinstance(value, dict):
        return {_sendable(name): _sendable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sendable(item) for item in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} has more than 64 bits")
    return value


_NARROW = "narrow its patterns, bound their length, or use LIMIT"


class _Answer:
    """The answer to one statement, put together from the worker's messages."""

    def __init__(self, columns: Callable[[list[str]], list[str]], timeout: float, max_bytes: int) -> None:
        self._names = columns
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._message: dict[str, Any] = {}
        self._columns: list[str] = []
        self._rows: list[Row] = []

    def ends_with(self, message: dict[str, Any]) -> bool:
        """Take in a message; True if it is the last one."""
        if "columns" in message:
            self._columns = self._names(message["columns"])
        elif "rows" in message:
            self._rows += [dict(zip(self._columns, row, strict=True)) for row in message["rows"]]
        self._message = message
        return "more" in message or "error" in message

    def result(self) -> Answer:
        """The answer; raises the error that the worker reported."""
        match self._message.get("error"):
            case None:
                return Answer(self._columns, self._rows, self._message["more"])
            case "timeout":
                raise QueryTimeout(f"the statement did not end within {self._timeout:g} s; {_NARROW}")
            case "bytes":
                raise QueryTooLarge(f"the rows exceed {_mib(self._max_bytes)}; return fewer columns or use LIMIT")
            case "memory":
                raise QueryTooLarge(f"the statement needs too much memory; {_NARROW}")
            case "refused":
                raise QueryRefused(self._message["message"])
            case "locked":
                raise LockedAtlas(self._message["message"])
            case _:
                raise QueryError(first_line(self._message["message"]))


def _memory(process: subprocess.Popen[bytes]) -> int:
    """Resident memory in bytes; 0 where the system does not tell."""
    try:
        with open(f"/proc/{process.pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _mib(size: int) -> str:
    return f"{size / (1 << 20):g} MiB"

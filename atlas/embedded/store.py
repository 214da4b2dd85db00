"""The embedded store: every state of the graph is one LadybugDB file in the atlas's folder.

`publish` builds a new file in a folder of its own beside the current one and renames it when it is complete and on
disk, so that a crash leaves only what the next `publish` removes. Readers hold the file that they opened, also after
`retire`.
The engine raises bare RuntimeErrors; they are translated here.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.embedded.engine import database
from atlas.embedded.file import engine_path, fingerprint, mapped_sizes, open_checked, state_path
from atlas.embedded.guard import guard
from atlas.embedded.statement.run import executed, prepared, rows_of
from atlas.embedded.values import explained, first_line
from atlas.errors import CorruptAtlas, FolderError, NotAnAtlas, QueryError
from atlas.graph.store import Answer, Graph, Row

if TYPE_CHECKING:
    import ladybug

    from atlas.bounded import BoundedReader
    from atlas.cli.progress import Advance
    from atlas.folder.manifest import Manifest

BUFFER = 1 << 30  # bytes of the engine's page cache while reading
LOADING = 2 << 30  # the same while loading: what of a graph with eighty edges a feature is changed by one COPY


class LadybugStore:
    """The graph in one state, in a folder. Opened at its first use; may be used by several threads."""

    def __init__(self, folder: Path, state: str | None, expected: Mapping[str, Any] | None = None) -> None:
        """`state`: the one to read, None where there is none yet. `expected`: the fingerprint recorded for it."""
        self.folder = folder
        self.state = state
        self.expected = expected
        self._lock = threading.RLock()
        self._descriptor: int | None = None
        self._database: ladybug.Database | None = None
        self._connection: ladybug.Connection | None = None
        self._reader: BoundedReader | None = None

    @property
    def about(self) -> str:
        """The store in a few words."""
        return "embedded (LadybugDB)"

    def writing(self) -> AbstractContextManager[None]:
        """Nothing more: who writes here holds the folder's lock (atlas.folder.lock)."""
        return nullcontext()

    def publish(self, graph: Graph, *, progress: Advance | None = None) -> dict[str, Any]:
        """Write a new state; the current one stays until `retire`. Returns its file's fingerprint.

        `progress` is called with the number of features and edges written since the last call. Raises IngestError where
        the graph's tables are not of the schema, FolderError where the state cannot be written, e.g. on a full disk.
        """
        building = self.folder / f"graph-{graph.state}.building"
        try:
            self._remove("graph-*.building")
            building.mkdir(parents=True)
            _build(building / "graph.lbdb", graph, progress)
            os.replace(building / "graph.lbdb", state_path(self.folder, graph.state))
            _sync(self.folder)
        except (OSError, RuntimeError) as error:
            raise FolderError(
                f"the graph could not be written to {self.folder} ({first_line(error)}); the atlas keeps its last "
                "state; see that the disk has room, then repeat the command"
            ) from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return fingerprint(state_path(self.folder, graph.state))

    def searchable(self) -> bool:
        """False: rows are in the folder, where they are searched exactly."""
        return False

    def full_text(self, words: Sequence[str]) -> str | None:
        """None: the folder has an index of words beside the graph."""
        return None

    def retire(self, keep: str) -> None:
        """Remove every other state and what unfinished ones have left; raises FolderError where that fails."""
        try:
            self._remove("graph-*", state_path(self.folder, keep))
        except OSError as error:
            raise FolderError(f"old states in {self.folder} could not be removed ({error})") from None

    def check_replaceable(self, manifest: Manifest) -> None:
        """Nothing: the folder's lock and manifest are one with its graph."""

    def present(self) -> bool:
        """Whether the state's file is there; raises CorruptAtlas where it is damaged."""
        if not (self.state and state_path(self.folder, self.state).exists()):
            return False
        self.open()
        return True

    def open(self) -> None:
        """Check the state's file and hold it; done by the first question, if not before.

        Raises NotAnAtlas where there is no state, CorruptAtlas where its file is missing or damaged.
        """
        with self._lock:
            self._held()

    def read(self, cypher: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of one of the project's own statements, which pass the guard too.

        Raises QueryError where the engine cannot answer it, CorruptAtlas where the graph cannot be opened.
        """
        given = dict(parameters or {})
        plan = guard(cypher, given, trusted=True)
        with self._lock:
            connection = self._opened()
            with _translated():
                rows = rows_of(plan, given, lambda text, own: executed(connection, text, own))
                return [dict(zip(plan.columns, row, strict=True)) for row in rows]

    def read_each(self, cypher: str, parameters: Sequence[Mapping[str, Any]]) -> list[list[Row]]:
        """Rows of one of the project's own statements for each of these parameters."""
        return [self.read(cypher, each) for each in parameters]

    def query(
        self,
        cypher: str,
        parameters: Mapping[str, Any],
        *,
        limit: int = 0,
        timeout: float = 30.0,
        max_bytes: int = 64 << 20,
    ) -> Answer:
        """Rows of a user's statement, run in a process of its own that is ended at its bounds (see atlas.bounded)."""
        given = dict(parameters)
        plan = guard(cypher, given)
        with self._lock:
            if self._reader is None:
                from atlas.bounded import MAX_MEMORY, BoundedReader

                descriptor, path = self._held()
                worker = ("atlas.embedded.worker", path, str(MAX_MEMORY // 2))
                self._reader = BoundedReader(worker, descriptors=(descriptor,))
            reader = self._reader
        names = list(plan.columns)
        return reader.query(cypher, given, columns=lambda _: names, limit=limit, timeout=timeout, max_bytes=max_bytes)

    def close(self) -> None:
        """Let go of the file and end the worker process; idempotent."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            if self._connection is not None:
                self._connection.close()
            if self._database is not None:
                self._database.close()
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._reader = self._connection = self._database = self._descriptor = None

    def _held(self) -> tuple[int, str]:
        """The descriptor of the state's file, and the path by which the engine opens it."""
        if self.state is None:
            raise NotAnAtlas(f"{self.folder} holds no graph yet; ingest a dictionary first")
        path = state_path(self.folder, self.state)
        if self._descriptor is None:
            self._descriptor = open_checked(path, self.expected)
        return self._descriptor, engine_path(self._descriptor, path)

    def _opened(self) -> ladybug.Connection:
        if self._connection is None:
            descriptor, path = self._held()
            import ladybug

            try:
                sizes = mapped_sizes(BUFFER, os.fstat(descriptor).st_size)
                self._database = database(path, read_only=True, max_num_threads=2, **sizes)
                self._connection = prepared(ladybug.Connection(self._database))
            except RuntimeError as error:
                where = state_path(self.folder, str(self.state))
                raise CorruptAtlas(
                    f"the graph {where} cannot be read ({first_line(error)}); repeat the ingest"
                ) from None
        return self._connection

    def _remove(self, pattern: str, keep: Path | None = None) -> None:
        for path in self.folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            elif path != keep:
                path.unlink(missing_ok=True)


def _build(path: Path, graph: Graph, progress: Advance | None) -> None:
    """Write a complete database file and see it onto the disk."""
    import ladybug

    from atlas.embedded.load import create_tables, load

    made = database(path, auto_checkpoint=False, **mapped_sizes(LOADING))
    try:
        connection = ladybug.Connection(made)
        create_tables(connection)
        load(connection, graph, path.parent, progress)
        connection.execute("CHECKPOINT")
        connection.close()
    finally:
        made.close()
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise QueryError(f"the graph cannot answer this: {explained(first_line(error))}") from None

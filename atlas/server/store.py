"""The store on a server: a Neo4j database that holds one atlas.

There is one graph and it is changed in place (atlas.server.write), so a reader makes sure that it reads a whole state:
the Atlas node names the state, has none while it is being written, and is looked at in every transaction after the
answer.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from atlas.address import ServerAddress
from atlas.bounded import BoundedReader
from atlas.errors import AtlasError, CorruptAtlas, LockedAtlas, NotAnAtlas, QueryError, StoreError
from atlas.graph.store import Answer, Graph, Row
from atlas.schema import ATLAS, DICTIONARY
from atlas.server.connect import WRITE_RETRIES, Connection, environment
from atlas.server.errors import translated
from atlas.server.values import plain

if TYPE_CHECKING:
    from neo4j import ManagedTransaction, Session

    from atlas.folder.dictionary import Dictionary, Rows
    from atlas.folder.manifest import Manifest
    from atlas.server.lock import Claim

_log = logging.getLogger(__name__)

# Neo4j looks at a transaction's timeout between rows, not within an expression.
OUTLIVED = ", and the server has not ended it yet (it looks at the time between rows, not within one expression)"
SEARCHABLE = f"MATCH (d:{DICTIONARY}) RETURN d.vectors = d.rows_sha256 AS same"
STATE = f"MATCH (a:{ATLAS}) RETURN a.id AS id, a.state AS state, a.base AS base, a.indexed AS indexed"


class Neo4jStore:
    """The graph in one state, in a database. Connected at its first use; may be used by several threads."""

    def __init__(self, address: ServerAddress, atlas: str | None = None, state: str | None = None) -> None:
        """`atlas`, `state`: the atlas and its state to read, as a manifest records them; None: whatever is there."""
        self.address = address
        self.atlas = atlas
        self.state = state
        self._lock = threading.RLock()
        self._connection = Connection(address)
        self._session: Session | None = None
        self._reader: BoundedReader | None = None
        self._claim: Claim | None = None
        self._has_words: bool | None = None  # whether the full-text index is there; None: not looked at

    @property
    def about(self) -> str:
        """The store in a few words."""
        return f"Neo4j {self._connection.version} at {self.address}".replace("  ", " ")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the database against every other writer; raises LockedAtlas with the one that has it."""
        from atlas.server.lock import claimed

        connection = Connection(self.address, retries=WRITE_RETRIES, beside=self._connection)
        # Reached once without repeating: a server that is down at the start is a matter for the user.
        connection.driver  # noqa: B018
        try:
            with claimed(connection) as self._claim:
                yield
        finally:
            self._claim = None
            connection.close()

    def publish(self, graph: Graph, *, progress: Callable[[int], Any] | None = None) -> None:
        """Make the database hold exactly this graph; what is there already is kept (see atlas.server.write).

        `progress` is called with the number of features and edges written since the last call. Raises StoreError where
        the database holds another atlas or the server cannot do it, LockedAtlas where the right to write was lost.
        """
        from atlas.server.write import write_graph

        if self._claim is None:
            raise StoreError("a graph is published within `writing`")
        write_graph(self._claim, graph, progress)

    def add(
        self,
        records: Sequence[Dictionary],
        rows_of: Callable[[str], Rows],
        *,
        dressed: bool,
        vectors: bool,
        progress: Callable[[int], Any],
    ) -> None:
        """Within `writing`: a second label and edges to look at, decoder rows to search (atlas.server.extras)."""
        from atlas.server.extras import dress, write_vectors

        if self._claim is None:
            raise StoreError("what belongs to a graph is written within `writing`")
        if dressed:
            dress(self._claim, records, progress)
        if vectors:
            write_vectors(self._claim, records, rows_of, progress)

    def searchable(self) -> bool:
        """Whether every feature's decoder row is there, under an index (`copy --vectors`)."""
        return all(row["same"] for row in self.read(SEARCHABLE))

    def full_text(self, words: Sequence[str]) -> str | None:
        """A query of the full-text index that finds all features with these words, and others; None to do without."""
        from atlas.server.schema import full_text_query, has_words

        found = full_text_query(words)
        if found is not None and self._has_words is None:
            self._has_words = has_words(self._connection)
        return found if self._has_words else None

    def retire(self, keep: str) -> None:
        """Nothing: a database has one state."""

    def state_to_replace(self) -> str | None:
        """The state that a write would replace: the one there, or the one that a broken-off write began from."""
        found = self._atlas()
        state: str | None = found["state"] or found["base"]
        return state

    def check_replaceable(self, manifest: Manifest) -> None:
        """Raise StoreError where a write would replace a state that is not this manifest's, and so lose it.

        Its own are the one that it names and those that its folder began to write since. That a folder wrote a state is
        no reason to replace it: a copy or a backup of the folder, from before that state, would pass for it.
        """
        if self.state_to_replace() in (None, manifest.state, *manifest.pending):
            return
        if self._atlas()["state"] is None:
            raise StoreError(
                f"a write to {self.address} from another folder was broken off; repeat its command there; where that "
                "folder is gone, empty the database, then repeat this command"
            )
        raise StoreError(
            f"{self.address} was written to from another folder, or set back: it holds a state that this folder does "
            f"not know and that would be lost; take it on with: feature-atlas init NEWDIR --store {self.address}, and "
            "repeat the command with -a NEWDIR; or empty the database"
        )

    def present(self) -> bool:
        """Whether the state is there, whole; raises StoreError where the database holds another atlas."""
        return self.state is not None and self._atlas()["state"] == self.state

    def _atlas(self) -> dict[str, Any]:
        """What the Atlas node says; raises StoreError where it is another atlas's."""
        for found in self._connection.read(STATE):
            if self.atlas not in (None, found["id"]):
                self._refuse(found)
            return found
        return {"state": None, "base": None}

    def open(self) -> None:
        """Check that the state is there; done by the first question, if not before.

        Raises NotAnAtlas, LockedAtlas where it is being written, CorruptAtlas where it is not the one recorded,
        StoreError where the server cannot be reached.
        """
        with self._lock:
            self._opened()

    def read(self, cypher: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of one of the project's own statements."""
        return self.read_each(cypher, [parameters or {}])[0]

    def read_each(self, cypher: str, parameters: Sequence[Mapping[str, Any]]) -> list[list[Row]]:
        """Rows of one of the project's own statements for each of these parameters, in one transaction."""
        with self._lock:
            session = self._opened()
            with translated(self.address):
                answers, found = session.execute_read(_answers, cypher, [dict(each) for each in parameters])
            self._check(found)
            return answers

    def query(
        self,
        cypher: str,
        parameters: Mapping[str, Any],
        *,
        limit: int = 0,
        timeout: float = 30.0,
        max_bytes: int = 64 << 20,
    ) -> Answer:
        """Rows of a user's statement, run from a process of its own that is ended at its bounds (see atlas.bounded)."""
        # As the embedded store does. The server names a parameter without a value itself.
        unknown = sorted(name for name in parameters if not _has_parameter(cypher, name))
        if unknown:
            raise QueryError(f"the statement has no parameter ${unknown[0]}")
        with self._lock:
            self._opened()
            if self._reader is None:
                arguments = ("atlas.server.worker", str(self.address), str(self.state))
                self._reader = BoundedReader(arguments, environment=environment(), outlived=OUTLIVED)
            reader = self._reader
        # Outside the lock: a user's statement may take long, and reads of other threads need not wait for it.
        return reader.query(cypher, parameters, limit=limit, timeout=timeout, max_bytes=max_bytes)

    def close(self) -> None:
        """Let go of the server and end the worker process; idempotent."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            if self._session is not None:
                self._session.close()
            self._connection.close()
            self._reader = self._session = None

    def _opened(self) -> Session:
        if self._session is None:
            found = self._connection.read(STATE)
            if not found:
                raise NotAnAtlas(
                    f"{self.address} holds no atlas; fill it with: feature-atlas copy --to {self.address}, or from a "
                    f"folder made by: feature-atlas init DIR --store {self.address}"
                )
            if len(found) > 1 or self.atlas not in (None, found[0]["id"]):
                self._refuse(found[0])
            if found[0]["state"] is None:
                raise self._unfinished()
            if self.state not in (None, found[0]["state"]):
                # Between the server's new state and the folder that names it: its writer is there still.
                raise self._written_to() or CorruptAtlas(
                    f"{self.address} holds another state of this atlas than its folder; where an ingest or label of "
                    "this folder was broken off, repeat it; where another folder wrote there, take its atlas on with: "
                    f"feature-atlas init NEWDIR --store {self.address}"
                )
            if not found[0]["indexed"]:
                self._index()
            self.state = found[0]["state"]
            self._session = self._connection.session(default_access_mode="READ")
        return self._session

    def _index(self) -> None:
        """Make the indexes of a database that was imported in bulk; who may only read goes without."""
        from atlas.server.schema import check_owner, create_schema

        try:
            check_owner(self._connection)
            create_schema(self._connection)
        except AtlasError as error:
            _log.warning("%s has no indexes, and they could not be made: answers are slow (%s)", self.address, error)

    def _check(self, found: list[dict[str, Any]]) -> None:
        if [row["state"] for row in found] != [self.state]:
            raise changed(self.address)

    def _refuse(self, found: dict[str, Any]) -> None:
        raise StoreError(
            f"{self.address} holds another atlas (id {found['id']}) than this folder (id {self.atlas}); name another "
            f"--database or server, or read that one with -a {self.address}"
        )

    def _written_to(self) -> LockedAtlas | None:
        """The error for what somebody writes to now; None where nobody does."""
        from atlas.server.lock import current_writer

        who = current_writer(self._connection)
        return LockedAtlas(f"{self.address} is being written to by {who}; wait until it is done") if who else None

    def _unfinished(self) -> LockedAtlas:
        if (error := self._written_to()) is not None:
            return error
        # It may have ended between the two looks: then nothing was broken off.
        if any(row["state"] is not None for row in self._connection.read(STATE)):
            return changed(self.address)
        return LockedAtlas(
            f"the last write to {self.address} was broken off; repeat its command: what is there is kept (where its "
            "folder is gone, empty the database and write the atlas there anew)"
        )


def _has_parameter(cypher: str, name: str) -> bool:
    """Whether it may have a parameter of that name; with escapes or comments within, it may have any."""
    written = f"(?:{re.escape(name)}(?!\\w)|`{re.escape(name.replace('`', '``'))}`)"
    return "\\u" in cypher or "/*" in cypher or re.search(rf"\$\s*{written}", cypher) is not None


def changed(address: ServerAddress) -> LockedAtlas:
    """The error for an answer taken while the graph was being changed."""
    return LockedAtlas(f"{address} was written to while this was read; repeat the command")


def _answers(
    tx: ManagedTransaction, cypher: str, parameters: list[dict[str, Any]]
) -> tuple[list[list[Row]], list[dict[str, Any]]]:
    """The rows for each of the parameters, and then what the Atlas node says."""
    answers = []
    for each in parameters:
        result = tx.run(cypher, each)
        columns = result.keys()
        answers.append([dict(zip(columns, map(plain, record), strict=True)) for record in result])
    # Last, in the same transaction: what others commit meanwhile shows in a reading one.
    return answers, tx.run(STATE).data()

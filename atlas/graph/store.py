"""The contract that every graph store keeps. Nothing of an engine shows through it.

A store holds one state of the graph, exchanged as a whole: `publish` is given everything the graph shall hold and the
name of the new state; the caller records that name in the manifest (one atomic rename), and `retire` then drops what
the manifest no longer names. A reader sees one state, whole, or is told that another is being written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from atlas.folder.manifest import Manifest

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """The edges between the features of two dictionaries: always written whole."""

    type: str  # edge type
    key: str  # names the content, as the pair in MATCHED does: equal keys, equal edges
    later: str  # dictionary id
    earlier: str  # dictionary id
    table: pa.Table  # columns `later`, `earlier` (rows of the two), then the type's properties (atlas.graph.tables)


class Graph(Protocol):
    """Everything a graph shall hold, produced part by part so that it never stands in memory at once."""

    @property
    def state(self) -> str:
        """Names this state of the graph; its Atlas node says so too."""
        ...

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables with the columns of schema.NODES for that label, in that order."""
        ...

    def pairs(self) -> pa.Table:
        """The edges MATCHED between dictionaries, one for each batch: `later`, `earlier` (ids) and the properties."""
        ...

    def edges(self, type_: str) -> Iterator[Batch]:
        """Batches of that type of edges between features."""
        ...


@dataclass(frozen=True)
class Answer:
    """Rows of a user's query."""

    columns: list[str]
    rows: list[Row]
    more: bool  # whether rows beyond the limit were cut off


class Store(Protocol):
    """A graph in one state."""

    @property
    def about(self) -> str:
        """The store in a few words, for people."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Hold the right to write, against every other writer; raises LockedAtlas with the one that has it."""
        ...

    def publish(self, graph: Graph, *, progress: Any = None) -> dict[str, Any] | None:
        """Make the store hold exactly this graph, within `writing`. Atomic, or repeatable with the same result.

        `progress`, where given, is called with the number of features and edges written since the last call. Returns
        what a manifest records of the state so that it is known again when it is opened, where the store has such a
        thing.
        """
        ...

    def searchable(self) -> bool:
        """Whether the store finds the nearest decoder rows itself."""
        ...

    def full_text(self, words: Sequence[str]) -> str | None:
        """A query of the index `feature_words` that finds all features with these words, and others.

        None where the store has no such index, or where looking at every feature takes less time.
        """
        ...

    def retire(self, keep: str) -> None:
        """Drop every state but this one."""
        ...

    def check_replaceable(self, manifest: Manifest) -> None:
        """Raise StoreError where a write would replace a state that is not this manifest's, and so lose it."""
        ...

    def present(self) -> bool:
        """Whether the state is there, whole; raises CorruptAtlas where it is damaged."""
        ...

    def open(self) -> None:
        """Check the state and hold it, so that it can be read also after another was published; idempotent.

        Raises NotAnAtlas where there is none, CorruptAtlas where it is missing or damaged.
        """
        ...

    def read(self, cypher: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of one of the project's own read-only statements."""
        ...

    def read_each(self, cypher: str, parameters: Sequence[Mapping[str, Any]]) -> list[list[Row]]:
        """The same for each of several values of its parameters, in their order, in one transaction."""
        ...

    def query(
        self, cypher: str, parameters: Mapping[str, Any], *, limit: int, timeout: float, max_bytes: int
    ) -> Answer:
        """Rows of a user's statement: read-only, bounded in rows (0: all), seconds and bytes.

        Raises QueryRefused, QueryTimeout, QueryTooLarge or, where the engine cannot answer it, QueryError.
        """
        ...

    def close(self) -> None:
        """Let go of the graph; idempotent."""
        ...

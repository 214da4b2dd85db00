"""The contract that every graph store keeps. Nothing of an engine shows through it.

A store holds one state of the graph, exchanged as a whole: `publish` is given everything the graph shall hold and
returns a token that names the new state; the caller records the token in the manifest (one atomic rename), and `retire`
then drops what the manifest no longer names. A reader that opened the old state keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """A part of an edge table that is always written whole, e.g. the matches of one pair."""

    type: str  # edge type, one of schema.EDGES
    key: str  # names the part's content: equal keys, equal rows
    table: pa.Table  # columns `later`, `earlier` (ids) and the properties of schema.EDGES, in that order


class Graph(Protocol):
    """Everything a graph shall hold, produced part by part so that it never stands in memory at once."""

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables with the columns of schema.NODES for that label, in that order."""
        ...

    def edges(self, type_: str) -> Iterator[Batch]:
        """Batches of that edge type."""
        ...


@dataclass(frozen=True)
class Answer:
    """Rows of a user's query."""

    columns: list[str]
    rows: list[Row]
    more: bool  # whether rows beyond the limit were cut off


class Store(Protocol):
    """A graph in one state."""

    def publish(self, graph: Graph, *, progress: Any = None) -> str:
        """Make the store hold exactly this graph; returns the token of the new state. Atomic or repeatable.

        `progress`, where given, is called with the number of edges written since the last call.
        """
        ...

    def retire(self, keep: str) -> None:
        """Drop every state but the one of this token."""
        ...

    def open(self) -> None:
        """Check the state and hold it, so that it can be read also after another was published; idempotent.

        Raises NotAnAtlas where there is none, CorruptAtlas where it is missing or damaged.
        """
        ...

    def read(self, cypher: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Rows of one of the project's own read-only statements."""
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

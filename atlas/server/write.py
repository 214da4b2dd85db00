"""A graph written to a Neo4j database, so that any step may be repeated or broken off.

1. The Atlas node's state becomes its `base`, until the end and however often the write is broken off: from here on
   readers are told that the graph is being written, and writers what would be lost (Neo4jStore.state_to_replace).
2. What the graph no longer holds is removed: dictionaries, and pairs whose matches have another key.
3. Nodes are merged by their ids, features where they have changed (atlas.server.features).
4. Edges are created in chunks that count themselves (atlas.server.edges). A first write makes the indexes then.
5. The Atlas node gets the new state.

What says that something is there, a pair's key or a dictionary's digest, goes before the thing and comes after it, so
that nothing half done is taken for whole, whichever write comes next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from atlas.graph.store import Graph
from atlas.graph.tables import conform
from atlas.schema import ATLAS, DICTIONARY, FEATURE, MATCHED, MODEL, RUN
from atlas.server.edges import EDGE_TYPES, Pairs, remove_pairs, write_edges
from atlas.server.features import remove_features, write_features
from atlas.server.lock import Claim
from atlas.server.schema import check_owner, create_schema, is_filled

if TYPE_CHECKING:
    import pyarrow as pa

BEGIN = f"""
MERGE (a:{ATLAS} {{id: $id}})
SET a.base = coalesce(a.state, a.base), a.state = null
"""
FINISH = f"MATCH (a:{ATLAS} {{id: $row.id}}) SET a += $row, a.base = null, a.indexed = true"


def write_graph(claim: Claim, graph: Graph, progress: Callable[[int], Any] | None) -> None:
    """Make the claimed database hold exactly this graph.

    `progress` is called with the number of features and edges written since the last call. Raises StoreError where the
    database holds another atlas or the server cannot do it, LockedAtlas where the claim was lost, IngestError where the
    graph's tables are not of the schema.
    """
    advance = _one_at_a_time(progress)
    (atlas,) = _rows(ATLAS, graph.nodes(ATLAS))
    check_owner(claim.connection, atlas["id"])
    filled = is_filled(claim.connection)
    create_schema(claim.connection, filled=filled)
    claim.run(BEGIN, id=atlas["id"])
    dictionaries = _rows(DICTIONARY, graph.nodes(DICTIONARY))
    pairs = _pairs(graph)
    # Edges first, in portions: deleting a feature would take all that are left of it into one transaction.
    remove_pairs(claim, pairs)
    remove_features(claim, {row["id"] for row in dictionaries})
    for label in (MODEL, RUN):
        _replace(claim, label, _rows(label, graph.nodes(label)))
    _replace(claim, DICTIONARY, dictionaries)
    write_features(claim, graph.nodes(FEATURE), advance)
    write_edges(claim, pairs, (batch for type_ in EDGE_TYPES for batch in graph.edges(type_)), advance)
    if not filled:
        create_schema(claim.connection)
    claim.run(FINISH, row=atlas)


def _replace(claim: Claim, label: str, rows: list[dict[str, Any]]) -> None:
    """Make these the label's only nodes."""
    ids = [row["id"] for row in rows]
    claim.run(f"MATCH (n:{label}) WHERE NOT n.id IN $ids DETACH DELETE n", ids=ids)
    # `+=` keeps what no row names: a dictionary's digest says that its features are there.
    claim.run(f"UNWIND $rows AS row MERGE (n:{label} {{id: row.id}}) SET n += row", rows=rows)


def _pairs(graph: Graph) -> Pairs:
    """Rows of MATCHED by (later, earlier)."""
    return {(row["later"], row["earlier"]): row for row in conform(MATCHED, graph.pairs()).to_pylist()}


def _rows(label: str, tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    return [row for table in tables for row in conform(label, table).to_pylist()]


def _one_at_a_time(progress: Callable[[int], Any] | None) -> Callable[[int], None]:
    """What several threads may call."""
    lock = threading.Lock()

    def advance(count: int) -> None:
        if progress is not None:
            with lock:
                progress(count)

    return advance

"""A graph written to a Neo4j database, so that any step may be repeated or broken off.

1. The Atlas node loses its state, which joins its `previous` ones: from here on readers are told that the graph is
   being written.
2. What the graph no longer holds is removed: dictionaries, and pairs whose matches have another key.
3. Nodes are merged by their ids. A dictionary's features are left alone where their digest says that nothing changed.
   What says that something is there, a pair's key or a dictionary's digest, goes before the thing and comes after it,
   so that nothing half done is taken for whole, whichever write comes next.
4. Each pair's edges are created in chunks. The pair's MATCHED edge counts in the same transaction how many are there:
   a chunk whose acknowledgement was lost is seen to be there, a broken-off pair goes on where it was, and nothing has
   to be looked for before it is created, which takes MERGE half its time.
5. The Atlas node gets the new state.

Nodes are not looked up edge by edge either: a chunk fetches both dictionaries' features once, in the order of their
index, and takes them by position. Pairs are written by WORKERS connections at a time, never two that share a
dictionary, so that no two transactions wait for each other's nodes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any

from atlas.errors import StoreError
from atlas.manifest import HISTORY
from atlas.neo4j_lock import Claim
from atlas.neo4j_schema import check_owner, create_schema
from atlas.schema import ATLAS, DICTIONARY, EDGE_OF_SITE, FEATURE, MATCHED, MODEL, RUN, properties
from atlas.store import Batch, Graph
from atlas.tables import END_COLUMNS, conform, row_indices

if TYPE_CHECKING:
    import pyarrow as pa
    from neo4j import ManagedTransaction

WORKERS = 2
NODES_CHUNK = 2_000  # features of one transaction
EDGES_CHUNK = 20_000  # edges of one transaction
DELETE_CHUNK = 20_000
AHEAD = 6  # pairs that are held in memory, to find two that share no dictionary

_TYPES = (*EDGE_OF_SITE.values(), "RESEMBLES")
_ANY = "|".join(_TYPES)

BEGIN = f"""
MERGE (a:{ATLAS} {{id: $id}})
WITH a, [state IN [a.state] WHERE state IS NOT NULL] AS last
SET a.state = null, a.previous = (coalesce(a.previous, []) + last)[-{HISTORY}..]
"""
FINISH = f"MATCH (a:{ATLAS} {{id: $row.id}}) SET a += $row, a.indexed = true"
THERE = f"""
MATCH (b:{DICTIONARY})-[m:{MATCHED}]->(a:{DICTIONARY})
RETURN b.id AS later, a.id AS earlier, m.key AS key, m.written AS written
"""
UNLINK = f"""
MATCH (:{FEATURE} {{dictionary: $later}})-[r:{_ANY}]->(:{FEATURE} {{dictionary: $earlier}})
WITH r LIMIT $limit DELETE r RETURN count(*) AS n
"""
DISOWN = f"MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED}]->(:{DICTIONARY} {{id: $earlier}}) SET m.key = ''"
UNMATCH = f"MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED}]->(:{DICTIONARY} {{id: $earlier}}) DELETE m"
CLEAR = f"MATCH (f:{FEATURE} {{dictionary: $id}}) WITH f LIMIT $limit DETACH DELETE f RETURN count(*) AS n"
# A wider dictionary of the same id, whose write was broken off.
BEYOND = f"""
MATCH (f:{FEATURE} {{dictionary: $id}}) WHERE f.`index` >= $size
WITH f LIMIT $limit DETACH DELETE f RETURN count(*) AS n
"""
MATCH_PAIRS = f"""
UNWIND $rows AS row
MATCH (b:{DICTIONARY} {{id: row.later}}) MATCH (a:{DICTIONARY} {{id: row.earlier}})
MERGE (b)-[m:{MATCHED}]->(a)
ON CREATE SET m.written = 0
SET m += row.properties
"""
DIGESTS = f"MATCH (d:{DICTIONARY}) RETURN d.id AS id, d.digest AS digest"
DIGEST = f"MATCH (d:{DICTIONARY} {{id: $id}}) SET d.digest = $digest"
FEATURES = f"UNWIND $rows AS row MERGE (f:{FEATURE} {{id: row.id}}) SET f = row"
CURSOR = f"""
MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED} {{key: $key}}]->(:{DICTIONARY} {{id: $earlier}})
RETURN m.written AS written
"""
ADVANCE = f"""
MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED} {{key: $key}}]->(:{DICTIONARY} {{id: $earlier}})
SET m.written = $written
"""


def link(type_: str) -> str:
    """The statement that creates a chunk of edges of one type between two dictionaries."""
    values = ", ".join(f"`{name}`: ${name}[i]" for name in properties(type_))
    return f"""
MATCH (f:{FEATURE} {{dictionary: $later}}) WITH f ORDER BY f.`index`
WITH collect(f) AS later
MATCH (g:{FEATURE} {{dictionary: $earlier}}) WITH later, g ORDER BY g.`index`
WITH later, collect(g) AS earlier
UNWIND range(0, size($b) - 1) AS i
WITH later[$b[i]] AS b, earlier[$a[i]] AS a, i
CREATE (b)-[:{type_} {{{values}}}]->(a)
RETURN count(*) AS n
"""


def write_graph(claim: Claim, graph: Graph, progress: Callable[[int], Any] | None) -> None:
    """Make the claimed database hold exactly this graph.

    Raises StoreError where it holds another atlas or the server cannot do it, LockedAtlas where the claim was lost,
    IngestError where the graph's tables are not of the schema.
    """
    writer = _Writer(claim, progress)
    (atlas,) = _rows(ATLAS, graph.nodes(ATLAS))
    check_owner(claim.connection, atlas["id"])
    create_schema(claim.connection)
    writer.begin(atlas["id"])
    pairs = _pairs(graph)
    dictionaries = _rows(DICTIONARY, graph.nodes(DICTIONARY))
    writer.remove({row["id"] for row in dictionaries}, pairs)
    for label, rows in ((MODEL, _rows(MODEL, graph.nodes(MODEL))), (RUN, _rows(RUN, graph.nodes(RUN)))):
        writer.replace(label, rows)
    writer.replace(DICTIONARY, dictionaries)
    writer.features(graph.nodes(FEATURE))
    writer.edges(pairs, (batch for type_ in _TYPES for batch in graph.edges(type_)))
    writer.finish(atlas)


class _Writer:
    """The steps, each transaction under the claim."""

    def __init__(self, claim: Claim, progress: Callable[[int], Any] | None) -> None:
        self.claim = claim
        self.connection = claim.connection
        self._progress = progress
        self._lock = threading.Lock()

    def run(self, cypher: str, **parameters: Any) -> list[dict[str, Any]]:
        """One statement in a transaction of its own."""

        def work(tx: ManagedTransaction) -> list[dict[str, Any]]:
            rows = tx.run(cypher, parameters).data()
            self.claim.check(tx)
            return rows

        return self.connection.write(work)

    def until_none(self, cypher: str, **parameters: Any) -> None:
        """A statement that handles `limit` things and returns their number `n`, until there are none."""
        while self.run(cypher, limit=DELETE_CHUNK, **parameters)[0]["n"]:
            pass

    def begin(self, id_: str) -> None:
        """Take the state away, so that no reader takes the graph for complete."""
        self.run(BEGIN, id=id_)

    def finish(self, atlas: dict[str, Any]) -> None:
        """Name the new state."""
        self.run(FINISH, row=atlas)

    def remove(self, dictionaries: set[str], pairs: dict[tuple[str, str], dict[str, Any]]) -> None:
        """Remove what the graph no longer holds."""
        for there in self.run(THERE):
            ends = (there["later"], there["earlier"])
            if ends not in pairs or pairs[ends]["key"] != there["key"]:
                # First what says that the edges are there: broken off in between, they must not be taken for it.
                self.run(DISOWN, later=ends[0], earlier=ends[1])
                self.until_none(UNLINK, later=ends[0], earlier=ends[1])
                self.run(UNMATCH, later=ends[0], earlier=ends[1])
        for row in self.run(DIGESTS):
            if row["id"] not in dictionaries:
                self.run(DIGEST, id=row["id"], digest=None)
                self.until_none(CLEAR, id=row["id"])

    def replace(self, label: str, rows: list[dict[str, Any]]) -> None:
        """Make these the label's only nodes."""
        ids = [row["id"] for row in rows]
        self.run(f"MATCH (n:{label}) WHERE NOT n.id IN $ids DETACH DELETE n", ids=ids)
        self.run(f"UNWIND $rows AS row MERGE (n:{label} {{id: row.id}}) SET n += row", rows=rows)

    def features(self, tables: Iterable[pa.Table]) -> None:
        """Merge the features of every dictionary whose table has changed since it was last written whole."""
        digests = {row["id"]: row["digest"] for row in self.run(DIGESTS)}
        with ThreadPoolExecutor(WORKERS) as pool:
            for table in tables:
                table = conform(FEATURE, table, properties(FEATURE))
                (id_,) = table["dictionary"].unique().to_pylist()
                digest = _digest(table)
                if digests.get(id_) == digest:
                    self._advance(len(table))
                    continue
                if digests.get(id_) is not None:
                    self.run(DIGEST, id=id_, digest=None)  # broken off in between, they are neither the old nor the new
                chunks = [table.slice(at, NODES_CHUNK) for at in range(0, len(table), NODES_CHUNK)]
                for _ in pool.map(self._merge, chunks):
                    pass
                self.until_none(BEYOND, id=id_, size=len(table))
                self.run(DIGEST, id=id_, digest=digest)

    def _merge(self, chunk: pa.Table) -> None:
        self.run(FEATURES, rows=chunk.to_pylist())
        self._advance(len(chunk))

    def edges(self, pairs: dict[tuple[str, str], dict[str, Any]], batches: Iterator[Batch]) -> None:
        """Write every pair's edges that are not there yet."""
        rows = [
            {"later": later, "earlier": earlier, "properties": {name: row[name] for name in properties(MATCHED)}}
            for (later, earlier), row in pairs.items()
        ]
        self.run(MATCH_PAIRS, rows=rows)
        written = {row["key"]: row["written"] for row in self.run(THERE)}
        ends = {row["key"]: pair for pair, row in pairs.items()}
        todo = self._unwritten(batches, written)
        _apart(
            todo, lambda batch: ends[batch.key], lambda batch: self._pair(batch, *ends[batch.key], written[batch.key])
        )
        self._advance(len(pairs))

    def _unwritten(self, batches: Iterator[Batch], written: dict[str, int]) -> Iterator[Batch]:
        for batch in batches:
            if written[batch.key] < len(batch.table):
                yield batch
            else:
                self._advance(len(batch.table))

    def _pair(self, batch: Batch, later: str, earlier: str, written: int) -> None:
        """Create a pair's edges, chunk by chunk, beyond those that are written already."""
        table = conform(batch.type, batch.table, END_COLUMNS | properties(batch.type))
        # In one order whoever made the table, so that a pair that was broken off goes on at its count.
        table = table.append_column("b", row_indices(table["later"])).append_column("a", row_indices(table["earlier"]))
        table = table.sort_by([("b", "ascending"), ("a", "ascending")])
        ends = {"later": later, "earlier": earlier, "key": batch.key}
        cypher = link(batch.type)
        self._advance(written)
        for start in range(written, len(table), EDGES_CHUNK):
            chunk = table.slice(start, EDGES_CHUNK)
            values = {name: chunk[name].to_pylist() for name in ("b", "a", *properties(batch.type))}
            self.connection.write(partial(self._chunk, cypher, ends, values, start, len(chunk)))
            self._advance(len(chunk))

    def _chunk(
        self, cypher: str, ends: dict[str, str], values: dict[str, Any], start: int, size: int, tx: ManagedTransaction
    ) -> None:
        """One chunk in a transaction, unless it is there already."""
        there = tx.run(CURSOR, ends).single(strict=True)["written"]
        if there >= start + size:
            return
        made = tx.run(cypher, values | ends).single(strict=True)["n"]
        if there != start or made != size:
            raise StoreError(
                f"the edges of {ends['later']} and {ends['earlier']} in {self.connection.address} are not what was "
                "written there; empty the database, then repeat the command"
            )
        tx.run(ADVANCE, ends, written=start + size).consume()
        self.claim.check(tx)

    def _advance(self, count: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress(count)


def _apart(batches: Iterator[Batch], ends: Callable[[Batch], tuple[str, str]], write: Callable[[Batch], None]) -> None:
    """Write batches WORKERS at a time, never two that share a dictionary."""
    waiting: list[Batch] = []
    running: dict[Future[None], set[str]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        while True:
            while len(waiting) < AHEAD and (batch := next(batches, None)) is not None:
                waiting.append(batch)
            busy = set().union(*running.values())
            free = next((b for b in waiting if busy.isdisjoint(ends(b))), None)
            if free is not None and len(running) < WORKERS:
                waiting.remove(free)
                running[pool.submit(write, free)] = set(ends(free))
                continue
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                future.result()


def _pairs(graph: Graph) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of MATCHED by (later, earlier)."""
    columns = END_COLUMNS | properties(MATCHED)
    rows = [row for batch in graph.edges(MATCHED) for row in conform(MATCHED, batch.table, columns).to_pylist()]
    return {(row["later"], row["earlier"]): row for row in rows}


def _rows(label: str, tables: Iterable[pa.Table]) -> list[dict[str, Any]]:
    return [row for table in tables for row in conform(label, table, properties(label)).to_pylist()]


def _digest(table: pa.Table) -> str:
    """SHA-256 of a table's content."""
    import pyarrow as pa

    class Sink:
        closed = False

        def write(self, data: Any) -> int:
            digest.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    digest = hashlib.sha256()
    with pa.ipc.new_stream(Sink(), table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return digest.hexdigest()

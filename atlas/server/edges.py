"""Edges written to a Neo4j database, pair by pair.

Each pair's edges are created in chunks. The pair's MATCHED edge counts in the same transaction how many are there: a
chunk whose acknowledgement was lost is seen to be there, a broken-off pair goes on where it was, and nothing has to be
looked for before it is created, which takes MERGE half its time.

Nodes are not looked up edge by edge either: a chunk fetches both dictionaries' features once, in the order of their
index, and takes them by position. Pairs are written by WORKERS connections at a time, never two that share a
dictionary, so that no two transactions wait for each other's nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any

from atlas.errors import StoreError
from atlas.graph.store import Batch
from atlas.graph.tables import conform
from atlas.schema import DICTIONARY, EDGE_OF_SITE, FEATURE, FIRES_WITH, MATCHED, RESEMBLES, properties
from atlas.server.lock import Claim

if TYPE_CHECKING:
    from neo4j import ManagedTransaction

WORKERS = 2
CHUNK = 20_000  # edges of one transaction
AHEAD = 6  # pairs that are held in memory, to find two that share no dictionary

EDGE_TYPES = (*EDGE_OF_SITE.values(), RESEMBLES, FIRES_WITH)
Pairs = dict[tuple[str, str], dict[str, Any]]  # rows of MATCHED by (later, earlier)

STORED_PAIRS = f"""
MATCH (b:{DICTIONARY})-[m:{MATCHED}]->(a:{DICTIONARY})
RETURN b.id AS later, a.id AS earlier, m.key AS key, m.written AS written
"""
CLEAR_KEY = f"MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED}]->(:{DICTIONARY} {{id: $earlier}}) SET m.key = ''"
DELETE_EDGES = f"""
MATCH (:{FEATURE} {{dictionary: $later}})-[r:{"|".join(EDGE_TYPES)}]->(:{FEATURE} {{dictionary: $earlier}})
WITH r LIMIT $limit DELETE r RETURN count(*) AS n
"""
DELETE_PAIR = f"MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED}]->(:{DICTIONARY} {{id: $earlier}}) DELETE m"
MERGE_PAIRS = f"""
UNWIND $rows AS row
MATCH (b:{DICTIONARY} {{id: row.later}}) MATCH (a:{DICTIONARY} {{id: row.earlier}})
MERGE (b)-[m:{MATCHED}]->(a)
ON CREATE SET m.written = 0
SET m += row.properties
"""
READ_WRITTEN = f"""
MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED} {{key: $key}}]->(:{DICTIONARY} {{id: $earlier}})
RETURN m.written AS written
"""
SET_WRITTEN = f"""
MATCH (:{DICTIONARY} {{id: $later}})-[m:{MATCHED} {{key: $key}}]->(:{DICTIONARY} {{id: $earlier}})
SET m.written = $written
"""


def create_edges(type_: str) -> str:
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


def remove_pairs(claim: Claim, kept: Pairs) -> None:
    """Remove the edges of every pair that is not among these, or has another key there."""
    for there in claim.run(STORED_PAIRS):
        pair = (there["later"], there["earlier"])
        if pair not in kept or kept[pair]["key"] != there["key"]:
            ends = {"later": pair[0], "earlier": pair[1]}
            # First what says that the edges are there: broken off in between, they must not be taken for it.
            claim.run(CLEAR_KEY, **ends)
            claim.until_none(DELETE_EDGES, **ends)
            claim.run(DELETE_PAIR, **ends)


def write_edges(claim: Claim, pairs: Pairs, batches: Iterator[Batch], advance: Callable[[int], None]) -> None:
    """Write every pair's edges that are not there yet."""
    rows = [
        {"later": later, "earlier": earlier, "properties": {name: row[name] for name in properties(MATCHED)}}
        for (later, earlier), row in pairs.items()
    ]
    # `written` stays as it is where the pair is there already: at that count its edges go on.
    claim.run(MERGE_PAIRS, rows=rows)
    written = {row["key"]: row["written"] for row in claim.run(STORED_PAIRS)}

    def first(batch: Batch) -> int:
        """What the pair's count is when this batch's edges begin: those that it fires with come after its matches."""
        return int(pairs[batch.later, batch.earlier]["edges"]) if batch.type == FIRES_WITH else 0

    def unwritten() -> Iterator[Batch]:
        for batch in batches:
            if written[batch.key] < first(batch) + len(batch.table):
                yield batch
            else:
                advance(len(batch.table))

    _write_disjoint(unwritten(), lambda batch: _write_batch(claim, batch, written[batch.key], first(batch), advance))
    advance(len(pairs))


def _write_batch(claim: Claim, batch: Batch, count: int, first: int, advance: Callable[[int], None]) -> None:
    """Create a batch's edges, chunk by chunk, beyond those that the pair's count says are there already.

    first: what the pair's count is when none of the batch is there.
    """
    written = max(0, count - first)
    # In one order whoever made the table, so that a pair that was broken off goes on at its count.
    table = conform(batch.type, batch.table).sort_by([("later", "ascending"), ("earlier", "ascending")])
    ends = {"later": batch.later, "earlier": batch.earlier, "key": batch.key}
    cypher = create_edges(batch.type)
    advance(written)
    for start in range(written, len(table), CHUNK):
        chunk = table.slice(start, CHUNK)
        values = {name: chunk[name].to_pylist() for name in properties(batch.type)}
        values |= {"b": chunk["later"].to_pylist(), "a": chunk["earlier"].to_pylist()}
        claim.write(partial(_write_chunk, cypher, ends, values, first + start, len(chunk)))
        advance(len(chunk))


def _write_chunk(
    cypher: str, ends: dict[str, str], values: dict[str, Any], start: int, size: int, tx: ManagedTransaction
) -> None:
    """One chunk in a transaction, unless it is there already."""
    there = tx.run(READ_WRITTEN, ends).single(strict=True)["written"]
    if there >= start + size:
        return
    made = tx.run(cypher, values | ends).single(strict=True)["n"]
    if there != start or made != size:
        raise StoreError(
            f"the edges of {ends['later']} and {ends['earlier']} in the database are not what was written there; empty "
            "it, then repeat the command"
        )
    tx.run(SET_WRITTEN, ends, written=start + size).consume()


def _write_disjoint(batches: Iterator[Batch], write: Callable[[Batch], None]) -> None:
    """Write batches WORKERS at a time, never two that share a dictionary."""
    waiting: list[Batch] = []
    running: dict[Future[None], set[str]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        while True:
            while len(waiting) < AHEAD and (batch := next(batches, None)) is not None:
                waiting.append(batch)
            busy = set().union(*running.values())
            free = next((b for b in waiting if busy.isdisjoint((b.later, b.earlier))), None)
            if free is not None and len(running) < WORKERS:
                waiting.remove(free)
                running[pool.submit(write, free)] = {free.later, free.earlier}
                continue
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                # Asked for its error alone: a pair that failed must not pass as written.
                future.result()

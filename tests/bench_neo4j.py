"""How fast a Neo4j server is filled and read: `python tests/bench_neo4j.py [EDGES]`; the server runs from packages.

The live path is measured against one that only sends rows and creates edges between nodes that are looked up by their
ids one by one (UNWIND, two MATCH, CREATE), and against LOAD CSV doing the same, on the same server in the same run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import neo4j
import pyarrow as pa
from bench_load import Timed
from bench_record import record
from neo4j_server import Neo4jServer
from pyarrow import csv

from atlas.address import ServerAddress
from atlas.server.connect import Connection
from atlas.server.export import export_neo4j_admin
from atlas.server.store import Neo4jStore

LIVE, BULK = 25_000, 130_000  # edges a second
LAYERS, WIDTH = 9, 8192

PLAIN = """
UNWIND $rows AS row MATCH (b:Feature {id: row.later}) MATCH (a:Feature {id: row.earlier})
CREATE (b)-[:RESEMBLES {similarity: row.similarity, rank: row.rank, forward_rank: row.forward_rank, gap: row.gap}]->(a)
"""
CSV = """
LOAD CSV WITH HEADERS FROM $file AS row
CALL (row) {
  MATCH (b:Feature {id: row.later}) MATCH (a:Feature {id: row.earlier})
  CREATE (b)-[:RESEMBLES {similarity: toFloat(row.similarity), rank: toInteger(row.rank),
    forward_rank: toInteger(row.forward_rank), gap: toInteger(row.gap)}]->(a)
} IN TRANSACTIONS OF 10000 ROWS
"""


def graph(edges: int) -> Timed:
    """About so many edges in LAYERS − 1 pairs."""
    return Timed(layers=LAYERS, width=WIDTH, extra=max(0, edges // (LAYERS - 1) - 2 * WIDTH + 1))


def live(running: Neo4jServer, edges: int) -> None:
    """Fill an empty database and print the rate; then the same number of edges the plain way, a tenth of them."""
    address = ServerAddress.parse(running.uri)
    store = Neo4jStore(address)
    nodes, whole, written = LAYERS * WIDTH, graph(edges), 0
    began = time.perf_counter()
    # When the features were there, a fifth of the edges, all of them: rows, seconds, and seconds that making them took,
    # which are the benchmark's own. The first fifth warms up the server's compiler, as it is for those who come later.
    seen: dict[str, tuple[int, float, float]] = {}

    def count(more: int) -> None:
        nonlocal written
        written += more
        now = written, time.perf_counter() - began, whole.making
        for name, least in (("features", nodes), ("warm", nodes + edges // 5)):
            if written >= least:
                seen.setdefault(name, now)
        seen["edges"] = now

    with store.writing():
        store.publish(whole, progress=count)
    took = time.perf_counter() - began
    (_, features, _), (early, warm, made), (late, done, all_made) = (
        seen[name] for name in ("features", "warm", "edges")
    )
    rate = (late - early) / (done - warm - (all_made - made))
    print(
        f"live: {nodes:,} features {features:.1f} s ({nodes / features:,.0f}/s); {late - nodes:,} edges "
        f"{done - features:.1f} s, warm {rate:,.0f} edges/s (target {LIVE:,}); indexes {took - done:.1f} s"
    )
    start = time.perf_counter()
    with store.writing():
        store.publish(whole)
    print(f"live, once more: {time.perf_counter() - start:.1f} s")
    connection = Connection(address)
    table = next(iter(graph(edges).edges("FROM_RES"))).table.slice(0, max(1, edges // 10))
    start = time.perf_counter()
    for at in range(0, len(table), 10_000):
        connection.run(PLAIN, {"rows": table.slice(at, 10_000).to_pylist()})
    plain = len(table) / (time.perf_counter() - start)
    print(f"live, plain UNWIND, MATCH, MATCH, CREATE: {plain:,.0f} edges/s; ratio {rate / plain:.1f}")
    record("server", "an edge written live to Neo4j", "plain UNWIND, MATCH, MATCH, CREATE", plain / rate, 1 / plain)
    connection.close()
    loaded = load_csv(running, table)
    print(f"live, LOAD CSV: {loaded:,.0f} edges/s; ratio {rate / loaded:.1f}")
    record("server", "an edge written live to Neo4j", "LOAD CSV on the server's own disk", loaded / rate, 1 / loaded)
    reads(address)


def load_csv(running: Neo4jServer, table: pa.Table) -> float:
    """Edges a second by LOAD CSV from the server's disk, the file's writing not counted."""
    file = running.home / "import" / "edges.csv"
    csv.write_csv(table, file)
    start = time.perf_counter()
    driver = neo4j.GraphDatabase.driver(running.uri, auth=(running.user, running.password))
    with driver, driver.session() as session:
        session.run(CSV, file=file.as_uri()).consume()  # a transaction for each ten thousand, begun by itself
    return len(table) / (time.perf_counter() - start)


def reads(address: ServerAddress) -> None:
    """Print what a step of a lineage costs."""
    store = Neo4jStore(address)
    cypher = (
        "MATCH (f:Feature {id: $id})-[r:FROM_RES]->(g:Feature) WHERE r.rank < 1 RETURN g.id AS id, r.similarity AS s"
    )
    for _ in range(2):
        start = time.perf_counter()
        for i in range(200):
            store.read(cypher, {"id": f"tiny/{LAYERS - 1}-res-{WIDTH}/{i}"})
        milliseconds = (time.perf_counter() - start) * 5
    print(f"reads: {milliseconds:.1f} ms a step of a lineage")
    store.close()


def bulk(edges: int) -> None:
    """Export, import with neo4j-admin, start, open: print the rates."""
    whole = graph(edges)
    server = Neo4jServer(quick=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(server):
        start = time.perf_counter()
        exported = export_neo4j_admin(whole, Path(folder) / "files")
        print(f"bulk: {exported.edges:,} edges exported in {time.perf_counter() - start - whole.making:.1f} s")
        start = time.perf_counter()
        with contextlib.chdir(exported.folder):
            server.admin(*exported.command[1:])
        seconds = time.perf_counter() - start
        print(
            f"bulk: {exported.nodes:,} nodes and {exported.edges:,} edges imported in {seconds:.1f} s, Java's start "
            f"included: {exported.edges / seconds:,.0f} edges/s (target {BULK:,})"
        )
        server.start()
        os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
        start = time.perf_counter()
        store = Neo4jStore(ServerAddress.parse(server.uri))
        store.open()
        print(f"bulk: opened, with its indexes made, in {time.perf_counter() - start:.1f} s")
        store.close()


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    # LOAD CSV from the server's own disk is off otherwise.
    with Neo4jServer(quick=False, settings={"dbms.security.allow_csv_import_from_file_urls": "true"}) as running:
        os.environ.update(NEO4J_USERNAME=running.user, NEO4J_PASSWORD=running.password)
        live(running, wanted)
    bulk(wanted)

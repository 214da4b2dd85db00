"""What every store promises, on every store: embedded, Neo4j of the oldest supported line, Neo4j of the current line.

The embedded store's answers are checked against plain Python elsewhere (test_queries_*, test_ingest_job); here every
store gives the same rows in the same order, and writes, removes, labels, copies and guards alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import STORES
from neo4j_for_tests import emptied
from planted import Planted
from planted_graph import PlantedGraph, Rematched
from saes import planted as write_saes

from atlas import open_atlas, schema
from atlas.address import ServerAddress
from atlas.atlas import Atlas
from atlas.cli.info import dictionary_rows, pair_rows, run_rows
from atlas.embedded.store import LadybugStore
from atlas.errors import AtlasError, NotAnAtlas, QueryError, QueryRefused, QueryTooLarge
from atlas.graph.binding import bind
from atlas.graph.copying import copy_atlas
from atlas.graph.digest import digest
from atlas.graph.store import Store
from atlas.ids import feature_id
from atlas.server.store import Neo4jStore
from ingest import ingest
from ingest.labels.job import label_atlas
from queries.lineage.walk import lineage
from queries.questions.questions import QUESTIONS, ask
from queries.search import search
from queries.show import show

EDGES = (
    "MATCH (b:Feature)-[e:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature) RETURN b.id AS later, a.id AS earlier, type(e) AS "
    "type, e.similarity AS similarity, e.rank AS rank, e.forward_rank AS forward_rank, e.gap AS gap, e.push AS push "
    "ORDER BY later, earlier"
)
Opened = Callable[[str | None], Store]


@pytest.fixture
def place(empty: str | None, tmp_path: Path) -> Path:
    """A folder for an atlas whose graph goes to the store."""
    folder = tmp_path / "atlas"
    if empty is not None:
        bind(folder, ServerAddress.parse(empty))
    return folder


@pytest.fixture
def stores(empty: str | None, tmp_path: Path) -> Iterator[Opened]:
    """Makes stores of one place, each for one state."""
    made: list[Store] = []

    def store(state: str | None) -> Store:
        here = LadybugStore(tmp_path, state) if empty is None else Neo4jStore(ServerAddress.parse(empty), None, state)
        made.append(here)
        return here

    yield store
    for here in made:
        here.close()


def published(stores: Opened, graph: Any) -> Store:
    """The store in the graph's state, after it was written there."""
    writer = stores(None)
    with writer.writing():
        writer.publish(graph)
    writer.retire(graph.state)
    return stores(graph.state)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """A planted atlas in the embedded store, to compare with."""
    with open_atlas(Planted(range(6), seed=1).at(tmp_path_factory.mktemp("reference") / "atlas")) as atlas:
        yield atlas


@pytest.fixture(scope="module")
def filled(address: str | None, embedded: Atlas, request: pytest.FixtureRequest) -> Iterator[Atlas]:
    """The same atlas in the store."""
    if address is None:
        yield embedded
        return
    name = next(name for name in STORES[1:] if request.getfixturevalue(name).uri == address)
    copy_atlas(embedded, emptied(request.getfixturevalue(name)))
    with open_atlas(address) as atlas:
        yield atlas


# --- what is written comes back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", schema.NODES, ids=lambda table: table.label)
def test_every_node_comes_back_as_it_went_in(stores: Opened, table: schema.NodeTable) -> None:
    graph = Planted(range(3))
    store = published(stores, graph)
    expected = [row for part in graph.nodes(table.label) for row in part.to_pylist()]
    found = [row["n"] for row in store.read(f"MATCH (n:{table.label}) RETURN n ORDER BY n.id")]
    assert found == sorted(expected, key=lambda row: row["id"])
    assert [list(row) for row in found] == [list(table.properties)] * len(found)


@pytest.mark.parametrize("table", schema.EDGES, ids=lambda table: table.type)
def test_every_edge_comes_back_as_it_went_in(stores: Opened, table: schema.EdgeTable) -> None:
    graph = Planted(range(3))
    store = published(stores, graph)
    if table.type == schema.MATCHED:
        expected = graph.pairs().to_pylist()
    else:
        expected = [
            row | {"later": feature_id(batch.later, row["later"]), "earlier": feature_id(batch.earlier, row["earlier"])}
            for batch in graph.edges(table.type)
            for row in batch.table.to_pylist()
        ]
    cypher = f"MATCH (b)-[r:{table.type}]->(a) RETURN b.id AS later, a.id AS earlier, r ORDER BY later, earlier"
    found = [
        {"later": row["later"], "earlier": row["earlier"], **row["r"], "type": row["r"]["type"]}
        for row in store.read(cypher)
    ]
    assert [row.pop("type") for row in found] == [table.type] * len(expected)
    assert found == sorted(expected, key=lambda row: (row["later"], row["earlier"]))


def test_values_of_every_kind(stores: Opened) -> None:
    store = published(stores, PlantedGraph())
    path = "MATCH p = (:Feature {id: 'tiny/1-res-10/9'})-[:FROM_RES*1..2]->() RETURN p"
    for rows in (store.read(path), store.query(path, {}, limit=0, timeout=30, max_bytes=1 << 20).rows):
        (row,) = rows
        assert [node["index"] for node in row["p"]["nodes"]] == [9, 9] and row["p"]["nodes"][0]["s_res"] is None
        edge = {"type": "FROM_RES", "similarity": 0.509, "rank": 0, "forward_rank": 0, "gap": 1}
        edge |= dict.fromkeys(schema.EDGE_FIGURES)
        assert row["p"]["relationships"] == [edge]


def test_progress_adds_up(stores: Opened) -> None:
    written: list[int] = []
    writer = stores(None)
    with writer.writing():
        writer.publish(PlantedGraph(), progress=written.append)
    # Feature: 4 layers of 10; FROM_RES: 3 pairs of 10 of rank 0 and 9 of rank 1; MATCHED: 3
    assert sum(written) == 40 + 57 + 3


def test_publishing_again_changes_nothing(stores: Opened) -> None:
    graph = PlantedGraph()
    before = digest(published(stores, graph))
    assert digest(published(stores, graph)) == before
    assert before.edges == 57 and before.nodes["Feature"] == 40


def test_what_the_graph_no_longer_holds_is_removed(stores: Opened) -> None:
    published(stores, PlantedGraph(layers=4))
    store = published(stores, PlantedGraph(layers=2))
    assert digest(store).nodes["Feature"] == 20 and digest(store).edges == 19
    assert store.read("MATCH (d:Dictionary) RETURN d.id AS id ORDER BY id") == [
        {"id": "tiny/0-res-10"},
        {"id": "tiny/1-res-10"},
    ]
    assert store.read("MATCH ()-[r:MATCHED]->() RETURN count(r) AS n") == [{"n": 1}]


def test_matches_of_another_key_are_replaced(stores: Opened) -> None:
    published(stores, PlantedGraph(extra=0))

    store = published(stores, Rematched(extra=5))
    assert digest(store).edges == 57 + 3 * 5


@pytest.mark.parametrize("wrong", ["column", "nan"])
def test_wrong_tables_are_refused_and_the_old_state_can_be_had_again(stores: Opened, wrong: str) -> None:
    good = PlantedGraph()
    published(stores, good)

    class Wrong(PlantedGraph):
        def nodes(self, label: str) -> Iterator[pa.Table]:
            for table in super().nodes(label):
                if label == schema.FEATURE:
                    values = pa.array([float("nan")] * len(table)) if wrong == "nan" else pa.array(["x"] * len(table))
                    table = table.set_column(table.column_names.index("norm"), "norm", values)
                yield table

    writer = stores(None)
    with pytest.raises(AtlasError, match="Feature"), writer.writing():
        writer.publish(Wrong())
    assert digest(published(stores, good)).edges == 57


def test_a_store_without_a_state(stores: Opened) -> None:
    with pytest.raises(NotAnAtlas, match=r"ingest|copy"):
        stores(None).read("MATCH (n) RETURN n")
    assert not stores(None).present()


# --- an ingest ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_saes(tmp_path_factory.mktemp("saes"), range(3))


@pytest.mark.slow
def test_an_ingest_gives_the_same_edges_in_steps_as_at_once(place: Path, sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "reference", k=3)
    with open_atlas(tmp_path / "reference") as atlas:
        expected, numbers = atlas.read(EDGES), digest(atlas.store)
    for layer in range(3):
        report = ingest([sources], place, k=3, layers=range(layer + 1))
        assert report.published and len(report.dictionaries) == 3
    assert not ingest([sources], place, k=3).published
    with open_atlas(place) as atlas:
        assert atlas.read(EDGES) == expected
        found = digest(atlas.store)
        assert (found.sha256, found.edges) == (numbers.sha256, numbers.edges)
        assert atlas.directions(["tiny-1m/1-mlp-64/7"]).shape == (1, 48)
    ingest([], place, k=2, min_res=0.3)
    ingest([], tmp_path / "reference", k=2, min_res=0.3)
    with open_atlas(place) as one, open_atlas(tmp_path / "reference") as other:
        cycle = "MATCH (f:Feature) RETURN f.id AS id, f.lifecycle AS l, f.origin AS o, f.vanishes AS v ORDER BY id"
        assert one.read(EDGES) == other.read(EDGES) and one.read(cycle) == other.read(cycle)


def test_labels_reach_the_graph(place: Path, sources: Path, tmp_path: Path) -> None:
    ingest([sources], place, layers=[0, 1])
    ids = [f"tiny-1m/1-res-64/{i}" for i in range(64)]
    words = [f"theme {i}, “quoted”\nwith a line feed" for i in range(64)]
    labels = pa.table({"dictionary": ["tiny-1m/1-res-64"] * 64, "index": range(64), "label": words})
    pq.write_table(labels, tmp_path / "labels.parquet")
    assert label_atlas(place, imports=[str(tmp_path / "labels.parquet")]) == {"imported": 64}
    with open_atlas(place) as atlas:
        assert atlas.read("MATCH (f:Feature {id: $id}) RETURN f.label AS l", id=ids[7]) == [
            {"l": "theme 7, “quoted”\nwith a line feed"}
        ]
        assert [row["feature"] for row in search(atlas, "theme “quoted” 63")] == [ids[63]]


# --- questions ----------------------------------------------------------------------------------------------------

ASKED: list[tuple[str, dict[str, Any]]] = [
    (name, {}) for name, question in QUESTIONS.items() if not question.by_rows
] + [
    ("born-here", {"layer": 3}),
    ("dies-here", {"layer": 2}),
    ("written-by", {"site": "att", "layer": 4}),
    ("hubs", {"site": "mlp"}),
    ("twins", {"min_similarity": 0.4, "layer": 3}),
    ("longest-lived", {"min_similarity": 0.2}),
    ("ancestors", {"min_similarity": 0.3}),
]


@pytest.mark.parametrize(("name", "parameters"), ASKED)
def test_every_question_has_the_same_rows_in_the_same_order(
    filled: Atlas, embedded: Atlas, name: str, parameters: dict[str, Any]
) -> None:
    question = QUESTIONS[name]
    seeds = [("planted/5-res-24/3", "planted/2-res-24/8"), ("planted/4-res-24/10", "planted/1-res-24/0")]
    if name in ("writes",):
        seeds = [("planted/3-mlp-24/5", ""), ("planted/2-att-24/1", "")]
    some = False
    for seed in seeds if question.features else seeds[:1]:
        features = seed[: len(question.features)]
        expected = ask(embedded, name, *features, limit=5000, **parameters)
        assert ask(filled, name, *features, limit=5000, **parameters) == expected
        assert ask(filled, name, *features, limit=3, **parameters) == expected[:3]
        some = some or bool(expected)
    assert some or name in ("path", "writes", "shared-ancestors"), "the question was asked of nothing"


@pytest.mark.parametrize(
    "seed", ["planted/3-res-24/7", "planted/0-res-24/2", "planted/2-mlp-24/5", "planted/5-att-24/0"]
)
@pytest.mark.parametrize("least", [(0.5, 0.25), ("floor", "floor"), (0.0, 0.0)])
@pytest.mark.parametrize("k", [1, 3])
def test_lineages_are_the_same(filled: Atlas, embedded: Atlas, seed: str, least: tuple[Any, Any], k: int) -> None:
    wanted, found = (lineage(a, seed, min_res=least[0], min_module=least[1], k=k) for a in (embedded, filled))
    assert json.dumps(found.to_dict()) == json.dumps(wanted.to_dict())


def test_lineages_by_push_are_the_same(filled: Atlas, embedded: Atlas) -> None:
    for seed in ("planted/3-res-24/7", "planted/2-mlp-24/5"):
        wanted, found = (lineage(a, seed, min_res=0.0, min_module=0.0, k=2, by="push") for a in (embedded, filled))
        assert json.dumps(found.to_dict()) == json.dumps(wanted.to_dict()) and len(wanted.edges) > 3


@pytest.mark.parametrize("text", ["war", "cat film", "ou", "about king", "“king”", "zebra"])
@pytest.mark.parametrize("where", [{}, {"site": "mlp"}, {"site": "res", "layer": 2}])
def test_searches_are_the_same(filled: Atlas, embedded: Atlas, text: str, where: dict[str, Any]) -> None:
    assert search(filled, text, limit=1000, **where) == search(embedded, text, limit=1000, **where)


def test_records_and_overviews_are_the_same(filled: Atlas, embedded: Atlas) -> None:
    for feature in ("planted/3-res-24/7", "planted/2-mlp-24/5", "planted/0-att-24/23"):
        assert show(filled, feature) == show(embedded, feature)
    assert dictionary_rows(filled) == dictionary_rows(embedded) and pair_rows(filled) == pair_rows(embedded)
    assert filled.dictionaries == embedded.dictionaries and list(filled.dictionaries) == list(embedded.dictionaries)
    assert [row["id"] for row in run_rows(filled)[1]] == ["run"] or filled is embedded


def test_a_user_s_query_is_the_same(filled: Atlas, embedded: Atlas) -> None:
    cypher = """
    MATCH p = (b:Feature {site: 'res', layer: $layer})-[:FROM_RES*1..4 {rank: 0}]->(a:Feature)
    UNWIND relationships(p) AS r
    WITH b, a, length(p) AS steps, min(r.similarity) AS weakest
    RETURN b.id AS later, a.id AS earlier, steps, weakest, b, count{MATCH (b)-->()} AS edges
    ORDER BY later, earlier, steps
    """
    wanted, found = embedded.answer(cypher, {"layer": 4}), filled.answer(cypher, {"layer": 4})
    assert found == wanted and len(found.rows) > 50
    cut = filled.answer(cypher, {"layer": 4}, limit=5)
    assert cut.rows == wanted.rows[:5] and cut.more


# --- guard --------------------------------------------------------------------------------------------------------

REFUSED = (
    "CREATE (n:Feature) RETURN n",
    "MATCH (n:Feature) SET n.label = 'x' RETURN n",
    "MATCH (n) DETACH DELETE n",
    "MERGE (n:Model {id: 'x'}) RETURN n",
    "MATCH (n:Feature) REMOVE n.label RETURN n",
    "LOAD CSV FROM 'file:///etc/passwd' AS line RETURN line",
    "DROP INDEX feature_place",
    "EXPLAIN CREATE (n:Feature)",
    "PROFILE CREATE (n:Feature)",
    "RETURN 1 AS x; MATCH (n) DETACH DELETE n",
    "",
)


@pytest.mark.parametrize("cypher", REFUSED)
def test_what_does_more_than_read_is_refused(filled: Atlas, cypher: str) -> None:
    before = digest(filled.store)
    with pytest.raises(QueryError):
        filled.query(cypher)
    assert digest(filled.store) == before


@pytest.mark.slow
def test_bounds(filled: Atlas) -> None:
    assert len(filled.query("MATCH (f:Feature) RETURN f.id", limit=7)) == 7
    with pytest.raises(QueryError, match="did not end"):
        filled.query("UNWIND range(1, 100000) AS x UNWIND range(1, 100000) AS y RETURN sum(x * y)", timeout=1)
    with pytest.raises(QueryTooLarge):
        filled.store.query("UNWIND range(1, 100000) AS x RETURN x, 'text'", {}, limit=0, timeout=20, max_bytes=1000)
    with pytest.raises(QueryError, match=r"\$?x"):
        filled.query("RETURN $x AS x")
    with pytest.raises(QueryError, match="no parameter \\$y"):
        filled.query("RETURN $x AS x", x=1, y=2)
    for wrong, message in ((1 << 63, "64 bits"), (["\ud800"], "surrogate"), ({"a": float("inf")}, "JSON")):
        with pytest.raises(QueryError, match=f"parameters are JSON values.*{message}"):
            filled.query("RETURN $x AS x", x=wrong)
    with pytest.raises(QueryError, match=r"Unicode|not allowed"):
        filled.query("RETURN '\ud800' AS x")
    assert filled.query("RETURN $x AS x, $y AS y", x=-(1 << 63), y="é") == [{"x": -(1 << 63), "y": "é"}]
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(QueryError, match="JSON values"):
        filled.query("RETURN $x AS x", x=deep)
    with pytest.raises(QueryError):
        filled.query("MATCH (f:Feature RETURN f")
    assert filled.query("RETURN 1 AS x") == [{"x": 1}]


def test_refusal_is_told_from_a_mistake(filled: Atlas) -> None:
    with pytest.raises(QueryRefused):
        filled.query("MATCH (n) DETACH DELETE n")

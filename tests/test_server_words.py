"""A server's full-text index finds what a look at every feature finds, row by row; without it, they are looked at."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from neo4j_for_tests import Server, emptied
from reads import noted_reads
from saes import planted

from atlas import open_atlas
from atlas.address import ServerAddress
from atlas.atlas import Atlas
from atlas.cli.main import _run
from atlas.graph.binding import bind
from atlas.server.connect import Connection
from atlas.server.schema import full_text_query
from queries.search import AMONG, SEARCH, search

MODULE = importlib.import_module("queries.search")  # whose name is the function's in its package
LONG = "q" * 250 + "zebracrossing" + "x" * 300
LABELS = [
    *(
        "war",
        "War and peace",
        "anti-war",
        "war\tx",
        "thin\u2009war",
        "nb\u00a0war",
        "war\u200bzero",
        "warfare, WAR",
        "İwar",
    ),
    *(
        "don't",
        "a.b.war",
        "war_film",
        "film2",
        "3rd war",
        "1,000.50",
        "gpt2x4",
        "wår",
        "war\u0301",
        "«war»",
        "语war言",
        "ǅwar",
        "K\u212awar",
    ),
    *(
        LONG,
        f"{LONG} war",
        "war " * 200,
        "film (war)",
        "[a-z]+",
        "*war*",
        '"war"',
        "“war”",
        "e\u0301war",
        "",
        "x" * 254 + "war",
    ),
]
TEXTS = (
    *(
        "war",
        "film",
        "war film",
        "ar",
        "zebracrossing",
        "zebra",
        "anti-war",
        "don't",
        "a.b.war",
        "thin",
        "zero",
        "i̇war",
    ),
    *(
        "3rd",
        "000",
        "t2x",
        "00.50",
        "wår",
        "语war",
        "[a-z]+",
        "*war*",
        "“war”",
        "xwar",
        "qqqq",
        "nothing",
        "kwar",
        "K\u212awar",
        "war w",
    ),
)


@pytest.fixture(scope="module", params=["neo4j_lts", "neo4j_current"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """An atlas on a server whose features have these labels, tokens and promoted tokens."""
    server: Server = request.getfixturevalue(request.param)
    uri, folder = emptied(server), tmp_path_factory.mktemp("words")
    bind(folder / "a", ServerAddress.parse(uri))
    assert _run(["ingest", str(planted(folder / "saes", range(2))), "-a", str(folder / "a")]) == 0
    rows = [
        {"dictionary": f"tiny-1m/{layer}-{site}-64", "index": i, "label": LABELS[i % len(LABELS)]}
        | {"fires_on": LABELS[(7 * i + layer) % len(LABELS)], "promotes": LABELS[(11 * i + 3) % len(LABELS)]}
        for layer in range(2)
        for site in ("res", "mlp")
        for i in range(64)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")
    assert _run(["label", "--import", str(folder / "labels.parquet"), "-a", str(folder / "a")]) == 0
    with open_atlas(uri) as opened:
        yield opened


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("where", [{}, {"site": "mlp", "layer": 1}, {"limit": 7}])
def test_the_index_answers_as_a_look_at_every_feature(
    filled: Atlas, text: str, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"limit": 1000} | where
    expected = search(filled, text, **asked)
    monkeypatch.setattr(MODULE, "LARGE", 1)
    read = noted_reads(monkeypatch)
    assert search(filled, text, **asked) == expected
    assert read == [SEARCH if full_text_query(text.lower().split()) is None else AMONG]


def test_an_index_that_is_not_as_it_was_made_is_passed_over(filled: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LARGE", 1)
    expected = search(filled, "war", limit=1000)
    connection = Connection(ServerAddress.parse(str(filled.address)))
    connection.run("DROP INDEX feature_words")
    for other in (
        "SHOW INDEXES YIELD name RETURN 1",  # none
        "CREATE FULLTEXT INDEX feature_words FOR (f:Feature) ON EACH [f.label]",
        "CREATE FULLTEXT INDEX feature_words FOR (f:Feature) ON EACH [f.label, f.fires_on, f.promotes] "
        "OPTIONS {indexConfig: {`fulltext.analyzer`: 'whitespace'}}",
    ):
        connection.run(other)
        with open_atlas(str(filled.address)) as again:
            assert again.store.full_text(["war"]) is None
            assert search(again, "war", limit=1000) == expected
        connection.run("DROP INDEX feature_words IF EXISTS")
    connection.close()


def test_the_query_holds_nothing_that_means_something_to_lucene() -> None:
    assert full_text_query(["anti-war", "a.b", "[x-z]+", "film\\", 'to"gether', "語", "gpt2"]) == (
        "(+*anti* +*film* +*gether* +*gpt2* +*war*) /.{255}/"
    )
    assert full_text_query(["ab", "語言", "a1", "1-2"]) is None

"""The page's index of words finds what the search of the graph finds, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saes import planted

from atlas.atlas import Atlas, open_atlas
from atlas.cli.main import _run
from atlas.errors import QueryError
from queries.search import search
from queries.web.word_index import Searcher, WordIndex

WORDS = ("war", "War", "warm", "wool", "re-war", "“war”", "film,", "the film", "Ärger", "语言 模型", "a,b", '"x"', "")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    folder = tmp_path_factory.mktemp("words")
    assert _run(["ingest", str(planted(folder / "saes", range(2))), "-a", str(folder / "a")]) == 0
    random = np.random.default_rng(0)
    names = [f"tiny-1m/{layer}-{site}-64" for layer in range(2) for site in ("res", "mlp", "att") for _ in range(64)]

    def drawn(most: int) -> list[Any]:
        return [[str(word) for word in random.choice(WORDS, random.integers(0, most))] or None for _ in names]

    columns: dict[str, Any] = {"dictionary": names, "index": [*range(64)] * 6}
    columns["label"] = [" ".join(words) if words else None for words in drawn(4)]
    columns |= {"fires_on": drawn(5), "promotes": drawn(5)}
    # Many equal figures: ids decide.
    columns["max_activation"] = [float(value) if value else None for value in random.integers(0, 3, len(names))]
    columns["frequency"] = [0.1 * value for value in random.integers(0, 2, len(names))]
    pq.write_table(pa.table(columns), folder / "labels.parquet")
    assert _run(["label", "--import", str(folder / "labels.parquet"), "-a", str(folder / "a")]) == 0
    with open_atlas(folder / "a") as opened:
        yield opened


@pytest.fixture(scope="module")
def index(atlas: Atlas) -> WordIndex:
    return WordIndex(atlas)


@pytest.mark.parametrize(
    "text",
    ["war", "WAR wool", "r", "war,", "a,b", "film", "ärger", "语言", "“war”", '"x"', "the war film", "nothing", ","],
)
@pytest.mark.parametrize("options", [{}, {"limit": 7}, {"site": "mlp"}, {"layer": 1, "site": "res"}, {"layer": 9}])
def test_the_index_answers_as_the_graph(atlas: Atlas, index: WordIndex, text: str, options: dict[str, Any]) -> None:
    chosen = {"limit": 50} | options
    assert index.search(text, **chosen) == search(atlas, text, **chosen)


def test_the_last_word_is_a_whole_one_too(atlas: Atlas) -> None:
    rows = search(atlas, "war", limit=1000)
    for row in rows:
        texts = [row[name] or "" for name in ("label", "fires_on", "promotes")]
        parts = " ".join(texts).lower()
        for mark in ',"“”':
            parts = parts.replace(mark, " ")
        assert row["exact"] == ("war" in parts.split())


def test_what_is_wrong_is_said_alike(index: WordIndex) -> None:
    for text, options in (("", {}), ("war", {"site": "x"}), ("war", {"limit": 0})):
        with pytest.raises(QueryError):
            index.search(text, **({"limit": 5} | options))


def test_until_it_is_there_the_graph_answers(atlas: Atlas, tmp_path: Path) -> None:
    searcher = Searcher(atlas)
    before = searcher.search("war", limit=5)
    searcher.start()
    searcher.wait()
    assert searcher.index is not None and searcher.search("war", limit=5) == before

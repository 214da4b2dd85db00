"""The index of words finds what the search of the graph finds, row by row; without it the graph answers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reads import noted_reads
from saes import planted

from atlas.atlas import Atlas, open_atlas
from atlas.cli.main import _run
from atlas.errors import QueryError
from atlas.folder.paths import words_folder
from atlas.graph.copying import copy_atlas
from queries.search import SEARCH, _by_index, search

MODULE = importlib.import_module("queries.search")  # whose name is the function's in its package
WORDS = (
    "war",
    "War",
    "warm",
    "wool",
    "re-war",
    "“war”",
    "film,",
    "the film",
    "Ärger",
    "语言 模型",
    "a,b",
    '"x"',
    "",
)


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


@pytest.mark.parametrize(
    "text",
    [
        "war",
        "WAR wool",
        "r",
        "war,",
        "a,b",
        "film",
        "ärger",
        "语言",
        "“war”",
        '"x"',
        "the war film",
        "nothing",
        ",",
    ],
)
@pytest.mark.parametrize("options", [{}, {"limit": 7}, {"site": "mlp"}, {"layer": 1, "site": "res"}, {"layer": 9}])
def test_the_index_answers_as_the_graph(
    atlas: Atlas, text: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"limit": 50} | options
    by_graph = search(atlas, text, **chosen)
    monkeypatch.setattr(MODULE, "LARGE", 1)
    read = noted_reads(monkeypatch)
    assert search(atlas, text, **chosen) == by_graph
    assert SEARCH not in read


def test_what_is_no_space_is_no_space_to_the_index(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tabs, narrow and no-break spaces stand within a word of the graph's search; letters that lower in odd ways."""
    copy_atlas(atlas, str(tmp_path / "a"))
    labels = ["war\tx", "thin\u2009war", "nb\u00a0war", "a\nwar", "war\u200bzero", "  war  ", "İx", "ΣΊΣΥΦΟΣ", "ẞ", "ǅ"]
    new = pa.table({"dictionary": ["tiny-1m/0-res-64"] * len(labels), "index": [*range(len(labels))], "label": labels})
    pq.write_table(new, tmp_path / "new.parquet")
    assert _run(["label", "--import", str(tmp_path / "new.parquet"), "-a", str(tmp_path / "a")]) == 0
    with open_atlas(tmp_path / "a") as labelled:
        for text in ("war", "x", "thin", "nb", "a", "zero", "İx", "i̇x", "σίσυφος", "σίσυφοσ", "ß", "ẞ", "ǆ"):
            monkeypatch.setattr(MODULE, "LARGE", 10**9)
            by_graph = search(labelled, text, limit=300)
            monkeypatch.setattr(MODULE, "LARGE", 1)
            assert search(labelled, text, limit=300) == by_graph, text


def test_the_last_word_is_a_whole_one_too(atlas: Atlas) -> None:
    rows = search(atlas, "war", limit=1000)
    for row in rows:
        texts = [row[name] or "" for name in ("label", "fires_on", "promotes")]
        parts = " ".join(texts).lower()
        for mark in ',"“”':
            parts = parts.replace(mark, " ")
        assert row["exact"] == ("war" in parts.split())


def test_the_index_follows_the_state_and_goes_with_a_copy(atlas: Atlas, tmp_path: Path) -> None:
    copy_atlas(atlas, str(tmp_path / "a"))
    with open_atlas(tmp_path / "a") as copied:
        assert _by_index(copied, ["war"], 9, None, None) == search(atlas, "war", limit=9)
    (first,) = words_folder(tmp_path / "a").iterdir()
    new = pa.table({"dictionary": ["tiny-1m/0-res-64"], "index": [3], "label": ["zebra"]})
    pq.write_table(new, tmp_path / "new.parquet")
    assert _run(["label", "--import", str(tmp_path / "new.parquet"), "-a", str(tmp_path / "a")]) == 0
    (second,) = words_folder(tmp_path / "a").iterdir()
    assert first.name != second.name
    with open_atlas(tmp_path / "a") as labelled:
        found = _by_index(labelled, ["zebra"], 9, None, None)
        assert found is not None and [row["feature"] for row in found] == ["tiny-1m/0-res-64/3"]
        assert second.name == labelled.manifest.state


@pytest.mark.parametrize(
    "name",
    [
        *("pieces.txt", "features.npy", "places.npy", "dictionaries.json"),
        *("texts.arrow", "frequency.npy", "spaces.npy"),
    ],
)
def test_a_damaged_index_is_not_asked(atlas: Atlas, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of what decides which features are found; the graph has the same words, and answers."""
    copy_atlas(atlas, str(tmp_path / "a"))
    (place,) = words_folder(tmp_path / "a").iterdir()
    data = bytearray((place / name).read_bytes())
    if name == "texts.arrow":
        # Of the words that rows are ordered by.
        data[data.index(b"war")] ^= 1
    elif name in ("frequency.npy", "spaces.npy"):
        data[128] ^= 1
    elif name == "features.npy":
        # What has the piece "war": any bit of its features.
        with open_atlas(tmp_path / "a") as opened:
            index = opened.words
            assert index is not None
            line = index.pieces.decode().splitlines().index("war")
            data[128 + 4 * int(index.arrays["starts"][line])] ^= 1
    else:
        data[-3] ^= 1
    (place / name).write_bytes(data)
    monkeypatch.setattr(MODULE, "LARGE", 1)
    with open_atlas(tmp_path / "a") as opened:
        assert _by_index(opened, ["war"], 50, None, None) is None
        assert search(opened, "war", limit=50) == search(atlas, "war", limit=50)


def test_what_is_wrong_is_said_alike(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LARGE", 1)
    for text, options in (("", {}), ("war", {"site": "x"}), ("war", {"limit": 0})):
        with pytest.raises(QueryError):
            search(atlas, text, **({"limit": 5} | options))

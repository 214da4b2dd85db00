"""Rows as lists and as frames; one id where a list is wanted; an atlas after it was closed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import Planted
from saes import planted as write_saes

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.errors import AtlasError, ClosedAtlas
from atlas.graph.copying import copy_atlas
from atlas.rows import Rows
from ingest import ingest
from queries import SteeringPlan, ask, lineage, neighbours, search, show

FEATURE = "tiny-1m/1-res-64/3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of three sites, 64 features each, without labels."""
    place = tmp_path_factory.mktemp("rows")
    ingest(write_saes(place / "saes", range(2)), place / "atlas")  # one source, not a list of them
    return place / "atlas"


@pytest.fixture(scope="module")
def atlas(folder: Path) -> Iterator[Atlas]:
    with open_atlas(folder) as opened:
        yield opened


def test_every_answer_becomes_a_frame(atlas: Atlas) -> None:
    cypher = "MATCH (f:Feature {id: $id}) RETURN f.id AS id, f.index AS `index`, f.s_mlp AS s_mlp, f.label AS label"
    answers: dict[str, Rows] = {
        "query": atlas.query(cypher, id=FEATURE),
        "ask": ask(atlas, "hubs"),
        "show": show(atlas, FEATURE),
        "neighbours": neighbours(atlas, FEATURE),
    }
    for name, rows in answers.items():
        frame = rows.to_pandas()
        assert list(frame.columns) == list(rows.columns) and len(frame) == len(rows) > 0, name
        for column in rows.columns:
            told = [(row.get(column), value) for row, value in zip(rows, frame[column], strict=True)]
            assert all(mine == value for mine, value in told if mine is not None), (name, column)
    assert answers["query"] == [dict(answers["query"][0])] and isinstance(answers["query"], list)
    # The other part's rows have no rank: whole numbers stay whole numbers.
    assert str(answers["show"].to_pandas()["rank"].dtype) == "Int64"
    nothing = search(atlas, "war")
    assert nothing == [] and list(nothing.to_pandas().columns)[:2] == ["feature", "label"]


def test_a_lineage_becomes_two_frames(atlas: Atlas) -> None:
    graph = lineage(atlas, FEATURE, min_res=-1, min_module=-1, k=2)
    nodes, edges = graph.to_pandas()
    assert list(nodes["id"]) == [node.id for node in graph.nodes] and len(nodes) > 3
    assert list(edges["similarity"]) == [edge.similarity for edge in graph.edges]
    alone = lineage(atlas, FEATURE, min_res=1, min_module=1)
    assert [list(frame.columns) for frame in alone.to_pandas()] == [list(nodes.columns), list(edges.columns)]


def test_without_pandas_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Rows([{"a": 1}, {"b": None}]).columns == ("a", "b")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AtlasError, match="pip install pandas"):
        Rows([{"a": 1}]).to_pandas()


def test_missing_values_keep_the_type() -> None:
    frame = Rows([{"n": 1, "yes": None, "x": 0.5}, {"n": None, "yes": True, "x": None}]).to_pandas()
    assert [str(dtype) for dtype in frame.dtypes] == ["Int64", "boolean", "float64"]
    assert frame["n"].sum() == 1 and frame["x"].isna().sum() == 1


def test_one_id_is_that_id(atlas: Atlas) -> None:
    one = atlas.directions("1-res-64/3")
    assert one.shape == (1, 48) and np.array_equal(one, atlas.directions([FEATURE]))
    assert np.array_equal(one, atlas.directions((FEATURE,)))
    plan = SteeringPlan.from_features(atlas, FEATURE, strength=2)
    assert [each.feature for each in plan.interventions] == [FEATURE] and plan.origin is not None
    assert plan.origin["features"] == [FEATURE]
    assert neighbours(atlas, FEATURE, dictionaries="0-res-64") == neighbours(atlas, FEATURE, dictionaries=["0-res-64"])


USES: dict[str, Callable[[Atlas], Any]] = {
    "query": lambda atlas: atlas.query("RETURN 1 AS one"),
    "answer": lambda atlas: atlas.answer("RETURN 1 AS one", {}),
    "read": lambda atlas: atlas.read("MATCH (d:Dictionary) RETURN d.id AS id"),
    "ask": lambda atlas: ask(atlas, "dead"),
    "lineage": lambda atlas: lineage(atlas, "planted/3-res-24/7"),
    "search": lambda atlas: search(atlas, "war"),
    "locate": lambda atlas: atlas.locate("planted/3-res-24/7"),
    "contexts": lambda atlas: atlas.contexts("planted/3-res-24/7"),
    "rows": lambda atlas: atlas.rows("planted/3-res-24"),
    "dictionaries": lambda atlas: atlas.dictionaries,
}


def test_use_after_close_is_an_error_that_says_so(empty: str | None, tmp_path: Path) -> None:
    source = Planted(range(4), seed=2).at(tmp_path / "atlas")
    if empty is not None:
        with open_atlas(source) as opened:
            copy_atlas(opened, empty)
    with open_atlas(empty or source) as opened:
        for name in ("query", "ask", "lineage", "search", "locate"):
            assert USES[name](opened), name
    for name, use in USES.items():
        with pytest.raises(ClosedAtlas, match="is closed; open it again") as raised:
            use(opened)
        assert opened.address in str(raised.value), name
    opened.close()  # twice is no error

"""Parameters as people have them at hand: the same values on both stores, or one line that names the parameter."""

from __future__ import annotations

import datetime
import decimal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from planted import Planted

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.errors import QueryError
from atlas.graph.parameters import plain_parameters

IDS = [f"planted/2-res-24/{i}" for i in range(3)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.int64(9), 9),
        (np.uint8(9), 9),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.5], [2.0]]), [[1.5], [2.0]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(3), 3),
        (np.array(["a", None], dtype=object), ["a", None]),
        (pd.Series(["a", "b"], index=[5, 6]), ["a", "b"]),
        (pd.Index([1, 2]), [1, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.DataFrame({"id": ["a"], "n": [1]}), {"id": ["a"], "n": [1]}),
        (pd.NA, None),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor(0.5), 0.5),
        (("a", "b"), ["a", "b"]),
        ({"a"}, ["a"]),
        (frozenset([1]), [1]),
        (dict.fromkeys("ab").keys(), ["a", "b"]),
        ((i for i in (1, 2)), [1, 2]),
        ({"a": np.int64(3), "b": (1,)}, {"a": 3, "b": [1]}),
        ([np.str_("a"), None, 1], ["a", None, 1]),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_taken(given: Any, wanted: Any) -> None:
    found = plain_parameters({"x": given})["x"]
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (float("nan"), "NaN"),
        (np.float64("inf"), "infinities"),
        (np.array([1.0, np.nan]), "NaN"),
        (2**70, "64 bits"),
        ("\ud800", "surrogate"),
        (decimal.Decimal(1), "Decimal"),
        (datetime.date(2020, 1, 1), "date"),
        (pd.Timestamp("2020-01-01"), "Timestamp"),
        (Path("a"), "Path"),
        (b"x", "bytes"),
        ({1: 2}, "key"),
        (object(), "object"),
        ([1j], "complex"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused(given: Any, message: str) -> None:
    with pytest.raises(QueryError, match=rf"parameters are JSON values.*\$x.*{message}"):
        plain_parameters({"x": given})


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    with open_atlas(Planted(range(4)).at(tmp_path_factory.mktemp("parameters") / "atlas")) as atlas:
        yield atlas


def test_a_dict_or_keywords(atlas: Atlas) -> None:
    cypher = "MATCH (f:Feature {layer: $l, index: $i}) RETURN count(*) AS n"
    for given, named in (({"l": 1, "i": 2}, {}), ({}, {"l": 1, "i": 2}), ({"l": np.int8(1)}, {"i": np.int16(2)})):
        assert atlas.query(cypher, given, **named) == [{"n": 3}]
    with pytest.raises(QueryError, match=r"\$l is given twice"):
        atlas.query(cypher, {"l": 1, "i": 2}, l=3)
    with pytest.raises(QueryError, match="a dict or keyword"):
        atlas.query(cypher, [1])  # type: ignore[arg-type]


def test_lists_with_null_and_of_several_types(atlas: Atlas) -> None:
    cypher = "MATCH (f:Feature) WHERE f.id IN $ids RETURN count(*) AS n"
    for ids in (set(IDS), pd.Series(IDS), (each for each in IDS), [*IDS, None], [*IDS, *IDS], np.array(IDS)):
        assert atlas.query(cypher, ids=ids) == [{"n": 3}]
    assert atlas.query(cypher, ids=[]) == atlas.query(cypher, ids=[None]) == [{"n": 0}]
    # No engine's process ends of it: computed in Python.
    assert atlas.query(cypher, ids=[*IDS, 1]) == [{"n": 3}]
    mixed = ["a", 1, None, [2.5]]
    assert atlas.query("RETURN $x AS x, size($x) AS n", x=mixed) == [{"x": mixed, "n": 4}]
    absent = "MATCH (f:Feature {layer: 0}) WHERE NOT f.index IN $x RETURN count(*) AS n"
    assert [atlas.query(absent, x=x)[0]["n"] for x in ([0, 1], [0, None], [], [0.0, 1.5])] == [66, 0, 72, 69]


@pytest.mark.slow
@pytest.mark.parametrize("size", [50_000, 200_000])
def test_long_lists_are_joined(atlas: Atlas, size: int) -> None:
    ids = [f"x{i}" for i in range(size)] + IDS + IDS[:1]
    start = time.monotonic()
    assert atlas.query("MATCH (f:Feature) WHERE f.id IN $ids RETURN count(*) AS n", ids=ids) == [{"n": 3}]
    cypher = "MATCH (f:Feature)-[e {rank: 0}]->(g) WHERE f.id IN $ids AND f.layer = 2 RETURN count(DISTINCT f) AS n"
    assert atlas.query(cypher, {"ids": ids}) == [{"n": 3}]
    behind = (
        "MATCH (d:Dictionary {layer: 2}) MATCH (f:Feature {layer: d.layer}) WHERE f.id IN $ids RETURN count(f) AS n"
    )
    with pytest.raises(QueryError, match="first MATCH"):
        atlas.query(behind, ids=ids)
    assert atlas.query(behind, ids=ids[-100:]) == [{"n": 9}]
    assert time.monotonic() - start < 20

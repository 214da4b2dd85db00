"""Every named question against the same question answered in plain Python over the planted arrays."""

from __future__ import annotations

import importlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from neo4j_for_tests import Server, emptied
from planted import MIN_RES, Planted

from atlas import schema
from atlas.atlas import Atlas, open_atlas
from atlas.errors import QueryError, UnknownFeature
from atlas.graph.copying import copy_atlas
from queries.questions.questions import QUESTIONS, ask, find_question

ALL = 10_000
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(range(6), seed=1)


@pytest.fixture(scope="module")
def atlas(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    with open_atlas(planted.at(tmp_path_factory.mktemp("questions") / "atlas")) as opened:
        yield opened


class Reference:
    """Answers worked out over lists; each returns the rows' values in the question's order."""

    def __init__(self, planted: Planted) -> None:
        self.planted = planted
        self.features = planted.features()
        self.edges = planted.edge_rows()

    def pick(self, layer: int | None, keep: Callable[[dict[str, Any]], bool]) -> Rows:
        return [f for f in self.features.values() if layer in (None, f["layer"]) and keep(f)]

    def walk(self, start: str, rank: str) -> dict[str, tuple[int, float]]:
        """Features reached from the start by edges whose `rank` is 0: steps and weakest similarity."""
        here, there = ("source", "target") if rank == "rank" else ("target", "source")
        reached: dict[str, tuple[int, float]] = {}
        frontier = {start: (0, 1.0)}
        while frontier:
            following = {}
            for name, (steps, weakest) in frontier.items():
                for edge in self.edges:
                    if edge[here] == name and edge[rank] == 0:
                        following[edge[there]] = (steps + 1, min(weakest, edge["similarity"]))
            reached |= following
            frontier = following
        return reached

    def mutual(self, least: float) -> dict[str, tuple[str, float]]:
        """Mutual best residual matches: later feature -> (earlier feature, similarity)."""
        return {
            e["source"]: (e["target"], e["similarity"])
            for e in self.edges
            if e["type"] == "FROM_RES" and e["rank"] == e["forward_rank"] == 0 and e["similarity"] >= least
        }


@pytest.fixture(scope="module")
def reference(planted: Planted) -> Reference:
    return Reference(planted)


def column(rows: Rows, *names: str) -> list[Any]:
    return [tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in rows]


@pytest.mark.parametrize("layer", [None, 3])
def test_born_here(atlas: Atlas, reference: Reference, layer: int | None) -> None:
    rows = reference.pick(layer, lambda f: f["lifecycle"] == "appears")
    rows.sort(key=lambda f: (-max(f["s_mlp"], f["s_att"]), f["id"]))
    assert rows
    assert column(ask(atlas, "born-here", layer=layer, limit=ALL), "feature", "origin") == column(rows, "id", "origin")


@pytest.mark.parametrize("layer", [None, 2])
def test_dies_here(atlas: Atlas, reference: Reference, layer: int | None) -> None:
    rows = reference.pick(layer, lambda f: f["s_next"] is not None and f["s_next"] < MIN_RES)
    rows.sort(key=lambda f: (f["s_next"], f["id"]))
    assert rows
    assert column(ask(atlas, "dies-here", layer=layer, limit=ALL), "feature", "s_next") == column(rows, "id", "s_next")


@pytest.mark.parametrize("layer", [None, 4])
def test_most_transformed(atlas: Atlas, reference: Reference, layer: int | None) -> None:
    rows = reference.pick(layer, lambda f: f["lifecycle"] == "transforms")
    rows.sort(key=lambda f: (-(max(f["s_mlp"], f["s_att"]) - f["s_res"]), f["id"]))
    assert rows
    assert column(ask(atlas, "most-transformed", layer=layer, limit=ALL), "feature") == column(rows, "id")


def test_unexplained(atlas: Atlas, reference: Reference) -> None:
    rows = reference.pick(None, lambda f: f["lifecycle"] == "unexplained")
    rows.sort(key=lambda f: (f["s_res"], f["id"]))
    assert rows
    assert column(ask(atlas, "unexplained", limit=ALL), "feature") == column(rows, "id")


@pytest.mark.parametrize("site", ["mlp", "att"])
def test_written_by(atlas: Atlas, reference: Reference, site: str) -> None:
    rows = reference.pick(None, lambda f: f[f"s_{site}"] is not None)
    rows.sort(key=lambda f: (-f[f"s_{site}"], f["id"]))
    assert column(ask(atlas, "written-by", site=site, limit=ALL), "feature", "written") == column(
        rows, "id", f"s_{site}"
    )


@pytest.mark.parametrize("least", [0.0, 0.5, 0.8])
def test_longest_lived(atlas: Atlas, reference: Reference, least: float) -> None:
    before = reference.mutual(least)
    continued = {earlier for earlier, _ in before.values()}
    chains = []
    for last in before.keys() - continued:
        at, steps, weakest = last, 0, 1.0
        while at in before:
            at, similarity = before[at]
            steps, weakest = steps + 1, min(weakest, similarity)
        chains.append((-steps, -weakest, last, at))
    expected = [(first, last, -steps, -weakest) for steps, weakest, last, first in sorted(chains)]
    rows = ask(atlas, "longest-lived", min_similarity=least, limit=ALL)
    assert rows == atlas.read(QUESTIONS["longest-lived"].cypher, min_similarity=least, limit=ALL)
    assert ask(atlas, "longest-lived", min_similarity=least, limit=3) == rows[:3]
    assert column(rows, "first", "last", "steps", "weakest") == expected
    assert all(row["to_layer"] - row["from_layer"] == row["steps"] for row in rows)


@pytest.mark.parametrize("least", [0.0, 0.4])
@pytest.mark.parametrize(("name", "rank"), [("ancestors", "rank"), ("descendants", "forward_rank")])
def test_ancestors_and_descendants(atlas: Atlas, reference: Reference, name: str, rank: str, least: float) -> None:
    for feature in ("planted/5-res-24/3", "planted/2-res-24/4", "planted/1-mlp-24/5", "planted/5-res-24/23"):
        reached = [(f, *way) for f, way in reference.walk(feature, rank).items() if way[1] >= least]
        expected = sorted(reached, key=lambda row: (row[1], row[0]))
        assert (
            column(ask(atlas, name, feature, min_similarity=least, limit=ALL), "feature", "steps", "weakest")
            == expected
        )


def test_shared_ancestors(atlas: Atlas, reference: Reference) -> None:
    met = 0
    for i in range(12):
        later, earlier = f"planted/5-res-24/{i}", f"planted/{3 + i % 3}-res-24/{i + 5}"
        one, two = (reference.walk(name, "rank") | {name: (0, 1.0)} for name in (later, earlier))
        if earlier.startswith("planted/5"):
            later, earlier, one, two = earlier, later, two, one
        expected = sorted((one[f][0] + two[f][0], f) for f in one.keys() & two.keys())
        rows = ask(atlas, "shared-ancestors", earlier, later, limit=ALL)
        assert [(row["later_steps"] + row["earlier_steps"], row["feature"]) for row in rows] == expected
        met += bool(expected)
    assert met >= 3


def test_path(atlas: Atlas, reference: Reference) -> None:
    later = "planted/5-res-24/3"
    for earlier in [*reference.walk(later, "rank"), "planted/1-res-24/3"]:
        found = []
        for rank, start, end in (("rank", later, earlier), ("forward_rank", earlier, later)):
            reached = reference.walk(start, rank)
            if end in reached:
                # An edge lies on the way where its ends do: one is reached from the start, the other reaches the end.
                on = {n for n in [start, *reached] if n == end or end in reference.walk(n, rank)}
                edges = [e for e in reference.edges if e[rank] == 0 and e["source"] in on and e["target"] in on]
                edges.sort(key=lambda e: (-reference.features[e["source"]]["depth"], e["source"], e["target"]))
                found += [(rank, e["source"], e["target"], e["similarity"]) for e in edges]
        for ends in ((later, earlier), (earlier, later)):
            assert column(ask(atlas, "path", *ends, limit=ALL), "along", "source", "target", "similarity") == found


def test_writes(atlas: Atlas, reference: Reference) -> None:
    module = "planted/3-mlp-24/2"
    rows = sorted((-e["similarity"], e["source"]) for e in reference.edges if e["target"] == module)
    assert column(ask(atlas, "writes", module, limit=ALL), "similarity", "feature") == [(-s, f) for s, f in rows]


@pytest.mark.parametrize(("site", "layer"), [(None, None), ("mlp", None), ("res", 2)])
def test_hubs(atlas: Atlas, reference: Reference, site: str | None, layer: int | None) -> None:
    wins = Counter(e["target"] for e in reference.edges if e["rank"] == 0)
    rows = [(-n, f) for f, n in wins.items() if site in (None, reference.features[f]["site"])]
    rows = sorted(row for row in rows if layer in (None, reference.features[row[1]]["layer"]))
    assert column(ask(atlas, "hubs", site=site, layer=layer, limit=ALL), "wins", "feature") == [
        (-n, f) for n, f in rows
    ]


def test_twins(atlas: Atlas, reference: Reference) -> None:
    rows = sorted((-s, b, a) for b, (a, s) in reference.mutual(0.6).items())
    found = ask(atlas, "twins", min_similarity=0.6, limit=ALL)
    assert [(-row["similarity"], row["later"], row["earlier"]) for row in found] == rows


@pytest.mark.parametrize(
    ("name", "rank", "whole"), [("splits", "rank", "target"), ("merges", "forward_rank", "source")]
)
def test_splits_and_merges(atlas: Atlas, reference: Reference, name: str, rank: str, whole: str) -> None:
    parts = defaultdict(list)
    for e in reference.edges:
        if e["type"] == "FROM_RES" and e[rank] == 0 and e["similarity"] >= 0.4:
            parts[e[whole]].append(e["similarity"])
    rows = sorted((-len(s), -min(s), f, max(s)) for f, s in parts.items() if len(s) > 1)
    assert rows
    found = ask(atlas, name, min_similarity=0.4, limit=ALL)
    assert [(-row["parts"], -row["weakest"], row["feature"], row["strongest"]) for row in found] == rows


@pytest.mark.parametrize("site", [None, "att"])
def test_strongest(atlas: Atlas, reference: Reference, site: str | None) -> None:
    edges = [e for e in reference.edges if site is None or f"-{site}-" in e["target"]]
    rows = sorted((-e["similarity"], e["source"], e["target"]) for e in edges)
    found = ask(atlas, "strongest", site=site, limit=ALL)
    assert [(-row["similarity"], row["later"], row["earlier"]) for row in found] == rows
    assert len(ask(atlas, "strongest", site=site)) == 20


def test_strongest_by_push(atlas: Atlas, reference: Reference) -> None:
    rows = sorted((-e["push"], e["source"], e["target"]) for e in reference.edges if e["push"] is not None)
    found = ask(atlas, "strongest-push", limit=ALL)
    assert [(-row["push"], row["later"], row["earlier"]) for row in found] == rows and rows[-1][0] > 0


@pytest.mark.parametrize("name", ["strongest", "strongest-push"])
@pytest.mark.parametrize("where", [{}, {"site": "mlp"}, {"layer": 3}, {"site": "res", "layer": 2}, {"layer": 0}])
def test_few_of_the_strongest_are_the_first_of_all(atlas: Atlas, name: str, where: dict[str, Any]) -> None:
    """A server's statement looks only at edges above a bound, which depends on how many are asked for."""
    values = {"site": None, "layer": None} | where
    everything = atlas.read(QUESTIONS[name].cypher, **values, limit=ALL)
    for limit in (1, 2, 7, 30, 300, ALL):
        assert ask(atlas, name, limit=limit, **where) == everything[:limit]


def test_a_server_answers_every_question_as_the_folder_does(atlas: Atlas, neo4j_lts: Server) -> None:
    """Some by statements of its own."""
    address = emptied(neo4j_lts)
    copy_atlas(atlas, address)
    features = ["planted/5-res-24/3", "planted/2-res-24/4"]
    with open_atlas(address) as server:
        assert server.manifest.store is not None
        for name, question in QUESTIONS.items():
            if not question.by_rows:
                about = features[: len(question.features)]
                assert ask(server, name, *about, limit=ALL) == ask(atlas, name, *about, limit=ALL), name
        wheres: list[dict[str, Any]] = [{}, {"site": "mlp", "layer": 3}]
        for name in ("strongest", "strongest-push", "alike-and-together", "alike-never-together"):
            for limit in (1, 7, 30):
                for where in wheres:
                    assert ask(server, name, limit=limit, **where) == ask(atlas, name, limit=limit, **where)


def test_orphans(atlas: Atlas, reference: Reference) -> None:
    taken = {e["target"] for e in reference.edges if e["rank"] == 0}
    rows = reference.pick(None, lambda f: f["site"] != "res" and not f["dead"] and f["id"] not in taken)
    rows.sort(key=lambda f: (f["depth"], f["index"]))
    assert rows
    assert column(ask(atlas, "orphans", limit=ALL), "feature") == column(rows, "id")


def test_lifecycle(atlas: Atlas, reference: Reference) -> None:
    living = [f for f in reference.features.values() if f["lifecycle"]]
    counts = Counter((f["layer"], f["lifecycle"], f["origin"]) for f in living)
    found = ask(atlas, "lifecycle", limit=ALL)
    assert column(found, "layer", "lifecycle", "origin", "features") == [(*key, n) for key, n in sorted(counts.items())]


def test_turnover(atlas: Atlas, reference: Reference) -> None:
    for row, layer in zip(ask(atlas, "turnover"), range(6), strict=True):
        living = reference.pick(layer, lambda f: f["lifecycle"] is not None)
        cases = Counter(f["lifecycle"] for f in living)
        assert row == {
            "dictionary": f"planted/{layer}-res-24",
            "features": 23,  # of 24, one is dead
            "kept": pytest.approx((cases["persists"] + cases["transforms"]) / 23),
            "born": pytest.approx(cases["appears"] / 23),
            "unexplained": pytest.approx(cases["unexplained"] / 23),
            "vanishing": pytest.approx(sum(bool(f["vanishes"]) for f in living) / 23),
        }


def test_above_floor(atlas: Atlas, reference: Reference) -> None:
    depths = {d.id: d.depth for d in reference.planted.dictionaries}
    shares = defaultdict(list)
    for e in reference.edges:
        if e["rank"] == 0:
            pair = e["source"].rpartition("/")[0], e["target"].rpartition("/")[0]
            shares[pair].append(e["similarity"] > e["floor"])
    expected = [
        (*pair, len(shares[pair]), pytest.approx(sum(shares[pair]) / len(shares[pair])))
        for pair in sorted(shares, key=lambda pair: (depths[pair[0]], pair))
    ]
    assert column(ask(atlas, "above-floor", limit=ALL), "later", "earlier", "matches", "share") == expected


def test_dead(atlas: Atlas, planted: Planted) -> None:
    rows = sorted((d.id, 24, 1, 1 / 24) for d in planted.dictionaries)
    assert column(ask(atlas, "dead", limit=ALL), "dictionary", "features", "dead", "share") == rows


@pytest.mark.parametrize("name", [name for name, question in QUESTIONS.items() if not question.by_rows])
def test_rows_have_the_columns_announced(atlas: Atlas, name: str) -> None:
    features = {0: [], 1: ["planted/3-mlp-24/2"], 2: ["planted/2-res-24/2", "planted/1-res-24/2"]}
    if name == "ancestors":
        features[1] = ["planted/5-res-24/2"]
    if name == "path":
        features[2] = ["planted/5-res-24/2", ask(atlas, "ancestors", "planted/5-res-24/2")[0]["feature"]]
    if name == "shared-ancestors":
        features[2] = ["planted/5-res-24/2"] * 2
    rows = ask(atlas, name, *features[len(QUESTIONS[name].features)], limit=3)
    assert 1 <= len(rows) <= 3
    assert all(list(row) == QUESTIONS[name].columns for row in rows)


def statements() -> dict[str, str]:
    """Every Cypher constant of this side of the house."""
    found = {}
    for module in ("lineage.walk", "show", "questions.cypher", "search", "questions.chains"):
        for name, value in vars(importlib.import_module(f"queries.{module}")).items():
            if name.isupper() and isinstance(value, str) and "RETURN" in value and not name.startswith("_"):
                found[f"{module}.{name}"] = value
    return found


def test_every_name_is_the_schemas() -> None:
    labels = {table.label for table in schema.NODES}
    tables: tuple[schema.NodeTable | schema.EdgeTable, ...] = (*schema.NODES, *schema.EDGES)
    types = {table.type for table in schema.EDGES}
    properties = {name for table in tables for name in table.properties}
    assert len(statements()) >= 22 + 2 + 3 + 2
    for name, text in statements().items():
        assert {label for label in re.findall(r"\(\w*:(\w+)", text)} <= labels, name
        used = {part for group in re.findall(r"\[\w*:([\w|]+)", text) for part in group.split("|")}
        assert used <= types, name
        own = set(re.findall(r"\b(?:step|chain)\.(\w+)", text))  # of maps that the statement makes
        own |= {"queryNodes", "index", "vector"} if "SIMILAR_TO" in name else set()  # of a copy with vectors
        own |= {"queryNodes"} if name == "search.AMONG" else set()  # of a server's full-text index
        assert set(re.findall(r"\b\w+\.`?(\w+)`?", re.sub(r"\d\.\d", "", text))) - own <= properties, name
        maps = set(re.findall(r"[{,]\s*(\w+):", text)) - {"along", "source", "target"}
        assert maps <= properties, name


def test_a_wrong_name_is_met_with_close_ones() -> None:
    with pytest.raises(QueryError, match="did you mean longest-lived"):
        find_question("longest-living")
    with pytest.raises(QueryError, match="there are ancestors, descendants"):
        find_question("zzz")


@pytest.mark.parametrize(
    ("name", "features", "parameters", "message"),
    [
        ("hubs", ["planted/1-res-24/1"], {}, "no feature"),
        ("path", ["planted/1-res-24/1"], {}, "two features"),
        ("hubs", [], {"depth": 3}, "it has site, layer"),
        ("hubs", [], {"layer": "3"}, "a whole number"),
        ("hubs", [], {"layer": True}, "a whole number"),
        ("hubs", [], {"site": "head"}, "one of res, mlp, att"),
        ("twins", [], {"min_similarity": None}, "a number"),
        ("hubs", [], {"limit": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_asked(
    atlas: Atlas, name: str, features: list[str], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        ask(atlas, name, *features, **parameters)


def test_unknown_features_are_named(atlas: Atlas) -> None:
    with pytest.raises(UnknownFeature):
        ask(atlas, "ancestors", "planted/9-res-24/1")

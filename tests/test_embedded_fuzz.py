"""Questions made at random have the same rows on the embedded store as in other engines; `cypher_fuzz.py` runs more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cypher_fuzz import Ask, arcade, compare, graph, neo4j
from neo4j_for_tests import Server, emptied
from planted import Planted

from atlas.embedded.store import LadybugStore

SEEDS = range(60)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return graph()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, planted: Planted) -> Iterator[LadybugStore]:
    folder = tmp_path_factory.mktemp("fuzz")
    store = LadybugStore(folder, planted.state, LadybugStore(folder, None).publish(planted))
    yield store
    store.close()


def check(store: LadybugStore, other: Ask, planted: Planted) -> None:
    ids = sorted(planted.features())
    found = [compare(store, other, seed, ids) for seed in SEEDS]
    kinds = [kind for kind, _ in found]
    assert not [what for kind, what in found if kind == "different"]
    # Few are refused, and the other engine answers nearly all that this one does (some take Neo4j too long).
    slow = [what for kind, what in found if kind == "other"]
    assert kinds.count("same") > 0.65 * len(SEEDS) and len(slow) <= len(SEEDS) // 5, slow


@pytest.mark.slow
def test_the_same_rows_as_arcadedb(store: LadybugStore, planted: Planted, tmp_path: Path) -> None:
    check(store, arcade(planted, tmp_path), planted)


def test_the_same_rows_as_neo4j(store: LadybugStore, planted: Planted, neo4j_lts: Server) -> None:
    check(store, neo4j(planted, emptied(neo4j_lts)), planted)

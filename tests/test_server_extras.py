"""A copy's dress and vectors on a real server: the graph stays the graph, and the nearest rows are the nearest."""

from __future__ import annotations

from pathlib import Path

import neo4j
import numpy as np
import pytest
from click.testing import CliRunner
from neo4j_for_tests import PASSWORD, emptied
from saes import planted

from atlas import open_atlas
from atlas.cli.main import root
from atlas.errors import StoreError
from atlas.graph.copying import copy_atlas
from atlas.graph.digest import digest
from ingest import ingest
from queries import ask, lineage
from queries.questions.questions import QUESTIONS

SEED = "tiny-1m/1-res-64/3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("extras")
    ingest([planted(base / "saes", range(3))], base / "a")
    return base / "a"


def rows(uri: str, cypher: str) -> list[dict[str, object]]:
    with neo4j.GraphDatabase.driver(uri, auth=("neo4j", PASSWORD)) as driver:
        return [record.data() for record in driver.execute_query(cypher).records]


@pytest.mark.parametrize("server", ["neo4j_lts", "neo4j_current"])
def test_a_dress_and_vectors_are_no_part_of_the_graph(
    server: str, request: pytest.FixtureRequest, folder: Path, tmp_path: Path
) -> None:
    uri = emptied(request.getfixturevalue(server))
    done = CliRunner().invoke(root, ["copy", "-a", str(folder), "--to", uri, "--dress", "--vectors"])
    assert done.exit_code == 0, done.output
    assert rows(uri, "MATCH (f:Mlp)-[:IN]->(d:Dictionary)-[:OF]->(:Model) RETURN count(f) AS n") == [{"n": 3 * 64}]
    with open_atlas(folder) as here, open_atlas(uri) as there:
        assert digest(there.store) == digest(here.store) and there.store.searchable()
        for name, question in QUESTIONS.items():
            if not question.by_rows:
                ends = [SEED, "tiny-1m/0-res-64/3"][: len(question.features)]
                assert ask(there, name, *ends, limit=50) == ask(here, name, *ends, limit=50), name
        assert lineage(there, SEED).to_dict() == lineage(here, SEED).to_dict()
        # A node is what the schema says, whatever labels and vectors it has beside it.
        whole = f"MATCH (f:Feature {{id: '{SEED}'}}) RETURN f AS f"
        assert there.query(whole) == here.query(whole)
        # 50 features, the ten nearest of each in nine dictionaries: by the index as by every product in float64.
        for index in range(50):
            feature = f"tiny-1m/{index % 3}-res-64/{index}"
            wanted, found = ask(here, "similar-to", feature, limit=10), ask(there, "similar-to", feature, limit=10)
            assert [row["feature"] for row in found] == [row["feature"] for row in wanted]
            assert np.allclose([r["similarity"] for r in found], [r["similarity"] for r in wanted], atol=1e-6)
        nearest = "CALL db.index.vector.queryNodes('feature_vectors', 2, $v) YIELD node, score RETURN node.id AS id"
        vector = here.directions([SEED])[0].tolist()
        assert there.query(nearest, {"v": vector})[0] == {"id": SEED}
    # Copied back, it is the atlas; copied again, nothing changes.
    with open_atlas(uri) as there:
        assert copy_atlas(there, str(tmp_path / "back")).digest == digest(there.store)
    again = CliRunner().invoke(root, ["copy", "-a", str(folder), "--to", uri, "--dress", "--vectors"])
    assert again.exit_code == 0, again.output


def test_a_later_write_takes_its_features_vectors_and_the_command_renews_them(
    neo4j_lts: object, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = emptied(request.getfixturevalue("neo4j_lts"))
    sources = planted(tmp_path / "saes", range(3))
    ingest([sources], tmp_path / "a", layers=[0, 1])
    with open_atlas(tmp_path / "a") as atlas:
        copy_atlas(atlas, uri, vectors=True)
    ingest([sources], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        copy_atlas(atlas, uri, replace=True)
        with open_atlas(uri) as there:
            assert not there.store.searchable()
        copy_atlas(atlas, uri, vectors=True)
        with open_atlas(uri) as there:
            assert there.store.searchable()
            found = ask(there, "similar-to", "tiny-1m/2-res-64/3", limit=5)
            assert [row["feature"] for row in found] == [
                row["feature"] for row in ask(atlas, "similar-to", "tiny-1m/2-res-64/3", limit=5)
            ]


def test_a_folder_gets_neither(folder: Path, tmp_path: Path) -> None:
    with open_atlas(folder) as atlas, pytest.raises(StoreError, match="a folder has its rows"):
        copy_atlas(atlas, str(tmp_path / "b"), vectors=True)
    assert not (tmp_path / "b").exists()

"""Folders bound to a database: what is there is adopted, kept apart, or refused with what to do."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import neo4j
import pytest
from neo4j_for_tests import Server, emptied
from planted_graph import PlantedGraph
from published import Killed, publish
from saes import planted as write_saes

import atlas.server.write
from atlas.address import ServerAddress
from atlas.atlas import open_atlas
from atlas.errors import AtlasError, FolderError, LockedAtlas, StoreError
from atlas.folder.manifest import Manifest
from atlas.graph.binding import bind
from atlas.graph.copying import copy_atlas
from atlas.graph.digest import digest
from ingest import ingest


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_saes(tmp_path_factory.mktemp("saes"), range(3))


def unnoted_ingest(sources: list[Path], folder: Path, layers: list[int] | None = None) -> None:
    """An ingest that reached its end on the server and was killed before its folder said so."""
    save = Manifest.save

    def dying(self: Manifest, folder: Path) -> None:
        if not self.pending:
            raise Killed
        save(self, folder)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(Manifest, "save", dying)
        ingest(sources, folder, layers=layers)


def layers_at(uri: str) -> list[int]:
    with open_atlas(uri) as there:
        return sorted({d.layer for d in there.dictionaries.values()})


def test_nodes_of_another_program_are_left_alone(neo4j_lts: Server, tmp_path: Path) -> None:
    uri = emptied(neo4j_lts)
    with neo4j.GraphDatabase.driver(uri, auth=(neo4j_lts.user, neo4j_lts.password)) as driver:
        driver.execute_query("CREATE (:Model {id: 'theirs'})-[:OF]->(:Writer {id: 'writer'}), (:Writer {id: 'writer'})")
        for statement in driver.execute_query("SHOW CONSTRAINTS YIELD name RETURN name").records:
            driver.execute_query(f"DROP CONSTRAINT {statement['name']}")
        for act in (lambda: publish(uri, PlantedGraph()), lambda: bind(tmp_path / "a", ServerAddress.parse(uri))):
            with pytest.raises(StoreError, match=r"labels that an atlas uses .* name another --database"):
                act()
        assert not driver.execute_query("SHOW CONSTRAINTS").records
        found = driver.execute_query("MATCH (n) RETURN labels(n) AS l, n {.*} AS p ORDER BY l").records
        writer = {"l": ["Writer"], "p": {"id": "writer"}}
        assert [row.data() for row in found] == [{"l": ["Model"], "p": {"id": "theirs"}}, writer, writer]


def test_what_another_folder_wrote_is_not_lost(neo4j_lts: Server, sources: Path, tmp_path: Path) -> None:
    uri = emptied(neo4j_lts)
    bind(tmp_path / "a", ServerAddress.parse(uri))
    shutil.copytree(tmp_path / "a", tmp_path / "twin")  # before anything was in it
    ingest([sources], tmp_path / "a", layers=[0])
    with pytest.raises(StoreError, match="written to from another folder"):
        ingest([sources], tmp_path / "twin", layers=[1])
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    ingest([sources], tmp_path / "a", layers=[0, 2])
    with pytest.raises(StoreError, match="written to from another folder"):
        ingest([sources], tmp_path / "backup", layers=[1])
    bind(tmp_path / "b", ServerAddress.parse(uri))
    ingest([sources], tmp_path / "b", layers=[0, 1])
    with pytest.raises(StoreError, match=r"written to from another folder.* init NEWDIR"):
        ingest([], tmp_path / "a", k=4)
    assert layers_at(uri) == [0, 1, 2]
    bind(tmp_path / "c", ServerAddress.parse(uri))
    ingest([sources], tmp_path / "c")
    ingest([sources], tmp_path / "reference")
    with open_atlas(uri) as there, open_atlas(tmp_path / "reference") as reference:
        assert digest(there.store).sha256 == digest(reference.store).sha256


def test_a_folder_that_was_killed_before_it_named_its_state(
    neo4j_lts: Server, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = emptied(neo4j_lts)
    bind(tmp_path / "a", ServerAddress.parse(uri))
    ingest([sources], tmp_path / "a", layers=[0])
    unnoted_ingest([sources], tmp_path / "a")
    ingest([sources], tmp_path / "a")
    ingest([sources], tmp_path / "reference")
    with open_atlas(tmp_path / "a") as there, open_atlas(tmp_path / "reference") as reference:
        assert digest(there.store).sha256 == digest(reference.store).sha256


def test_what_another_folder_wrote_before_it_was_broken_off_is_not_lost(
    neo4j_lts: Server, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = emptied(neo4j_lts)
    address = ServerAddress.parse(uri)
    bind(tmp_path / "a", address)
    ingest([sources], tmp_path / "a", layers=[0])
    bind(tmp_path / "b", address)
    ingest([sources], tmp_path / "b", layers=[0, 1])

    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(atlas.server.write, "write_edges", dying)
        ingest([], tmp_path / "b", k=4)
    with pytest.raises(StoreError, match="from another folder was broken off; repeat its command there; where that"):
        ingest([], tmp_path / "a", k=3)
    with pytest.raises(LockedAtlas, match="where its folder is gone, empty the database"):
        bind(tmp_path / "c", address)
    ingest([], tmp_path / "b", k=4)  # as it was told to
    assert layers_at(uri) == [0, 1]


@pytest.mark.parametrize("second", ["create_schema", "write_edges"])
def test_a_folder_goes_on_after_any_number_of_breaks(
    neo4j_lts: Server, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """The first write reached its end and was not written down; the second broke off before or within."""
    uri = emptied(neo4j_lts)
    bind(tmp_path / "a", ServerAddress.parse(uri))

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    unnoted_ingest([sources], tmp_path / "a", layers=[0])
    assert layers_at(uri) == [0]
    for _ in range(2):
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(atlas.server.write, second, killed)
            ingest([sources], tmp_path / "a", layers=[0, 1])
    bind(tmp_path / "a", ServerAddress.parse(uri))
    ingest([sources], tmp_path / "a", layers=[0, 1])
    assert layers_at(uri) == [0, 1]


def test_a_server_that_was_set_back_is_brought_up_again(neo4j_lts: Server, sources: Path, tmp_path: Path) -> None:
    """From a dump of an earlier state, openly: nothing says that the folder has all that is in it."""
    uri = emptied(neo4j_lts)
    ingest([sources], tmp_path / "a", layers=[0])
    shutil.copytree(tmp_path / "a", tmp_path / "dump")
    with open_atlas(tmp_path / "a") as atlas:
        copy_atlas(atlas, uri)
    bind(tmp_path / "a", ServerAddress.parse(uri))
    ingest([sources], tmp_path / "a", layers=[1])
    emptied(neo4j_lts)
    with open_atlas(tmp_path / "dump") as atlas:
        copy_atlas(atlas, uri)
    with pytest.raises(StoreError, match=r"written to from another folder.* or empty the database"):
        ingest([], tmp_path / "a")
    emptied(neo4j_lts)
    ingest([], tmp_path / "a")
    assert layers_at(uri) == [0, 1]


def test_a_folder_and_a_database_in_different_states(neo4j_lts: Server, sources: Path, tmp_path: Path) -> None:
    uri = emptied(neo4j_lts)
    ingest([sources], tmp_path / "a", layers=[0])
    with open_atlas(tmp_path / "a") as atlas:
        copy_atlas(atlas, uri)
    ingest([sources], tmp_path / "a", layers=[0, 1])
    with pytest.raises(FolderError, match="or in another state; bring it there first: feature-atlas copy"):
        bind(tmp_path / "a", ServerAddress.parse(uri))
    with open_atlas(tmp_path / "a") as atlas:
        copy_atlas(atlas, uri, replace=True)
    (tmp_path / "a" / "graph" / "graph-of-a-killed-ingest.building").mkdir()
    bind(tmp_path / "a", ServerAddress.parse(uri))
    assert not (tmp_path / "a" / "graph").exists()
    ingest([sources], tmp_path / "a")
    assert layers_at(uri) == [0, 1, 2]


def test_a_folder_that_was_never_filled_can_be_bound_elsewhere(
    neo4j_lts: Server, sources: Path, tmp_path: Path
) -> None:
    uri = emptied(neo4j_lts)
    bind(tmp_path / "a", ServerAddress.parse(uri))
    assert bind(tmp_path / "a", ServerAddress.parse(uri)).id == Manifest.load(tmp_path / "a").id
    elsewhere = ServerAddress.parse(uri.replace("neo4j://", "bolt://"))
    bind(tmp_path / "a", elsewhere)
    ingest([sources], tmp_path / "a", layers=[0])
    assert Manifest.load(tmp_path / "a").store == str(elsewhere) and layers_at(uri) == [0]


def test_a_folder_that_was_never_filled_takes_on_what_others_wrote(
    neo4j_lts: Server, sources: Path, tmp_path: Path
) -> None:
    uri = emptied(neo4j_lts)
    for name in ("a", "b"):
        bind(tmp_path / name, ServerAddress.parse(uri))
    ingest([sources], tmp_path / "a", layers=[0])
    with pytest.raises(StoreError, match="holds another atlas"):
        ingest([sources], tmp_path / "b", layers=[1])
    bind(tmp_path / "b", ServerAddress.parse(uri))
    ingest([sources], tmp_path / "b", layers=[1])
    assert layers_at(uri) == [0, 1]


@pytest.mark.parametrize(
    "node", ["{id: 'x', state: 'y'}", "{id: 'x', title: 'World'}", "{id: 'x', format: 2, state: 'y', thresholds: '{}'}"]
)
def test_an_atlas_node_of_another_program(neo4j_lts: Server, tmp_path: Path, node: str) -> None:
    uri = emptied(neo4j_lts)
    with neo4j.GraphDatabase.driver(uri, auth=(neo4j_lts.user, neo4j_lts.password)) as driver:
        for statement in driver.execute_query("SHOW CONSTRAINTS YIELD name RETURN name").records:
            driver.execute_query(f"DROP CONSTRAINT {statement['name']}")
        driver.execute_query(f"CREATE (:Atlas {node})")
        if "format" not in node:
            with pytest.raises(AtlasError, match="not of feature-atlas"):
                bind(tmp_path / "a", ServerAddress.parse(uri))
            assert not driver.execute_query("SHOW CONSTRAINTS").records
    if "state" not in node:
        return
    with pytest.raises(AtlasError, match="not of feature-atlas"):
        open_atlas(uri)
    with pytest.raises(AtlasError, match="not of feature-atlas"):
        bind(tmp_path / "a", ServerAddress.parse(uri))

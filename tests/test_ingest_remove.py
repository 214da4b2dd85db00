"""Dictionaries taken out again: the atlas is what it would be had they never been in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from neo4j_for_tests import Server, emptied
from saes import planted

from atlas import open_atlas
from atlas.address import ServerAddress
from atlas.errors import IngestError, UnknownFeature
from atlas.graph.binding import bind
from atlas.graph.digest import digest
from ingest import ingest
from ingest.remove import remove


def compared(atlas: Path, other: Path) -> None:
    """Equal in every node and edge."""
    with open_atlas(atlas) as one, open_atlas(other) as two:
        found, wanted = digest(one.store), digest(two.store)
        assert (found.edges, found.sha256) == (wanted.edges, wanted.sha256)
        assert found.nodes | {"Run": 0} == wanted.nodes | {"Run": 0}
        cypher = "MATCH (f:Feature) RETURN f.id AS id, f.lifecycle AS l, f.s_res AS r, f.s_next AS n ORDER BY id"
        assert one.read(cypher) == two.read(cypher)
        assert list(one.dictionaries) == list(two.dictionaries)


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("remove") / "saes", range(3))


@pytest.mark.slow
@pytest.mark.parametrize("gone", [{"layers": {1}}, {"sites": {"mlp"}}, {"layers": {2}, "sites": {"res", "att"}}])
def test_what_remains_is_as_if_the_rest_had_never_been_there(saes: Path, tmp_path: Path, gone: dict[str, Any]) -> None:
    ingest([saes], tmp_path / "a")
    report = remove((), tmp_path / "a", layers=gone.get("layers"), sites=gone.get("sites"))
    ingest([saes], tmp_path / "b")
    with open_atlas(tmp_path / "b") as atlas:
        kept = {
            id_
            for id_, d in atlas.dictionaries.items()
            if not (d.layer in gone.get("layers", {d.layer}) and d.site in gone.get("sites", {d.site}))
        }
    for id_ in sorted(kept):
        layer, site = int(id_.split("/")[1].split("-")[0]), id_.split("-")[-2]
        ingest([saes], tmp_path / "c", layers={layer}, sites={site})
    compared(tmp_path / "a", tmp_path / "c")
    assert len(report.dictionaries) == 9 - len(kept)
    rows = (tmp_path / "a" / "dictionaries").glob("*/*/decoder.npy")
    assert {path.parent.relative_to(tmp_path / "a" / "dictionaries").as_posix() for path in rows} == kept
    staged = [{path.name for path in (tmp_path / name / "matches").glob("*")} for name in "ac"]
    assert staged[0] == staged[1]


def test_a_removal_from_a_server(saes: Path, tmp_path: Path, neo4j_lts: Server) -> None:
    bind(tmp_path / "a", ServerAddress.parse(emptied(neo4j_lts)))
    ingest([saes], tmp_path / "a")
    remove((), tmp_path / "a", layers={1})
    ingest([saes], tmp_path / "b", layers={0, 2})
    compared(tmp_path / "a", tmp_path / "b")


def test_broken_off_it_goes_on(saes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest([saes], tmp_path / "a")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        delete = shutil.rmtree

        def die(path: Path, **options: Any) -> None:
            if "dictionaries" in Path(path).parts:
                raise KeyboardInterrupt
            delete(path, **options)

        patch.setattr(shutil, "rmtree", die)
        remove(["tiny-1m/1-res-64"], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        assert "tiny-1m/1-res-64" not in atlas.dictionaries
    assert remove(["tiny-1m/1-res-64"], tmp_path / "a").dictionaries == ("tiny-1m/1-res-64",)
    assert not (tmp_path / "a" / "dictionaries" / "tiny-1m" / "1-res-64").exists()


def test_what_cannot_be_removed_is_said(saes: Path, tmp_path: Path) -> None:
    ingest([saes], tmp_path / "a", layers={0})
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"dictionaries": ["tiny-1m/7-res-64"]}, UnknownFeature, "no dictionary 'tiny-1m/7-res-64'"),
        ({"dictionaries": ["../../victim"]}, UnknownFeature, "no dictionary"),
        ({}, IngestError, "say what to remove"),
        ({"layers": {9}}, IngestError, "no dictionary is selected"),
        ({"layers": {0}}, IngestError, "delete the folder instead"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            remove(atlas=tmp_path / "a", **arguments)
    assert remove(["0-att-64"], tmp_path / "a").dictionaries == ("tiny-1m/0-att-64",)

"""Push on the edges of an atlas: there from the first ingest on, and added to what was staged without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from saes import planted

from atlas import open_atlas
from atlas.errors import QueryError
from atlas.folder.matches import name_without_push
from atlas.graph.tables import with_ids
from atlas.schema import EDGES, EdgeTable, properties
from ingest import ingest

PUSHES = (
    "MATCH (b:Feature)-[r]->(a:Feature) "
    "RETURN b.id AS later, a.id AS earlier, r.push AS push, r.similarity AS s ORDER BY later, earlier"
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("saes"), range(3), n=32)


def test_every_edge_has_its_push(sources: Path, tmp_path: Path) -> None:
    """Later encoder row · earlier decoder row as long as it is; these encoders are the decoders' transpose."""
    ingest([sources], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        rows = atlas.read(PUSHES)
        for row in rows:
            (later, b), (earlier, a) = (atlas.locate(row[end]) for end in ("later", "earlier"))
            writes = atlas.rows(earlier.id).decoder[a] * atlas.rows(earlier.id).vectors["norms"][a]
            assert row["push"] == pytest.approx(float(atlas.rows(later.id).encoder[b].astype(np.float64) @ writes))
    assert len(rows) > 1000 and rows[0]["push"] == pytest.approx(rows[0]["s"], rel=1e-5)  # unit rows


@pytest.mark.slow
def test_matches_staged_without_push_get_it_and_are_not_matched_again(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("ingest.matching.stage.file_name", name_without_push)
        before.setattr("ingest.matching.pushed.push", lambda *_: None)
        ingest([sources], tmp_path / "a")
    monkeypatch.setattr("ingest.matching.stage.Stage", lambda *_: pytest.fail("matched again"))
    with open_atlas(tmp_path / "a") as atlas:
        assert {row["push"] for row in atlas.read(PUSHES)} == {None}
    decoder = tmp_path / "a" / "dictionaries" / "tiny-1m" / "1-res-32" / "decoder.npy"
    decoder.rename(decoder.with_name("elsewhere"))  # as in a folder that was bound to a server's graph
    assert ingest([], tmp_path / "a").pairs_matched == 0
    with open_atlas(tmp_path / "a") as atlas:
        without = {
            (row["later"].split("/")[1], row["earlier"].split("/")[1])
            for row in atlas.read(PUSHES)
            if row["push"] is None
        }
    expected = {("1-res-32", f"{name}-32") for name in ("0-res", "1-mlp", "1-att")} | {("2-res-32", "1-res-32")}
    assert without == expected
    decoder.with_name("elsewhere").rename(decoder)
    assert ingest([], tmp_path / "a").published and not ingest([], tmp_path / "a").published
    monkeypatch.undo()
    ingest([sources], tmp_path / "b")
    with open_atlas(tmp_path / "a") as one, open_atlas(tmp_path / "b") as other:
        assert one.read(PUSHES) == other.read(PUSHES) and one.read(PUSHES)[0]["push"] is not None


@pytest.mark.slow
def test_a_graph_without_the_column_says_how_to_get_it(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an embedded atlas of before: its file has no such column, and everything else goes on."""
    with monkeypatch.context() as before:
        before.setattr("ingest.matching.stage.file_name", name_without_push)
        before.setattr("ingest.matching.pushed.push", lambda *_: None)
        without = {name: type_ for name, type_ in properties("FROM_RES").items() if name != "push"}
        edges = [
            EdgeTable(each.type, each.label, without if each.label == "Feature" else each.properties) for each in EDGES
        ]
        before.setattr("atlas.embedded.load.EDGES", edges)
        before.setattr("atlas.embedded.load.with_ids", lambda batch: with_ids(batch).drop_columns(["push"]))
        ingest([sources], tmp_path / "a")
    with open_atlas(tmp_path / "a") as opened:
        assert len(opened.read(PUSHES.replace("r.push", "r.rank"))) > 1000
        for ask in (opened.read, opened.query):
            with pytest.raises(QueryError, match=r"edges have no push yet.*run: feature-atlas ingest -a FOLDER"):
                ask(PUSHES)
    assert ingest([], tmp_path / "a").published
    with open_atlas(tmp_path / "a") as opened:
        assert opened.read(PUSHES)[0]["push"] is not None

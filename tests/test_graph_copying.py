"""Atlases copied to another store and back: nothing is lost, nothing that is not the atlas's is taken for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import neo4j
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from neo4j_for_tests import Server, emptied
from planted import Planted
from published import Killed
from saes import planted as write_saes

import atlas.graph.stored
import atlas.server.write
from atlas import open_atlas
from atlas.address import ServerAddress
from atlas.errors import CorruptAtlas, FolderError, StoreError
from atlas.folder.detail import detail_of
from atlas.folder.labels import Labels
from atlas.folder.manifest import Manifest
from atlas.graph.binding import bind
from atlas.graph.copying import copy_atlas
from atlas.graph.digest import Digest, digest
from atlas.graph.stored import StoredGraph
from atlas.graph.unpack import unpack
from atlas.server.store import Neo4jStore
from ingest import ingest
from ingest.labels.job import label_atlas

ID = "tiny-1m/0-res-64"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_saes(tmp_path_factory.mktemp("saes"), range(3))


@pytest.fixture
def first(sources: Path, tmp_path: Path) -> Path:
    """An atlas of two layers, in its folder."""
    ingest([sources], tmp_path / "first", layers=[0, 1])
    return tmp_path / "first"


def copied(source: Path | str, to: Path | str, *, replace: bool = False) -> Digest:
    with open_atlas(source) as atlas:
        return copy_atlas(atlas, str(to), replace=replace).digest


def digest_of(place: Path | str) -> Digest:
    with open_atlas(place) as atlas:
        return digest(atlas.store)


def place_of(folder: Path) -> Path:
    return folder / "dictionaries" / ID


def contexts_of(place: Path, index: int) -> list[str]:
    return [context.text for context in detail_of(place, index).contexts]


def labelled(folder: Path, **columns: list[Any]) -> None:
    """Columns for the features 1 and 2 of ID, imported from a file."""
    table = pa.table({"dictionary": [ID] * 2, "index": [1, 2], **columns})
    pq.write_table(table, folder.with_name("labels.parquet"))
    label_atlas(folder, imports=[str(folder.with_name("labels.parquet"))])


def files(folder: Path) -> dict[str, bytes]:
    """What a copy must have: rows, records, matches."""
    parts = [path for name in ("dictionaries", "matches") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in parts}


@pytest.mark.slow
def test_there_and_back(
    empty: str | None, first: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas.graph.stored, "SLICE", 20)  # a pair's 64 features in four parts
    there, third = empty or str(tmp_path / "second"), tmp_path / "third"
    wanted = copied(first, there)
    assert wanted == digest_of(first) == copied(first, there)  # once more: nothing to do
    assert copied(there, third) == wanted
    assert Manifest.load(third).state == Manifest.load(first).state
    features = ["tiny-1m/1-res-64/5", "tiny-1m/0-att-64/1"]
    with open_atlas(first) as one, open_atlas(third) as other:
        assert (one.directions(features) == other.directions(features)).all()
    ingest([sources], third)
    ingest([sources], first)
    assert digest_of(third).sha256 == digest_of(first).sha256


def test_labels_go_on_after_a_copy(empty: str | None, sources: Path, tmp_path: Path) -> None:
    """From folder to folder they stay what they were; from a server they come as text, and can be measured anew."""
    ingest([sources], tmp_path / "first", layers=[0])
    place = tmp_path / "first" / "dictionaries" / "tiny-1m" / "0-res-64"
    words = pa.array([[f"w{i}", "of"] for i in range(64)])
    Labels.load(place).updated({"fires_on": words, "contexts": words}).save(place)
    ingest([], tmp_path / "first", k=4)  # builds the graph anew, with them
    there = empty or str(tmp_path / "second")
    copied(tmp_path / "first", there)
    if empty is None:
        kept = Labels.load(Path(there) / "dictionaries" / "tiny-1m" / "0-res-64")
        assert kept.table == Labels.load(place).table
        assert contexts_of(Path(there) / "dictionaries" / "tiny-1m" / "0-res-64", 3) == ["w3", "of"]
    else:
        bind(tmp_path / "second", ServerAddress.parse(empty))
        restored = ingest([sources], tmp_path / "second", layers=[0]).restored  # a graph has no rows
        assert restored == ("tiny-1m/0-att-64", "tiny-1m/0-mlp-64", "tiny-1m/0-res-64")
    table = pa.table({"dictionary": ["tiny-1m/0-res-64"] * 2, "index": [1, 2], "frequency": [0.5, float("nan")]})
    pq.write_table(table.append_column("fires_on", pa.array(["new", None])), tmp_path / "labels.parquet")
    label_atlas(tmp_path / "second", imports=[str(tmp_path / "labels.parquet")])
    with open_atlas(tmp_path / "second") as second:
        cypher = """
        MATCH (f:Feature {dictionary: 'tiny-1m/0-res-64'}) WHERE f.`index` < 3
        RETURN f.fires_on AS w, f.frequency AS n ORDER BY f.`index`
        """
        assert second.read(cypher) == [
            {"w": "w0, of", "n": None},
            {"w": "new", "n": 0.5},
            {"w": "w2, of", "n": None},
        ]
    place = tmp_path / "second" / "dictionaries" / "tiny-1m" / "0-res-64"
    Labels.load(place).updated({"fires_on": words}).save(place)  # lists again, as a text gives them
    assert Labels.load(place).column("fires_on", 64).to_pylist()[:2] == ["w0, of", "w1, of"]


@pytest.mark.slow
def test_a_copy_that_is_there_is_left_as_it_is(first: Path, tmp_path: Path) -> None:
    copied(first, tmp_path / "second")
    (graph,) = (tmp_path / "second" / "graph").glob("graph-*")
    before = graph.stat()
    copied(first, tmp_path / "second")
    assert (graph.stat().st_mtime_ns, graph.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    graph.write_bytes(b"damaged")
    assert copied(first, tmp_path / "second") == digest_of(tmp_path / "second")


def test_another_atlas_is_never_overwritten(empty: str | None, tmp_path: Path) -> None:
    there = empty or str(tmp_path / "there")
    copied(Planted(range(2)).at(tmp_path / "one"), there)
    other = Planted(range(2), seed=5).at(tmp_path / "two")
    replace(Manifest.load(other), id="other").save(other)
    with pytest.raises((StoreError, FolderError), match="another atlas"):
        copied(other, there)
    with open_atlas(there) as atlas:
        assert atlas.manifest.id == "planted"


# --- what is there and is not the copy's --------------------------------------------------------------------------


@pytest.mark.slow
def test_another_state_is_replaced_only_openly(empty: str | None, first: Path, sources: Path, tmp_path: Path) -> None:
    there = empty or str(tmp_path / "there")
    copied(first, there)
    other = tmp_path / "other" if empty else Path(there)
    if empty:
        bind(other, ServerAddress.parse(empty))
    ingest([sources], other)
    before = digest_of(there)
    with pytest.raises((StoreError, FolderError), match=r"holds another state of this atlas .* with --replace"):
        copied(first, there)
    assert digest_of(there) == before
    with pytest.raises(FolderError, match="--replace"):
        copied(there, first)  # older, of which nothing is known
    assert copied(there, first, replace=True) == before
    ingest([], first, k=4)
    assert copied(first, there, replace=True) == digest_of(first) == digest_of(there) != before


def test_a_copy_goes_on_where_it_was_broken_off(
    neo4j_lts: Server, first: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = emptied(neo4j_lts)

    def broken_off(replace: bool) -> None:
        def dying(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(atlas.server.write, "write_edges", dying)
            copied(first, uri, replace=replace)

    broken_off(replace=False)
    assert copied(first, uri) == digest_of(first)
    ingest([], first, k=4)
    broken_off(replace=True)
    ingest([], first, k=3)
    broken_off(replace=True)
    with pytest.raises(StoreError, match="--replace"):  # what was replaced is not there whole, nor is it forgotten
        copied(first, uri)
    assert copied(first, uri, replace=True) == digest_of(first)
    emptied(neo4j_lts)
    broken_off(replace=False)
    ingest([sources], first)
    assert copied(first, uri) == digest_of(first)  # nothing whole was there


def test_what_is_written_while_a_copy_waits_is_not_lost(
    neo4j_lts: Server, first: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = emptied(neo4j_lts)
    copied(first, uri)
    bind(tmp_path / "other", ServerAddress.parse(uri))
    emptied(neo4j_lts)
    present = Neo4jStore.present

    def slow(self: Neo4jStore) -> bool:
        found = present(self)
        monkeypatch.undo()
        ingest([sources], tmp_path / "other")
        return found

    monkeypatch.setattr(Neo4jStore, "present", slow)
    with pytest.raises(StoreError, match="holds another state"):
        copied(first, uri)
    with open_atlas(uri) as atlas:
        assert len(atlas.dictionaries) == 9


def test_a_bound_folder_is_no_target(neo4j_lts: Server, first: Path, tmp_path: Path) -> None:
    uri = emptied(neo4j_lts)
    copied(first, uri)
    bind(tmp_path / "bound", ServerAddress.parse(uri))
    with pytest.raises(FolderError, match="is bound to neo4j://"):
        copied(uri, tmp_path / "bound")


@pytest.mark.slow
def test_what_broken_off_writes_left_is_not_taken(first: Path, tmp_path: Path) -> None:
    """Whole dictionaries of other content under the same ids, and one without its record."""
    others = write_saes(tmp_path / "others", range(2), seed=5)
    ingest([others], tmp_path / "other")
    target = tmp_path / "target"
    shutil.copytree(tmp_path / "other" / "dictionaries", target / "dictionaries")
    (place_of(target) / "dictionary.json").unlink()
    copied(first, target)
    assert files(target) == files(first)


def test_damaged_files_of_a_copy_are_mended(first: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    copied(first, target)
    match = next((target / "matches").iterdir())
    for path in (place_of(target) / "decoder.npy", match):
        path.write_bytes(path.read_bytes()[:100])
    copied(first, target)
    assert files(target) == files(first)


def test_files_of_a_copy_from_a_server_are_mended(neo4j_lts: Server, first: Path, tmp_path: Path) -> None:
    uri, target = emptied(neo4j_lts), tmp_path / "target"
    copied(first, uri)
    copied(uri, target)
    before = files(target)
    one, two, *_ = sorted((target / "dictionaries").rglob("dictionary.json"))
    one.unlink()
    two.write_text("")
    next((target / "matches").iterdir()).unlink()
    copied(uri, target)
    # Parquet files differ in what wrote them, not in what they say.
    assert files(target).keys() == before.keys()
    assert all(content == before[name] for name, content in files(target).items() if name.endswith(".json"))
    ingest([], target, k=4)


def test_a_copy_that_differs_is_named(neo4j_lts: Server, first: Path) -> None:
    uri = emptied(neo4j_lts)
    copied(first, uri)
    with neo4j.GraphDatabase.driver(uri, auth=(neo4j_lts.user, neo4j_lts.password)) as driver:
        driver.execute_query("MATCH ()-[r:FROM_MLP]->() WITH r LIMIT 1 DELETE r")
    with pytest.raises(StoreError, match=r"does not hold what .* holds"):
        copied(first, uri)


@pytest.mark.parametrize("key", ["../../victim", "..", "", ".hidden"])
def test_matches_stay_in_their_place(first: Path, tmp_path: Path, key: str) -> None:
    with open_atlas(first) as atlas:
        graph = StoredGraph(atlas.store, atlas.manifest)
        graph.matched[0]["key"] = key
        with pytest.raises(CorruptAtlas, match="which no ingest writes"):
            unpack(graph, atlas.dictionaries, tmp_path / "target")


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_new_labels_reach_a_copy(first: Path, tmp_path: Path) -> None:
    for words in (["one", "two"], ["uno", "due"]):
        labelled(first, label=words)
        copied(first, tmp_path / "target", replace=True)
    with open_atlas(tmp_path / "target") as atlas:
        assert atlas.read("MATCH (f:Feature {id: $id}) RETURN f.label AS l", id=f"{ID}/2") == [{"l": "due"}]
    assert Labels.load(place_of(tmp_path / "target")).table == Labels.load(place_of(first)).table


def test_a_copy_back_keeps_what_a_graph_does_not_hold(neo4j_lts: Server, first: Path, tmp_path: Path) -> None:
    words = pa.array([[f"w{i}", "of", "the", "last", "fifth"] for i in range(64)])
    Labels.load(place_of(first)).updated({"fires_on": words, "contexts": words}).save(place_of(first))
    ingest([], first, k=4)
    uri = emptied(neo4j_lts)
    copied(first, uri)
    before = (place_of(first) / "labels.parquet").read_bytes()
    copied(uri, first)
    assert (place_of(first) / "labels.parquet").read_bytes() == before
    bind(tmp_path / "second", ServerAddress.parse(uri))
    labelled(tmp_path / "second", fires_on=[["new"], None])
    for source in (uri, tmp_path / "second"):  # which has no contexts either
        copied(source, first, replace=True)
    labels = Labels.load(place_of(first))
    assert contexts_of(place_of(first), 1) == ["w1", "of", "the", "last", "fifth"]
    assert labels.column("fires_on", 64).to_pylist()[:3] == [
        "w0, of, the, last, fifth",
        "new",
        "w2, of, the, last, fifth",
    ]
    assert labels.column("label", 64).to_pylist()[:3] == ["w0, of, the, last", "new", "w2, of, the, last"]


def test_what_a_graph_does_not_hold_stays_where_there_is_none(tmp_path: Path) -> None:
    """Contexts, traces and histogram are of one text: a feature with new contexts keeps no trace of the old ones."""
    texts = pa.list_(pa.string())
    one, two = ({"width": 0.5, "counts": [n]} for n in (1, 2))
    theirs = Labels(
        pa.table(
            {
                "label": ["x", "y", "z"],
                "contexts": pa.array([["a"], ["b"], None], texts),
                "histogram": pa.array([one, two, None]),
                "suppresses": pa.array([None, ["s"], ["t"]], texts),
            }
        )
    )
    mine = Labels(pa.table({"label": ["u", "v", "w"], "contexts": pa.array([None, ["new"], None], texts)}))
    without = Labels(pa.table({"label": ["u", "v", "w"]}))
    assert mine.with_beside_of(theirs).table.to_pydict() == {  # type: ignore[union-attr]
        "label": ["u", "v", "w"],
        "contexts": [["a"], ["new"], None],
        "histogram": [one, None, None],
        "suppresses": [None, ["s"], ["t"]],
    }
    without.with_beside_of(theirs).save(tmp_path)
    assert [contexts_of(tmp_path, i) for i in range(3)] == [["a"], ["b"], []]
    for other in (Labels(None), without, Labels(theirs.table.slice(1))):  # type: ignore[union-attr]
        assert mine.with_beside_of(other) is mine


def test_labels_go_on_as_in_the_folder_that_never_left(neo4j_lts: Server, first: Path, tmp_path: Path) -> None:
    """A label made of words is made anew of better ones; a name stays."""
    labelled(first, promotes=[["p1", "p2", "p3", "p4", "p5"], ["a", "b, c", "d", "e", "f"]], label=[None, "mine"])
    uri = emptied(neo4j_lts)
    copied(first, uri)
    bind(tmp_path / "second", ServerAddress.parse(uri))
    told = (
        "MATCH (f:Feature) WHERE f.label IS NOT NULL RETURN f.label AS l, f.promotes AS p, f.fires_on AS f ORDER BY l"
    )
    for words in ([None, None], [["f1", "f2", "f3", "f4", "f5"], ["x"]]):
        answers = []
        for folder in (first, tmp_path / "second"):
            labelled(folder, fires_on=pa.array(words, pa.list_(pa.string())))
            with open_atlas(folder) as atlas:
                answers.append(atlas.read(told))
        assert answers[0] == answers[1]
        assert [row["l"] for row in answers[0]] == (
            ["mine", "p1, p2, p3, p4"] if words[0] is None else ["f1, f2, f3, f4", "mine"]
        )

"""Nearest rows against a product of all rows in float64."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from saes import planted, unit, write_sae

from atlas import open_atlas
from atlas.cli.main import _run
from atlas.cli.progress import Progress
from atlas.errors import QueryError, UnknownFeature
from ingest import ingest
from queries import ask, lineage, neighbours, show
from queries.nearest_index import NearestIndex, index_of, make_index

ID = "tiny-1m/1-res-64/5"
_by_index = importlib.import_module("queries.neighbours")._by_index


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neighbours")
    ingest([planted(folder / "saes", range(2))], folder / "a")
    return folder / "a"


@pytest.mark.parametrize("dictionaries", [None, ["tiny-1m/0-res-64"], ["1-mlp-64", "0-res-64"], ["all"]])
def test_equal_to_all_products_in_float64(folder: Path, dictionaries: list[str] | None) -> None:
    with open_atlas(folder) as atlas:
        names = [ID.rpartition("/")[0]] if dictionaries is None else dictionaries
        names = list(atlas.dictionaries) if names == ["all"] else [atlas.dictionary(name).id for name in names]
        direction = atlas.directions([ID])[0].astype(np.float64)
        cosines = {
            f"{name}/{i}": float(atlas.rows(name).decoder[i].astype(np.float64) @ direction)
            for name in names
            for i in np.flatnonzero(atlas.rows(name).alive)
            if f"{name}/{i}" != ID
        }
        best = sorted(cosines, key=lambda id_: -cosines[id_])[:7]
        found = neighbours(atlas, ID, dictionaries=dictionaries, top=7)
        assert [row["feature"] for row in found] == best and [row["rank"] for row in found] == list(range(7))
        np.testing.assert_allclose([row["similarity"] for row in found], [cosines[id_] for id_ in best], atol=1e-12)
        # The same direction, given as one of another length, finds the feature itself first.
        (first, *_) = neighbours(atlas, 3 * direction, dictionaries=["all"])
        assert first["feature"] == ID and first["similarity"] == pytest.approx(1, abs=1e-6)


@pytest.fixture(scope="module")
def indexed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two residual dictionaries and a module's, 700 rows each; in one of them most rows lie close together."""
    folder = tmp_path_factory.mktemp("indexed")
    rng = np.random.default_rng(0)
    for layer, site in ((0, "res"), (0, "mlp"), (1, "res")):
        rows = unit(rng.normal(size=(700, 48)))
        if (layer, site) == (0, "mlp"):
            # Closer to each other than the index tells apart: no number of candidates proves which are nearest.
            rows[:600] = unit(rows[0] + 1e-4 * rng.normal(size=(600, 48)))
        rows[13] = 0
        write_sae(folder / "saes", layer, site, rows)
    ingest([folder / "saes"], folder / "a")
    return folder / "a"


@pytest.mark.parametrize("name", ["0-res-700/5", "0-mlp-700/3", "0-mlp-700/650", "1-res-700/699"])
def test_an_index_gives_the_same_rows(indexed_folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(indexed_folder, tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        feature = f"tiny-1m/{name}"
        plain = {top: neighbours(atlas, feature, dictionaries=["all"], top=top) for top in (1, 10, 400)}
        neighbours(atlas, feature, dictionaries=["all"], index=True)
        assert len(list((tmp_path / "a" / "nearest").glob("*.faiss"))) == 3
        assert all(index_of(atlas, each) is not None for each in atlas.dictionaries)
        for top, rows in plain.items():
            found = neighbours(atlas, feature, dictionaries=["all"], top=top)
            assert [row["feature"] for row in found] == [row["feature"] for row in rows]
            one, other = ([row["similarity"] for row in each] for each in (found, rows))
            np.testing.assert_allclose(one, other, atol=1e-12)
            assert not any(row["feature"].endswith("/13") for row in found)
        # Of one dictionary too.
        assert neighbours(atlas, feature, top=3)[0]["feature"] == neighbours(atlas, feature, top=1)[0]["feature"]


def test_most_questions_need_no_dictionary_whole(indexed_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(indexed_folder, tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        names = list(atlas.dictionaries)
        make_index(atlas, names, Progress(quiet=True))
        whole = []
        for place in range(20):
            direction = atlas.directions([f"tiny-1m/1-res-700/{20 + place}"])[0].astype(np.float64)
            found, left = _by_index(atlas, names, direction, 10, None)
            whole += left
            assert {each[1] for each in found}.isdisjoint(left)
        # Where the ten nearest lie beside the close ones.
        assert set(whole) <= {"tiny-1m/0-mlp-700"} and len(whole) < 5
        # Among the close ones nothing is proven, and that dictionary is computed.
        direction = atlas.directions(["tiny-1m/0-mlp-700/3"])[0].astype(np.float64)
        assert _by_index(atlas, names, direction, 10, None)[1] == ["tiny-1m/0-mlp-700"]


def test_some_dictionaries_may_have_an_index_and_others_none(indexed_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(indexed_folder, tmp_path / "a")
    feature = "tiny-1m/1-res-700/21"
    with open_atlas(tmp_path / "a") as atlas:
        plain = neighbours(atlas, feature, dictionaries=["all"], top=30)
        make_index(atlas, ["tiny-1m/1-res-700"], Progress(quiet=True))
        direction = atlas.directions([feature])[0].astype(np.float64)
        assert "tiny-1m/1-res-700" not in _by_index(atlas, list(atlas.dictionaries), direction, 5, None)[1]
        found = neighbours(atlas, feature, dictionaries=["all"], top=30)
        assert [row["feature"] for row in found] == [row["feature"] for row in plain]
        # More than there are: every row is a candidate, and nothing is computed twice.
        assert len(neighbours(atlas, feature, top=5000)) == 698


def test_a_damaged_index_is_said_and_an_index_goes_with_its_rows(indexed_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(indexed_folder, tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        make_index(atlas, list(atlas.dictionaries), Progress(quiet=True))
        stem = atlas.dictionaries["tiny-1m/1-res-700"].rows_sha256
        path = tmp_path / "a" / "nearest" / f"{stem}.faiss"
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 64  # of the codes: the file is read without a complaint
        plain = [row["feature"] for row in neighbours(atlas, "tiny-1m/1-res-700/3")]
        for damaged in (whole[:500], bytes(flipped), b""):
            path.write_bytes(damaged)
            NearestIndex.open.cache_clear()
            with pytest.raises(QueryError, match=r"missing or damaged.*--index"):
                neighbours(atlas, "tiny-1m/1-res-700/3")
            # As the message says.
            assert [row["feature"] for row in neighbours(atlas, "tiny-1m/1-res-700/3", index=True)] == plain
        assert path.read_bytes() == whole
    assert _run(["remove", "1-res-700", "-a", str(tmp_path / "a")]) == 0
    assert not path.exists() and len(list(path.parent.glob("*.faiss"))) == 2
    assert _run(["neighbours", "0-res-700/3", "--index", "--format", "json", "-a", str(tmp_path / "a")]) == 0


def test_what_cannot_be_looked_for(folder: Path) -> None:
    with open_atlas(folder) as atlas:
        for direction, message in (
            (np.zeros(48), "not all 0"),
            (np.full(48, np.nan), "finite"),
            (np.ones((2, 48)), "shape"),
        ):
            with pytest.raises(QueryError, match=message):
                neighbours(atlas, direction, dictionaries=["all"])
        with pytest.raises(QueryError, match="--in"):
            neighbours(atlas, np.ones(48))
        with pytest.raises(QueryError, match="has rows of 48 numbers, the direction has 7"):
            neighbours(atlas, np.ones(7), dictionaries=["0-res-64"])
        with pytest.raises(UnknownFeature, match="no dictionary"):
            neighbours(atlas, ID, dictionaries=["nowhere"])


def test_the_command_and_a_direction_from_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_atlas(folder) as atlas:
        direction = atlas.directions([ID])[0]
    np.save(tmp_path / "d.npy", direction)
    (tmp_path / "d.json").write_text(json.dumps(direction.tolist()))
    found = []
    for name in ("d.npy", "d.json"):
        assert (
            _run(["neighbours", "--vector", str(tmp_path / name), "--in", "all", "-a", str(folder), "--format", "json"])
            == 0
        )
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] and found[0][0]["feature"] == ID and len(found[0]) == 10
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    assert _run(["neighbours", "--vector", str(tmp_path / "o.npy"), "--in", "all", "-a", str(folder)]) == 1
    assert "neither .npy, nor" in capsys.readouterr().err


def test_a_feature_may_be_given_short_or_as_an_address(folder: Path) -> None:
    """As tables print it where there is one model, and as it is copied from a browser."""
    with open_atlas(folder) as atlas:
        for given in ("1-res-64/5", f"https://www.neuronpedia.org/{ID}", f"http://localhost:3000/{ID}?embed=true"):
            assert atlas.full_id(given) == ID
            assert lineage(atlas, given).seed == ID
            assert show(atlas, given)[0]["id"] == ID
            assert neighbours(atlas, given) == neighbours(atlas, ID)
            assert ask(atlas, "ancestors", given) == ask(atlas, "ancestors", ID)
            np.testing.assert_array_equal(atlas.directions([given]), atlas.directions([ID]))

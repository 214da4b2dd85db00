"""Nearest rows against a product of all rows in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from saes import planted

from atlas import open_atlas
from atlas.cli.main import _run
from atlas.errors import QueryError, UnknownFeature
from ingest import ingest
from queries import ask, lineage, neighbours, show

ID = "tiny-1m/1-res-64/5"


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

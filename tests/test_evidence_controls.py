"""What stands beside the matches: random rows that nobody trained, and dictionaries that cannot be the source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evidence_atlas import active_by_hand, idle_atlas, tiny_atlas, write_text
from saes import unit, write_sae

from atlas import open_atlas
from atlas.cli.main import root
from atlas.errors import QueryError
from atlas.folder.paths import results_folder
from atlas.folder.results import Result, kept
from hooked.encoder import Encoder
from hooked.load import load_model
from ingest import ingest
from queries.evidence.controls.frozen import Frozen
from queries.evidence.controls.impossible import floor_rows, impossible
from queries.evidence.groups import groups
from queries.evidence.nearest import best_among
from queries.evidence.readers import Reader
from queries.evidence.sampling import chosen_places
from queries.evidence.sources import sources


def test_frozen_rows_are_active_where_the_state_is_longest(tmp_path: Path) -> None:
    """By hand: at each state the `count` largest inner products, those above 0, the rest 0; best matches both ways."""
    with open_atlas(idle_atlas(tmp_path)) as opened:
        pair = next(pair for pair in sources(opened) if pair.later.layer == 1 and pair.earlier.site == "res")
        rows = opened.rows(pair.earlier.id)
        frozen = Frozen.of(pair, Reader(pair.earlier, rows, Encoder.of(pair.earlier, rows)), seed=3)
        later = opened.rows(pair.later.id).decoder[:]
    assert frozen is not None
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 4
    counts = torch.tensor([0, 1, 4, 30, 9])  # half of 32 random products are below 0: 30 cannot all be active
    found = frozen.lengths(hidden, counts).numpy()
    along = (hidden - frozen.centre).numpy() @ frozen.rows.numpy().T
    for state, count in enumerate(counts.tolist()):
        expected = np.zeros(32, np.float32)
        largest = np.argsort(-along[state])[:count]
        expected[largest] = np.maximum(along[state][largest], 0)
        np.testing.assert_allclose(found[state], expected, atol=1e-5)
    cosines = later @ frozen.rows.numpy().T
    for direction, axis in (("target", 1), ("source", 0)):
        b, a, cosine = frozen.firsts(direction)
        np.testing.assert_allclose(cosine, cosines.max(axis=axis), atol=1e-6)
        np.testing.assert_allclose(cosines[b, a], cosine, atol=1e-6)
        assert len(b) == 32


def plant(folder: Path) -> Path:
    """Three layers of six rows in six dimensions: the stream after block 0 holds e₀ … e₅.

    mlp of 0 writes e₀, e₁, e₂, which is half of it. mlp of 1, which comes behind, has e₀ alone; the other rows of both
    are zero, which is no direction. mlp of 2 has all.
    """
    axes = np.eye(6, dtype=np.float32)
    for layer, site, living in ((0, "res", 6), (0, "mlp", 3), (1, "mlp", 1), (2, "mlp", 6)):
        rows = np.zeros((6, 6), np.float32)
        rows[:living] = axes[:living]
        write_sae(folder / "saes", layer, site, rows)
    ingest([folder / "saes"], folder / "atlas")
    return folder / "atlas"


def test_matches_above_the_floor_beside_a_source_that_cannot_be_one(tmp_path: Path) -> None:
    """3 of 3 matches with the MLP of block 0 are real; in the one of block 1, 1 of 6 rows has one, in [0, ½]."""
    with open_atlas(plant(tmp_path)) as atlas:
        (row,) = floor_rows(atlas)
        (few,) = floor_rows(atlas, features=4, seed=1)
    assert row["earlier"].endswith("0-mlp-6") and row["impossible"].endswith("1-mlp-6")
    assert (row["n"], row["above"], row["tried"]) == (3, 1, 6)
    assert row["share"] == pytest.approx(1 / 6) and row["share_low"] == 0 and 1 / 6 < row["share_high"] <= 0.5
    assert few["tried"] == 4 and few["share"] in (0, 0.25)


def test_tables_are_kept_for_as_long_as_the_dictionaries_are_the_same(tmp_path: Path) -> None:
    place = plant(tmp_path)

    def there() -> dict[str, Result]:
        with open_atlas(place) as atlas:
            return kept(place, atlas.dictionaries)

    assert there() == {}
    result = CliRunner().invoke(root, ["evidence", "floor", "-a", str(place), "--format", "json", "--features", "5"])
    assert result.exit_code == 0, result.output
    rows = tuple(json.loads(result.stdout))
    assert there() == {"floor": Result("features 5, seed 0", rows)}
    ingest([], place, k=2)  # other edges of the same dictionaries
    assert there()["floor"].rows == rows
    path = results_folder(place) / "floor.json"
    whole = path.read_text()
    for damaged in (whole[:-9], "[]", '{"of": 1}', ""):
        path.write_text(damaged)
        assert there() == {}
    path.write_text(whole)
    rng = np.random.default_rng(0)
    ingest([write_sae(tmp_path / "more", 3, "mlp", unit(rng.normal(size=(6, 6))))], place)
    assert there() == {}


def test_which_source_cannot_be_one(tmp_path: Path) -> None:
    """The nearest behind, of the same site and size; none for the stream, and none behind the last layer."""
    rng = np.random.default_rng(0)
    for layer, site, n in ((0, "res", 8), (1, "res", 8), (1, "att", 8), (2, "att", 8), (3, "att", 8), (3, "res", 8)):
        write_sae(tmp_path / "saes", layer, site, unit(rng.normal(size=(n, 6))))
    write_sae(tmp_path / "wide", 2, "att", unit(rng.normal(size=(12, 6))))
    ingest([tmp_path / "saes", tmp_path / "wide"], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        known = atlas.dictionaries
        by = {(d.layer, d.site, d.d_sae): d for d in known.values()}
        assert impossible(known, by[1, "res", 8], by[1, "att", 8]) == by[2, "att", 8]
        assert impossible(known, by[1, "res", 8], by[0, "res", 8]) is None
        assert impossible(known, by[3, "res", 8], by[3, "att", 8]) is None
        rows = {(row["later"], row["earlier"]): row for row in floor_rows(atlas)}
        assert {row["impossible"] for row in rows.values()} == {None, by[2, "att", 8].id}
        assert all((row["share"] is None) == (row["impossible"] is None) for row in rows.values())


def test_the_best_among_living_rows_in_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    decoder = unit(np.random.default_rng(2).normal(size=(50, 8)))
    decoder[[3, 20]] = 0
    write_sae(tmp_path / "saes", 0, "res", decoder)
    ingest([tmp_path / "saes"], tmp_path / "a")
    monkeypatch.setattr("atlas.folder.stored_rows._PART", 7 * 8)
    features = -unit(np.abs(np.random.default_rng(3).normal(size=(9, 8)))).astype(np.float32)
    with open_atlas(tmp_path / "a") as atlas:
        (id_,) = atlas.dictionaries
        best, cosine = best_among(features, atlas.rows(id_))
        products = features @ atlas.rows(id_).decoder[:].T
    products[:, [3, 20]] = -np.inf
    assert best.tolist() == products.argmax(axis=1).tolist()
    np.testing.assert_allclose(cosine, products.max(axis=1), atol=1e-6)


def test_an_atlas_of_one_dictionary_has_no_floor(tmp_path: Path) -> None:
    write_sae(tmp_path / "saes", 0, "res", unit(np.random.default_rng(0).normal(size=(8, 6))))
    ingest([tmp_path / "saes"], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas, pytest.raises(QueryError, match="no pair of this atlas"):
        floor_rows(atlas)


def test_the_same_rows_are_always_there_and_controls_are_not(tmp_path: Path) -> None:
    """Blocks that write nothing: a feature's best match is active wherever it is."""
    text = write_text(tmp_path / "t.txt", 600)
    with open_atlas(idle_atlas(tmp_path)) as atlas:
        found = groups(atlas, [text], positions=15, controls=True)
    rows = {(row["layer"], row["method"]): row for row in found.controls()}
    assert {method for _, method in rows} == {"top1", "random", "frozen"}  # the stream has no impossible source
    for layer in (1, 2):
        assert rows[layer, "top1"]["share"] == 1 and rows[layer, "random"]["share"] < 0.8
        assert rows[layer, "frozen"]["share"] < 1 and rows[layer, "frozen"]["n"] == rows[layer, "top1"]["n"]
    with open_atlas(tmp_path / "atlas") as atlas:
        assert groups(atlas, [text], positions=15).controls() == []  # not asked for


def test_controls_against_numpy(tmp_path: Path) -> None:
    """Shares of occurrences at which the best match, a random feature, an impossible best match is active, by hand."""
    text = write_text(tmp_path / "t.txt", 500)
    with open_atlas(tiny_atlas(tmp_path, layers=(0, 1))) as atlas:
        rows = groups(atlas, [text], positions=10, seed=2, controls=True).controls()
        found = {(row["layer"], row["site"], row["method"]): row for row in rows}
        model, tokenizer = load_model(str(tmp_path / "model"), device="cpu")
        ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
        top: list[float] = []
        chance: list[float] = []
        impossible_: list[float] = []
        later, earlier, behind = (atlas.dictionary(name) for name in ("0-res-20", "0-mlp-20", "1-mlp-20"))
        unit_rows = {d.id: atlas.rows(d.id).decoder[:] for d in (later, earlier, behind)}
        for number, first in enumerate(range(0, len(ids), 255)):
            active = {}
            for d in (later, earlier, behind):
                active[d.id] = active_by_hand(model, ids[first : first + 255], d, atlas.rows(d.id))
            for place in chosen_places(np.ones(len(active[later.id]), dtype=bool), number, 10, 2):
                for feature in np.flatnonzero(active[later.id][place]):
                    row = unit_rows[later.id][feature]
                    top.append(active[earlier.id][place, (unit_rows[earlier.id] @ row).argmax()])
                    impossible_.append(active[behind.id][place, (unit_rows[behind.id] @ row).argmax()])
                    chance.append(active[earlier.id][place].mean())
    for method, values in (("top1", top), ("random", chance), ("impossible", impossible_)):
        row = found[0, "mlp", method]
        assert row["n"] == len(values) and row["share"] == pytest.approx(np.mean(values), abs=1e-6), method
    assert (1, "mlp", "impossible") not in found  # nothing behind layer 1
    assert {(layer, site) for layer, site, _ in found} == {(0, "mlp"), (0, "att"), (1, "res"), (1, "mlp"), (1, "att")}

"""Two sets of dictionaries at the same places: the same rows in another order, rows that only one has, by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from evidence_atlas import tiny_atlas, weights_of, write_text
from folders import configuration, write_folder
from saes import unit, write_sae

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.errors import QueryError
from ingest import ingest
from queries.evidence.groups import groups
from queries.evidence.mapping import map_rows
from queries.evidence.removals.deactivation import deactivation
from queries.evidence.stability import stability_rows

WIDTH = 24


def plant(folder: Path, sets: dict[str, list[np.ndarray]], mlp: np.ndarray | None = None) -> Path:
    """An atlas with the rows of each set in layers 0, 1, …; `mlp`: one dictionary of block 1 that all sets share."""
    for name, layers in sets.items():
        for layer, rows in enumerate(layers):
            write_sae(folder / name, layer, "res", rows)
        ingest([folder / name], folder / "atlas", set_name=name)
    if mlp is not None:
        ingest([write_sae(folder / "mlp", 1, "mlp", mlp)], folder / "atlas")
    return folder / "atlas"


def orthonormal(seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)


def test_the_same_features_in_another_order_give_the_same_answers(tmp_path: Path) -> None:
    """Every row is shared, every step goes to the partner's step; dealt out anew one in 24 does."""
    first, rng = orthonormal(0), np.random.default_rng(1)
    layers = [first, unit(first + 0.1 * rng.normal(size=first.shape) / 5)]
    turned = [rows[rng.permutation(WIDTH)] for rows in layers]
    with open_atlas(plant(tmp_path / "s", {"one": layers, "two": turned})) as atlas:
        rows = {(row["layer"], row["question"]): row for row in stability_rows(atlas)}
    assert rows.keys() == {(0, "shared"), (0, "lifecycle"), (1, "shared"), (1, "res"), (1, "lifecycle")}
    for place, row in rows.items():
        assert (row["n"], row["same"], row["same_low"], row["same_high"]) == (24, 1, 1, 1), place
    assert rows[1, "res"]["shuffled"] < 0.2 and rows[1, "shared"]["shuffled"] is None
    assert rows[0, "shared"]["one"] != rows[0, "shared"]["other"]


def test_a_step_that_the_other_set_does_not_take(tmp_path: Path) -> None:
    """Both sets have the same layer 1. In layer 0 four pairs of rows (a, b) are turned by 60° in the second set.

    a' = ½a + .87b is the best match of a and of b, and b is the partner of a': so the step from b is the same, the one
    from a goes to a row without a partner. 24 − 4 of 24.
    """
    rows = orthonormal(8)
    turned = rows.copy()
    a, b = rows[0:8:2], rows[1:8:2]
    turned[0:8:2], turned[1:8:2] = a / 2 + np.sqrt(0.75) * b, b / 2 - np.sqrt(0.75) * a
    with open_atlas(plant(tmp_path / "s", {"one": [rows, rows], "two": [turned, rows]})) as atlas:
        (row,) = [row for row in stability_rows(atlas) if row["question"] == "res"]
    assert (row["n"], row["same"]) == (24, pytest.approx(20 / 24)) and row["same_low"] < 20 / 24 < row["same_high"]


def test_what_only_one_set_has_is_not_shared(tmp_path: Path) -> None:
    """Of 24 orthonormal rows the other set has 8 turned over to −row: their best cosine is 0 or less."""
    rows = orthonormal(2)
    other = rows.copy()
    other[:8] *= -1
    with open_atlas(plant(tmp_path / "s", {"one": [rows], "two": [other]})) as atlas:
        (shared, lifecycle) = stability_rows(atlas)
    assert shared["question"] == "shared" and (shared["n"], shared["same"]) == (24, pytest.approx(16 / 24))
    assert shared["same_low"] < 16 / 24 < shared["same_high"]
    assert lifecycle["n"] == 16


def test_a_width_that_splits_features(tmp_path: Path) -> None:
    """The wide set has each of 12 rows twice, turned by 30° to either side: cosine .87, one of them is the partner."""
    axes = orthonormal(3)
    narrow, beyond = axes[:12], axes[12:]
    wide = np.concatenate([unit(narrow + sign * np.tan(np.pi / 6) * beyond) for sign in (1, -1)])
    with open_atlas(plant(tmp_path / "s", {"narrow": [narrow], "wide": [wide]})) as atlas:
        (row,) = [row for row in stability_rows(atlas) if row["question"] == "shared"]
        strict = [row for row in stability_rows(atlas, least=0.9) if row["question"] == "shared"]
    assert row["one"].endswith("narrow") and (row["n"], row["same"]) == (
        12,
        1,
    )  # seen from the narrow one, all are there
    assert [each["same"] for each in strict] == [0]


def test_a_module_that_both_sets_share_is_its_own_partner(tmp_path: Path) -> None:
    """Layer 1 of both sets is what the one MLP writes; the second set has half of its rows by other MLP features."""
    mlp = orthonormal(4)
    swapped = mlp.copy()
    swapped[:12] = mlp[:12][::-1]
    sets = {"one": [orthonormal(5), mlp], "two": [orthonormal(6), swapped]}
    with open_atlas(plant(tmp_path / "s", sets, mlp)) as atlas:
        rows = {(row["layer"], row["question"]): row for row in stability_rows(atlas)}
    # Partners have the same row, so the same row of the MLP is the best match of both.
    assert (rows[1, "mlp"]["n"], rows[1, "mlp"]["same"]) == (24, 1) and rows[1, "mlp"]["shuffled"] < 0.3
    assert rows[0, "shared"]["same"] < 0.3  # independent rows


def test_tables_of_one_set_are_those_of_an_atlas_without_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two seeds of the stream and one MLP between: asked of one, the numbers of an atlas that has no other."""
    text = write_text(tmp_path / "t.txt", 600)
    alone = tiny_atlas(tmp_path / "one", layers=(0, 1), sites=("res", "mlp"))
    both = tiny_atlas(tmp_path / "two", layers=(0, 1), sites=("res", "mlp"))
    for layer in (0, 1):
        cfg = configuration(f"blocks.{layer}.hook_resid_post", d_in=tiny_models.WIDTH, architecture="jumprelu")
        source = write_folder(tmp_path / f"seed-{layer}", cfg, weights_of(cfg, 100 + layer))
        ingest([source], both, model=str(tmp_path / "two" / "model"), set_name="res-seed2")
    tables: list[Callable[[Atlas, str | None], Any]] = [
        lambda atlas, name: groups(atlas, [text], positions=10, set_name=name).shares(),
        lambda atlas, name: deactivation(atlas, [text], positions=10, set_name=name).rows(),
        lambda atlas, name: map_rows(atlas, [text], tokens=300, set_name=name),
    ]
    with open_atlas(alone) as one, open_atlas(both) as two:
        for table in tables:
            caplog.clear()
            expected = table(one, None)
            assert "counted together" not in caplog.text
            assert table(two, "20") == expected != table(two, "seed2")
            assert "counted together" not in caplog.text
            table(two, None)
            assert "res-20, res-seed2" in caplog.text
        with pytest.raises(QueryError, match="no dictionary is of a set 40; there are mlp-20, res-20, res-seed2"):
            tables[0](two, "40")


def test_one_set_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    with (
        open_atlas(plant(tmp_path / "s", {"one": [orthonormal(7)]})) as atlas,
        pytest.raises(QueryError, match="no two residual dictionaries at one place"),
    ):
        stability_rows(atlas)

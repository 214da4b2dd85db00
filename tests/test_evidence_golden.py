"""The printed graph against planted dictionaries of Gemma Scope's names: ones that hold it, and ones that do not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from folders import configuration, write_folder
from saes import planted, unit

from atlas import open_atlas
from atlas.errors import QueryError
from ingest import ingest
from queries.evidence.commands import evidence
from queries.evidence.golden import MLP, RES, golden

SIZE, WIDTH = 16_384, 8


def scope(folder: Path, layers: range, *, wrong: int | None = None) -> Path:
    """Dictionaries of 16,384 rows of 8 numbers, in which the printed features and no others lie close together.

    Printed features lie in the plane of the first two numbers, all other rows at a right angle to it. `wrong`: a layer
    whose printed feature lies elsewhere, so that its neighbours find another.
    """
    rng = np.random.default_rng(0)
    for layer in layers:
        for site, index in (("res", RES[layer]), ("mlp", MLP.get(layer))):
            rows = unit(rng.normal(size=(SIZE, WIDTH)))
            rows[:, :2] = 0
            if index is not None:
                rows[index if layer != wrong or site == "mlp" else (index + 1) % SIZE] = chain(layer, site)
            rows = unit(rows)
            hook = {"res": "hook_resid_post", "mlp": "hook_mlp_out"}[site]
            cfg = configuration(
                f"blocks.{layer}.{hook}",
                d_in=WIDTH,
                d_sae=SIZE,
                model_name="gemma-2-2b",
                neuronpedia_id=f"gemma-2-2b/{layer}-gemmascope-{site}-16k",
            )
            weights = {"W_dec": rows, "W_enc": rows.T, "b_enc": np.zeros(SIZE), "b_dec": np.zeros(WIDTH)}
            write_folder(
                folder / f"{layer}-{site}", cfg, {n: np.ascontiguousarray(w, np.float32) for n, w in weights.items()}
            )
    return folder


def chain(layer: int, site: str) -> np.ndarray:
    """Rows whose cosines are the printed scores at layer 7: .3 with the layer before, .82 with the MLP."""
    angles: dict[tuple[int, str], float] = {
        (6, "res"): 0.0,
        (7, "res"): math.acos(0.3),
        (7, "mlp"): math.acos(0.3) - math.acos(0.82),
    }
    angle = angles.get((layer, site), math.acos(0.3))
    row = np.zeros(WIDTH)
    # In the plane of the first number and one that all other rows have nothing in either.
    row[0], row[1] = np.cos(angle), np.sin(angle)
    return row


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scope")
    ingest([scope(folder / "saes", range(6, 9))], folder / "a", k=1)
    return folder / "a"


@pytest.mark.slow
def test_an_atlas_that_holds_it_finds_every_feature_and_score(atlas: Path) -> None:
    with open_atlas(atlas) as opened:
        rows = golden(opened)
    printed = [row for row in rows if row["printed"] is not None]
    assert [(row["layer"], row["site"], row["printed"]) for row in printed] == [
        (6, "res", 2452),
        (7, "mlp", 6110),
        (7, "res", 16335),
    ]
    assert all(row["same"] for row in printed)
    assert {row["site"]: row["close"] for row in printed if row["close"] is not None} == {"mlp": True, "res": True}


@pytest.mark.slow
def test_an_atlas_that_does_not_is_told(tmp_path: Path) -> None:
    ingest([scope(tmp_path / "saes", range(6, 9), wrong=6)], tmp_path / "a", k=1)
    with open_atlas(tmp_path / "a") as opened:
        rows = {(row["layer"], row["site"]): row for row in golden(opened)}
    assert (rows[6, "res"]["found"], rows[6, "res"]["same"]) == (2453, False)
    assert rows[7, "mlp"]["same"] and rows[7, "res"]["same"]


def test_the_command_counts_what_is_found(atlas: Path) -> None:
    done = CliRunner().invoke(evidence, ["golden", "-a", str(atlas), "--format", "json"])
    assert [row["layer"] for row in json.loads(done.stdout) if row["printed"]] == [6, 7, 7]
    assert "3 of 3 printed features found\n2 of 2 printed scores met\n" in done.stderr


def test_another_model_s_atlas_is_refused(tmp_path: Path) -> None:
    ingest([planted(tmp_path / "saes", range(2))], tmp_path / "a")
    with open_atlas(tmp_path / "a") as opened, pytest.raises(QueryError, match="gemma-scope-2b-pt-res-canonical"):
        golden(opened)

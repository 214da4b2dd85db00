"""Advice: output scores by hand, and a feature that writes a token found to do so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saes
import tiny_models as tiny
import torch
from click.testing import CliRunner

from atlas.atlas import open_atlas
from atlas.errors import PlanError
from hooked.load import load_model
from ingest.job import ingest
from queries.advice.advice import advice_design, words_of
from queries.advice.advised import dose
from queries.advice.commands import advise
from queries.advice.output_score import first_tokens, output_score, promotion
from queries.steer.plan import SteeringPlan

FEATURE = "tiny-1m/3-res-16/3"
TOKEN = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An atlas and its model; row 3 of every residual dictionary is the unembedding's row of token w40."""
    base = tmp_path_factory.mktemp("advice")
    model = tiny.tiny_model("llama")
    row = model.lm_head.weight[TOKEN].detach().numpy()
    generator = np.random.default_rng(0)
    for layer in range(1, 4):
        rows = saes.unit(generator.normal(size=(16, 32)))
        rows[3] = row / np.linalg.norm(row)
        saes.write_sae(base / "saes", layer, "res", rows)
    ingest([base / "saes"], base / "atlas", k=2)
    model.save_pretrained(base / "model")
    tiny.tiny_tokenizer(padding=True).save_pretrained(base / "model")
    return str(base / "atlas"), str(base / "model")


def test_output_scores_equal_hooks_by_hand(folders: tuple[str, str]) -> None:
    model, tokenizer = load_model(folders[1], device="cpu")
    tokens = first_tokens(tokenizer, ["w40", "w5*"])
    assert set(tokens) >= {5, 40}
    prompts = [[5, 9], [6], [7, 8, 9]]
    with open_atlas(folders[0]) as atlas:
        plan = SteeringPlan.from_features(atlas, {FEATURE: 6.0})
        controls = [plan.control(atlas, seed) for seed in range(3)]
        direction = torch.tensor(np.array(atlas.directions([FEATURE])[0]))
    score, random = output_score(model, prompts, [TOKEN], plan, controls)
    expected = []
    for ids in prompts:
        sides = []
        for push in (0.0, 6.0):
            block = tiny.module_of(model, "model.layers.3")
            handle = block.register_forward_hook(lambda _m, _i, out, push=push: out + push * direction)
            with torch.no_grad():
                sides.append(float(model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)[TOKEN]))
            handle.remove()
        expected.append(sides[1] - sides[0])
    assert score == pytest.approx(float(np.mean(expected)), abs=1e-5)
    assert score > 0.5 > random  # the feature is the token's own direction, the others are none
    assert promotion(model, prompts, [TOKEN], None).shape == (3,)


def test_the_command_ranks_the_layers(folders: tuple[str, str]) -> None:
    common = [FEATURE, "-a", folders[0], "--model", folders[1], "--device", "cpu", "--tokens", "4", "--samples", "2"]
    result = CliRunner().invoke(advise, [*common, "--words", "w40", "--format", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    assert {row["layers"] for row in rows} == {"1", "2", "3", "all"}
    assert all(row["texts"] == 8 and row["failed"] == 0 for row in rows)
    ratios = [row["words_per_nat"] for row in rows]
    assert ratios == sorted(ratios, reverse=True)
    (last,) = [row for row in rows if row["layers"] == "3"]
    # 36 % of the layer's norm, all of it here; a third of each norm where all three share the dose.
    assert last["strength"] == pytest.approx(0.36 * last["norm"])
    (together,) = [row for row in rows if row["layers"] == "all"]
    assert together["strength"] == pytest.approx(sum(0.12 * row["norm"] for row in rows if row["norm"]))
    assert "texts/s" in result.stderr
    with open_atlas(folders[0]) as atlas:
        # A third of each norm was tried in all: the sum of the layers' norms × 12 %, and 36 % of one layer's alone.
        norms = {int(row["layers"]): row["norm"] for row in rows if row["norm"]}
        most = max(row["strength"] for row in rows)
        share = dose(atlas, SteeringPlan.from_features(atlas, {FEATURE: "30%"}))
        assert share.total == pytest.approx(0.3 * norms[3]) and share.tried == most and share.warning is None
        both = {FEATURE: "90%", "tiny-1m/2-res-16/3": 2.0}
        large = dose(atlas, SteeringPlan.from_features(atlas, both))
        assert large.total == pytest.approx(0.9 * norms[3] + 2) and large.warning
        assert f"{large.total:.3g} in all is above the {most:.3g}" in large.warning
        other = dose(atlas, SteeringPlan.from_features(atlas, {"tiny-1m/3-res-16/5": 900.0}))
        assert other.tried is None and other.warning is None  # another feature was never advised on
        ablated = dose(atlas, SteeringPlan.from_features(atlas, [FEATURE], mode="ablate"))
        assert ablated.lengths == (None,) and ablated.total is None and not ablated.unmeasured
    dry = CliRunner().invoke(advise, [*common, "--words", "w40", "--dry-run"], catch_exceptions=False)
    assert dry.exit_code == 0 and dry.stdout == "" and "40 texts, 40 to make" in dry.stderr


def test_words_are_those_on_record(folders: tuple[str, str], tmp_path: Path) -> None:
    with open_atlas(folders[0]) as atlas:
        with pytest.raises(PlanError, match="no words are on record"):
            words_of(atlas, FEATURE)
        design = advice_design(atlas, "3-res-16/3", ["w40*"])
        assert (design.theme, design.features, design.arms) == ("w40", (FEATURE,), ("unsteered", "lineage", "single"))

"""Plans: strengths, schedules, layers and sites by hand; from features, a lineage and a query; to a file and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import planted_steering as planted
import pytest
import saes
from click.testing import CliRunner, Result

from atlas.atlas import Atlas, open_atlas
from atlas.cli.main import root
from atlas.errors import ModelError, PlanError, UnknownFeature
from ingest.job import ingest
from queries.lineage.walk import lineage
from queries.steer.plan import SteeringPlan
from queries.steer.strength import Strength, layer_test, scheduled

RES1, RES2, RES3 = (f"tiny-1m/{layer}-res-16/3" for layer in (1, 2, 3))
MLP2 = "tiny-1m/2-mlp-16/3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("plans")
    ingest([saes.planted(base / "saes", range(1, 4), n=16, d=32)], base / "atlas", k=2)
    return base / "atlas"


@pytest.fixture(scope="module")
def atlas(folder: Path) -> Iterator[Atlas]:
    with open_atlas(folder) as opened:
        yield opened


def strengths(plan: SteeringPlan) -> dict[str, str]:
    return {each.feature: str(each.strength) for each in plan.interventions}


@pytest.mark.parametrize(
    ("given", "value", "percent"),
    [(8, 8.0, False), ("8", 8.0, False), ("-2.5", -2.5, False), ("30%", 30.0, True), (" 1e-1 % ", 0.1, True)],
)
def test_strengths_are_read(given: str | float, value: float, percent: bool) -> None:
    assert Strength.of(given) == Strength(value, percent)
    assert Strength.of(str(Strength.of(given))) == Strength.of(given)


@pytest.mark.parametrize("given", ["", "%", "much", "nan", "inf", float("nan"), float("inf"), True, "8 %%", "1_0", "٣"])
def test_what_is_no_strength_is_refused(given: str | float) -> None:
    with pytest.raises(PlanError, match="neither a number"):
        Strength.of(given)


def test_schedules_by_hand() -> None:
    layers = [8, 10, 12]
    assert [scheduled(Strength(6, True), "constant", layer, layers).value for layer in layers] == [6, 6, 6]
    # s·e^{−0.05·l}: the layer's number, not its place in the plan.
    exponential = [scheduled(Strength(6), "exponential", layer, layers).value for layer in layers]
    assert exponential == pytest.approx([6 * math.exp(-0.4), 6 * math.exp(-0.5), 6 * math.exp(-0.6)])
    # From 7 at layer 8 to 1 at layer 12, halfway 4.
    assert [scheduled(Strength(7), "linear", layer, layers).value for layer in layers] == [7, 4, 1]
    assert scheduled(Strength(7), "linear", 9, [9]) == Strength(7)
    with pytest.raises(PlanError, match="constant, linear, exponential"):
        scheduled(Strength(7), "cubic", 9, [9])


def test_layers_are_selected() -> None:
    selected = {
        text: [layer for layer in range(-1, 14) if layer_test(text)(layer)]
        for text in ("single:12", "upto:1", "8-10", "single:-1")
    }
    assert selected == {"single:12": [12], "upto:1": [-1, 0, 1], "8-10": [8, 9, 10], "single:-1": [-1]}
    for wrong in ("12", "8-", "upto", "single:8-9", "all"):
        with pytest.raises(PlanError, match="single:12, upto:12 or 8-12"):
            layer_test(wrong)
    with pytest.raises(PlanError, match="10 comes after 8"):
        layer_test("10-8")


def test_a_plan_from_features(atlas: Atlas) -> None:
    plan = SteeringPlan.from_features(atlas, {RES2: 8.0, RES1: "30%", MLP2: None}, strength=2)
    # In the order of the forward pass: res of 1, mlp of 2, res of 2.
    assert strengths(plan) == {RES1: "30%", MLP2: "2", RES2: "8"}
    assert list(strengths(plan)) == [RES1, MLP2, RES2]
    directions = np.stack([each.direction for each in plan.interventions])
    np.testing.assert_array_equal(directions, atlas.directions([RES1, MLP2, RES2]))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    assert plan.model_name == saes.MODEL
    linear = SteeringPlan.from_features(atlas, [RES1, RES2, RES3], strength=5, schedule="linear")
    assert strengths(linear) == {RES1: "5", RES2: "3", RES3: "1"}  # 5 → 1 over three layers
    # The schedule runs over the layers that remain.
    part = SteeringPlan.from_features(atlas, [RES1, RES2, RES3], strength=5, schedule="linear", layers="1-2")
    assert strengths(part) == {RES1: "5", RES2: "1"}
    assert strengths(SteeringPlan.from_features(atlas, [RES1], mode="suppress")) == {RES1: "0"}
    assert SteeringPlan.from_features(atlas, [RES1], mode="ablate").interventions[0].strength is None


def test_a_plan_outlives_its_atlas(folder: Path) -> None:
    with open_atlas(folder) as opened:
        plan = SteeringPlan.from_features(opened, [RES1], mode="clamp", strength=3)
    rows = plan.interventions[0].rows
    assert rows is not None
    assert rows.encoder[3].any()


def test_a_plan_from_a_lineage(atlas: Atlas) -> None:
    graph = lineage(atlas, RES3)
    sites = {node["site"] for node in graph.to_dict()["nodes"]}
    assert "mlp" in sites  # the planted features come from an MLP too
    for given in (RES3, graph, graph.to_dict()):
        added = SteeringPlan.from_lineage(atlas, given, "6%")
        assert strengths(added) == {RES1: "6%", RES2: "6%", RES3: "6%"}
    suppressed = SteeringPlan.from_lineage(atlas, graph, mode="suppress")
    assert {each.dictionary.site for each in suppressed.interventions} == sites
    only = SteeringPlan.from_lineage(atlas, graph, 2, sites=["mlp"])
    assert {each.dictionary.site for each in only.interventions} == {"mlp"}


def test_a_plan_from_a_query(atlas: Atlas) -> None:
    where = "MATCH (f:Feature) WHERE f.id IN $ids"
    rows = {"ids": [RES1, RES2]}
    plan = SteeringPlan.from_query(atlas, f"{where} RETURN f.id AS feature", "6%", parameters=rows)
    assert strengths(plan) == {RES1: "6%", RES2: "6%"}
    own = SteeringPlan.from_query(atlas, f"{where} RETURN f.id AS feature, f.layer * 2.0 AS strength", parameters=rows)
    assert strengths(own) == {RES1: "2", RES2: "4"}
    with pytest.raises(PlanError, match=r"returns id; steering needs a column feature"):
        SteeringPlan.from_query(atlas, f"{where} RETURN f.id AS id", 1, parameters=rows)
    with pytest.raises(PlanError, match="no row"):
        SteeringPlan.from_query(atlas, f"{where} RETURN f.id AS feature", 1, parameters={"ids": ["none"]})
    with pytest.raises(PlanError, match="must hold feature ids"):
        SteeringPlan.from_query(atlas, f"{where} RETURN f.layer AS feature", 1, parameters=rows)


def test_a_saved_plan_reads_back_the_same(atlas: Atlas, tmp_path: Path) -> None:
    for mode, strength in (("add", "30%"), ("add", 8), ("suppress", -2), ("clamp", 4), ("ablate", None)):
        plan = SteeringPlan.from_features(atlas, [RES1, MLP2], mode=mode, strength=strength, positions="generated")
        plan.save(tmp_path / "plan.json")
        again = SteeringPlan.load(tmp_path / "plan.json", atlas)
        assert again == plan
        for one, other in zip(plan.interventions, again.interventions, strict=True):
            np.testing.assert_array_equal(one.direction, other.direction)
            assert (one.rows is None) == (other.rows is None)
    text = (tmp_path / "plan.json").read_text()
    assert json.loads(text)["interventions"][0] == {
        "feature": RES1,
        "label": None,
        "layer": 1,
        "site": "res",
        "hook": "blocks.1.hook_resid_post",
        "mode": "ablate",
        "strength": None,
        "positions": "generated",
        "rows_sha256": atlas.dictionaries["tiny-1m/1-res-16"].rows_sha256,
    }
    assert len(text) < 1500  # no vectors


def test_a_plan_of_other_rows_or_of_another_form_is_refused(atlas: Atlas, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    good = SteeringPlan.from_features(atlas, [RES1], strength=3).to_dict()

    def refused(match: str, values: object) -> None:
        path.write_text(values if isinstance(values, str) else json.dumps(values))
        with pytest.raises((PlanError, UnknownFeature), match=match):
            SteeringPlan.load(path, atlas)

    def entry(**changes: object) -> dict[str, object]:
        return good | {"interventions": [good["interventions"][0] | changes]}

    refused("other rows", entry(rows_sha256="0" * 64))
    refused("at layer 2, but it is at layer 1", entry(layer=2))
    refused("at hook blocks.2.hook_resid_post, but it is at hook blocks.1", entry(hook="blocks.2.hook_resid_post"))
    refused("at site mlp, but it is at site res", entry(site="mlp"))
    refused(f"is for model other, but {RES1} is of", good | {"model": "org/other"} | {"model": "other"})
    refused("model must be text", good | {"model": None})
    refused("named twice", good | {"interventions": good["interventions"] * 2})
    refused("mode 'boost' is not known; known: add, suppress, clamp, ablate", entry(mode="boost"))
    refused("positions 'some' is not known; known: all, prompt, generated", entry(positions="some"))
    refused("unknown key 'strenght'; known keys: feature", entry(strenght=3))
    refused("neither a number", entry(strength="strong"))
    refused("needs a strength", entry(strength=None))
    refused("share of the norm is for mode add", entry(mode="suppress", strength="3%"))
    refused("no dictionary", entry(feature="tiny-1m/9-res-16/3"))
    refused("feature must be text", entry(feature=3))
    refused("format 2", good | {"format": 2})
    refused("'interventions' is missing", {"format": 1, "model": "m"})
    refused("is not JSON", "{")
    refused("not a plan", "[]")
    refused("empty", good | {"interventions": []})
    with pytest.raises(PlanError, match="cannot be read"):
        SteeringPlan.load(tmp_path / "none.json", atlas)


def test_a_plan_keeps_where_it_came_from(atlas: Atlas, tmp_path: Path) -> None:
    state = {"id": atlas.manifest.id, "state": atlas.manifest.state}
    query = "MATCH (f:Feature {layer: $l, site: 'res', index: 3}) RETURN f.id AS feature"
    graph = lineage(atlas, RES3, min_res=0.1, min_module="floor", back=1)
    plans: dict[str, tuple[SteeringPlan, dict[str, object]]] = {
        "features": (SteeringPlan.from_features(atlas, {RES1: 2}), {"features": [RES1]}),
        "query": (
            SteeringPlan.from_query(atlas, query, 2, parameters={"l": 1}),
            {"cypher": query, "parameters": {"l": 1}},
        ),
        "lineage": (
            SteeringPlan.from_lineage(atlas, graph, 2),
            {
                "lineage": RES3,
                "min_res": 0.1,
                "min_module": "floor",
                "back": 1,
                "forward": None,
                "k": 1,
                "by": "cosine",
            },
        ),
    }
    for name, (plan, origin) in plans.items():
        plan.save(tmp_path / name)
        assert json.loads((tmp_path / name).read_text())["origin"] == origin | {"atlas": state}
        again = SteeringPlan.load(tmp_path / name, atlas)
        assert (again, again.to_dict()) == (plan, plan.to_dict())


def test_a_plan_is_read_at_once(atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"tiny-1m/{layer}-res-16/{index}" for layer in (1, 2) for index in range(16)]
    plan = SteeringPlan.from_features(atlas, ids, strength=1)
    (tmp_path / "plan.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(plan.to_dict()).encode())
    reads: list[str] = []
    read = atlas.read

    def counted(cypher: str, **parameters: object) -> list[dict[str, object]]:
        reads.append(cypher)
        return read(cypher, **parameters)

    monkeypatch.setattr(atlas, "read", counted)
    assert SteeringPlan.load(tmp_path / "plan.json", atlas) == plan
    assert len(reads) == 1


def test_a_control_has_the_same_doses_elsewhere_in_the_same_dictionaries(atlas: Atlas) -> None:
    plan = SteeringPlan.from_features(atlas, {RES1: 2, MLP2: 3, RES2: "4%"}, positions="prompt")
    control = plan.control(atlas, 1)
    for one, other in zip(plan.interventions, control.interventions, strict=True):
        assert one.feature != other.feature and one.dictionary == other.dictionary
        assert (one.mode, one.strength, one.positions) == (other.mode, other.strength, other.positions)
        assert other.direction.any()
    assert plan.control(atlas, 1) == control != plan.control(atlas, 2)
    whole = SteeringPlan.from_features(atlas, [f"tiny-1m/1-res-16/{index}" for index in range(9)], strength=1)
    with pytest.raises(PlanError, match="has 7 other living features; a control needs 9"):
        whole.control(atlas)


def test_errors_say_what_would_do(atlas: Atlas) -> None:
    def refused(match: str, features: object, **options: object) -> None:
        with pytest.raises((PlanError, UnknownFeature), match=match):
            SteeringPlan.from_features(atlas, features, **options)  # type: ignore[arg-type]

    refused("needs a strength", [RES1])
    refused("named twice", [RES1, RES1], strength=1)
    refused("mode ablate has no strength", [RES1], mode="ablate", strength=1)
    refused("changes nothing", [RES1], mode="ablate", schedule="linear")
    refused("known: add, suppress, clamp, ablate", [RES1], mode="boost", strength=1)
    refused("known: all, prompt, generated", [RES1], positions="first", strength=1)
    refused("known: res, mlp, att", [RES1], sites=["attn"], strength=1)
    refused("known: constant, linear, exponential", [RES1], schedule="cubic", strength=1)
    refused("sit at 1/res, 2/mlp", [RES1, MLP2], layers="upto:0", strength=1)
    refused("features 0 to 15, not 16", ["tiny-1m/1-res-16/16"], strength=1)
    refused("empty|no feature is left", [], strength=1)


def test_the_commands_choices_are_those_of_the_plan(folder: Path, atlas: Atlas, tmp_path: Path) -> None:
    """A plan is written before a model is loaded, so none is needed here."""
    path = tmp_path / "plan.json"

    def steer(*arguments: str) -> Result:
        where = ["-a", str(folder), "--model", str(tmp_path / "none"), "--save-plan", str(path)]
        return CliRunner().invoke(root, ["steer", "I think", *arguments, *where])

    def written(*arguments: str) -> SteeringPlan:
        path.unlink(missing_ok=True)
        assert isinstance(steer(*arguments).exception, ModelError)
        return SteeringPlan.load(path, atlas)

    assert written("--feature", RES1) == SteeringPlan.from_features(atlas, [RES1], strength="30%")
    two = SteeringPlan.from_features(atlas, {RES1: 8, RES2: None}, strength="6%")
    assert written("--feature", f"{RES1}=8", "--feature", RES2) == two
    options = ("--mode", "clamp", "--strength", "5", "--schedule", "linear", "--layers", "1-2", "--positions", "prompt")
    clamped = SteeringPlan.from_lineage(
        atlas, RES3, 5, mode="clamp", schedule="linear", layers="1-2", positions="prompt", sites=("res", "mlp")
    )
    assert written("--lineage", RES3, *options, "--sites", "res,mlp") == clamped
    query = f"MATCH (f:Feature {{id: '{RES1}'}}) RETURN f.id AS feature"
    assert written("--cypher", query, "--mode", "ablate") == SteeringPlan.from_query(atlas, query, mode="ablate")
    # A saved plan says all of it already; and something must be named.
    assert steer("--plan", str(path)).exit_code == 1
    for arguments in (["--plan", str(path), "--mode", "add"], [], ["--feature", RES1, "--lineage", RES1]):
        assert steer(*arguments).exit_code == 2
    assert isinstance(steer("--feature", RES1, "--feature", RES1).exception, PlanError)


def test_one_plan_steers_one_model() -> None:
    one = planted.intervention(planted.planted_dictionary("blocks.1.hook_resid_post"), 1, "add", 1)
    other = planted.planted_dictionary("blocks.1.hook_resid_post", model="other", id="other/1-res-24")
    with pytest.raises(PlanError, match="one model; these features are of other, tiny"):
        SteeringPlan((one, planted.intervention(other, 1, "add", 1)))

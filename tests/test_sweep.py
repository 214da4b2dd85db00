"""Sweeps on a tiny model: known doses, seeds that are pairs, resuming after a kill, and the command end to end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saes
import tiny_models as tiny
import torch
from click.testing import CliRunner

from atlas.atlas import open_atlas
from atlas.cli.progress import Progress
from atlas.errors import PlanError
from hooked.capture import captured
from hooked.encoder import Encoder
from hooked.hookpoints import read_point
from hooked.load import load_model
from ingest.job import ingest
from queries.records.records import read_records
from queries.steer.generation import Generation, GenerationOptions, continued
from queries.steer.plan import SteeringPlan
from queries.steer.running.draws import Draws, drawn_tokens
from queries.steer.score import nats_per_token
from queries.steer.strength import Strength
from queries.steer.theme import theme_pattern
from queries.sweep.arms import Arm, Cell, Plans, cells_of, chain_of
from queries.sweep.commands import sweep
from queries.sweep.design import KINDS, Design
from queries.sweep.doses import lengths, spread
from queries.sweep.findings import reported
from queries.sweep.held_out import Readers, held_out
from queries.sweep.marks import compression, marks, repetition
from queries.sweep.running import Sweep
from queries.sweep.scores import scores_of
from queries.sweep.streams import Streams, contrast_passages
from queries.sweep.trials import read_trials

FEATURE = "tiny-1m/2-res-16/3"
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An atlas of three layers whose feature 3 persists, and the model that it is of."""
    base = tmp_path_factory.mktemp("sweep")
    ingest([saes.planted(base / "saes", range(1, 4), n=16, d=32)], base / "atlas", k=2)
    tiny.tiny_model("llama").save_pretrained(base / "model")
    tiny.tiny_tokenizer(padding=True).save_pretrained(base / "model")
    return str(base / "atlas"), str(base / "model")


def design(folders: tuple[str, str], **changes: Any) -> Design:
    values: dict[str, Any] = {
        "features": (FEATURE,),
        "theme": "w3",
        "words": ("w3", "w4*"),
        "model": folders[1],
        "strengths": ("60%", "180%"),
        "arms": tuple(kind for kind in KINDS["add"] if kind != "means"),
        "prompts": ("w5 w9", "w6", "w7 w8 w9", "w30"),
        "samples": 3,
        "report_samples": 4,
        "max_new_tokens": 5,
        "controls": 2,
    }
    return Design(**(values | changes))


def ran(folders: tuple[str, str], output: Path, chosen: Design, **options: Any) -> list[Any]:
    model, tokenizer = load_model(folders[1], device="cpu")
    with open_atlas(folders[0]) as atlas:
        made = Sweep(atlas, model, tokenizer, chosen, **options)
        trials = made.choose(output, QUIET)
        return trials + made.report(output, reported(scores_of(chosen, trials)), QUIET)


def test_doses_add_up_whatever_the_schedule() -> None:
    # linear over 3 layers: s = 2·36/3 − 1 = 23, the middle (23 + 1)/2 = 12.
    assert spread(36, [8, 9, 10]) == {8: 12, 9: 12, 10: 12}
    assert spread(36, [8, 9, 10], "linear") == pytest.approx({8: 23, 9: 12, 10: 1})
    falling = spread(36, [8, 9, 11], "exponential")
    assert sum(falling.values()) == pytest.approx(36)
    assert falling[11] / falling[8] == pytest.approx(math.exp(-0.05 * 3))
    assert sum(spread(40, [1, 2, 9], "linear").values()) == pytest.approx(40)
    with pytest.raises(PlanError, match="above 3"):
        spread(3, [1, 2, 3], "linear")
    # Two features of layer 8 share its half of 30%, a norm of 200 there: 0.15 · 200 / 2 = 15; layer 9: 0.15 · 100 = 15.
    given = lengths(Strength.of("30%"), {"a": 8, "b": 8, "c": 9}, {8: 200.0, 9: 100.0})
    assert {name: each.value for name, each in given.items()} == pytest.approx({"a": 15, "b": 15, "c": 15})


def test_every_arm_of_one_strength_is_given_the_same_total(folders: tuple[str, str]) -> None:
    chosen = design(folders, arms=(*KINDS["add"],), contrast="text", strengths=("12",))
    with open_atlas(folders[0]) as atlas:
        chain = chain_of(atlas, chosen)
        layers = sorted({record.layer for record, _ in chain.values()})
        assert layers == [1, 2, 3]
        streams = Streams({layer: 10.0 * layer for layer in layers}, {layer: np.ones(32) for layer in layers})
        plans = Plans(atlas, chosen, chain, streams)
        cells = cells_of(chosen, chain)
        assert [cell.arm.name for cell in cells][:3] == ["unsteered", "prompted", "lineage"]
        assert {"single:1", "single:2", "single:3", "upto:2", "means:2", "means"} <= {cell.arm.name for cell in cells}
        for cell in cells:
            plan = plans.plan(cell)
            if cell.strength is None:
                assert plan is None
                continue
            assert plan is not None
            given = [each.strength.value for each in plan.interventions if each.strength]
            assert sum(map(abs, given)) == pytest.approx(12), cell.name
            assert all(value < 0 for value in given) == (cell.arm.kind == "reversed")
            assert np.linalg.norm([each.direction for each in plan.interventions], axis=1) == pytest.approx(1, abs=1e-5)
        shares = plans.plan(Cell(Arm("lineage"), "30%"))  # 10 % of each layer's norm: 1, 2, 3
        assert shares is not None
        assert [each.strength.value for each in shares.interventions if each.strength] == pytest.approx([1, 2, 3])


def test_controls_keep_layers_and_doses_and_turn_other_features(folders: tuple[str, str]) -> None:
    chosen = design(folders, strengths=("12",))
    with open_atlas(folders[0]) as atlas:
        chain = chain_of(atlas, chosen)
        plans = Plans(atlas, chosen, chain, Streams({1: 1.0, 2: 1.0, 3: 1.0}))
        ours = plans.plan(Cell(Arm("lineage"), "12"))
        assert ours is not None
        for kind in ("random", "noise"):
            drawn = [plans.plan(Cell(Arm(kind), "12"), draw) for draw in (0, 1)]
            for plan in drawn:
                assert plan is not None
                assert [each.dictionary.layer for each in plan.interventions] == [1, 2, 3]
                assert [each.strength for each in plan.interventions] == [each.strength for each in ours.interventions]
                assert not {each.feature for each in plan.interventions} & set(chain)
                # The atlas' policy holds for directions that are no features too.
                assert plan.home is not None and plan.home == ours.home
            assert drawn[0] != drawn[1]


def test_a_token_is_drawn_where_the_cumulated_mass_passes_the_number() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.4]]))
    for number, token in ((0.0, 0), (0.09, 0), (0.11, 1), (0.59, 1), (0.61, 2), (0.999999, 2)):
        assert int(drawn_tokens(logits, torch.tensor([number]))) == token
    # Of mass .6 the tokens .5 and .4 are left, in this order: .5/.9 = .5556.
    for number, token in ((0.0, 1), (0.55, 1), (0.56, 2), (0.999999, 2)):
        assert int(drawn_tokens(logits, torch.tensor([number]), 0.6)) == token
    counts = np.bincount(drawn_tokens(logits.expand(20000, 3), torch.rand(20000, generator=torch.manual_seed(0))))
    assert counts / 20000 == pytest.approx([0.1, 0.5, 0.4], abs=0.015)


def test_texts_depend_on_their_own_seeds_not_on_their_batch() -> None:
    model, tokenizer = tiny.tiny_model("llama"), tiny.tiny_tokenizer()
    options, prompts = GenerationOptions(max_new_tokens=6), ["w5 w9", "w6", "w7 w8 w9"]
    seeds = [(0, 0, i) for i in range(3)]
    together = continued(model, tokenizer, prompts, None, options, draws=Draws(seeds, 6, 1.0, None))
    for prompt, seed, text in zip(prompts, seeds, together, strict=True):
        (alone,) = continued(model, tokenizer, [prompt], None, options, draws=Draws([seed], 6, 1.0, None))
        assert alone.tokens == text.tokens
    other = continued(
        model, tokenizer, prompts, None, options, draws=Draws([(1, 0, i) for i in range(3)], 6, 1.0, None)
    )
    assert [each.tokens for each in other] != [each.tokens for each in together]


@pytest.mark.slow
def test_a_sweep_is_the_texts_of_its_plans_and_batches_change_nothing(folders: tuple[str, str], tmp_path: Path) -> None:
    chosen = design(folders)
    trials = ran(folders, tmp_path / "a", chosen)
    small = ran(folders, tmp_path / "b", chosen, batch=5)
    recorded = [row["folder"] for row in read_records(Path(folders[0])) if row["kind"] == "sweep"]
    assert recorded[-2:] == [str((tmp_path / name).resolve()) for name in "ab"]
    chosen_half = [each for each in trials if each.half == "choose"]
    # unsteered and prompted once, ten arms at two strengths; two prompts of three samples.
    assert len(chosen_half) == (2 + 10 * 2) * 2 * 3 and len(trials) == len(small)
    # Each of ten kinds reports once or, where its best strength is not the lineage's, twice: two prompts, four samples.
    assert 10 * 8 <= len(trials) - len(chosen_half) <= 18 * 8

    def place(trial: Any) -> tuple[Any, ...]:
        return trial.arm, trial.strength, trial.prompt, trial.sample

    numbers = ("words", "nats", "rep3", "zlib")
    for one, other in zip(sorted(trials, key=str), sorted(small, key=str), strict=True):
        assert place(one) == place(other) and one.tokens == other.tokens
    ordered = [sorted(part, key=lambda each: tuple(map(str, place(each)))) for part in (trials, small)]
    for name in numbers:
        first, second = ([getattr(each, name) for each in part] for part in ordered)
        assert [math.nan if v is None else v for v in first] == pytest.approx(
            [math.nan if v is None else v for v in second], abs=1e-4, nan_ok=True
        )
    # By hand: the lineage's plan as it was written, and the same random numbers.
    model, tokenizer = load_model(folders[1], device="cpu")
    with open_atlas(folders[0]) as atlas:
        (path,) = (tmp_path / "a" / "plans").glob("lineage_180-0.json")
        plan = SteeringPlan.load(path, atlas)
    (text,) = continued(
        model,
        tokenizer,
        ["w7 w8 w9"],
        plan,
        GenerationOptions(max_new_tokens=5),
        draws=Draws([(0, 0, 2, 1)], 5, 1.27, 0.7),
    )
    (trial,) = [each for each in trials if place(each) == ("lineage", "180%", 2, 1)]
    assert trial.tokens == text.tokens and trial.half == "choose"
    steered = {each.sample: each.tokens for each in trials if place(each)[:3] == ("lineage", "180%", 2)}
    plain = {each.sample: each.tokens for each in trials if place(each)[:3] == ("unsteered", None, 2)}
    assert steered != plain


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(folders: tuple[str, str], tmp_path: Path) -> None:
    whole = ran(folders, tmp_path / "whole", design(folders), batch=4)
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_sweep as t; from pathlib import Path;"
        f"t.ran({folders!r}, Path({str(tmp_path / 'killed')!r}), t.design({folders!r}), batch=4)"
    )
    parts = tmp_path / "killed" / "trials"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    end = time.monotonic() + 120
    while len(list(parts.glob("[cr]*.parquet"))) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in parts.glob("[cr]*.parquet")}
    assert 8 <= len(there) < 100
    again = ran(folders, tmp_path / "killed", design(folders), batch=4)
    assert [asdict(each) for each in again] == [asdict(each) for each in whole]
    assert {name: (parts / name).stat().st_mtime_ns for name in there} == there


def test_another_design_is_refused_in_the_same_folder(folders: tuple[str, str], tmp_path: Path) -> None:
    small = design(folders, arms=("lineage",), strengths=("60%",), samples=1)
    ran(folders, tmp_path, small)
    assert len(read_trials(tmp_path)) == 2 * 2 * 1 + 2 * 2 * 4
    with pytest.raises(PlanError, match=r"another design \(seed differ\)"):
        ran(folders, tmp_path, replace(small, seed=1))
    # Strengths and arms may be added: what is there is kept, and the rest is as if it had been there from the start.
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "trials").iterdir()}
    grown = replace(small, arms=("lineage", "single"), strengths=("60%", "lineage=90%"))
    trials = ran(folders, tmp_path, grown)
    assert {(each.arm, each.strength) for each in trials if each.half == "choose"} == {
        *(("unsteered", None), ("lineage", "60%"), ("lineage", "90%")),
        *((f"single:{layer}", "60%") for layer in (1, 2, 3)),
    }
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "trials").iterdir()}
    assert {name: after[name] for name in before} == before
    small = grown
    with pytest.raises(PlanError, match="another design"):
        ran(folders, tmp_path, replace(small, strengths=("60%",)))
    (part, *_) = (tmp_path / "trials").glob("[cr]*.parquet")
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(PlanError, match=r"is damaged .*: delete it and repeat"):
        ran(folders, tmp_path, small)


def test_texts_that_fail_are_counted_and_are_no_zeros(folders: tuple[str, str], tmp_path: Path) -> None:
    chosen = design(folders, arms=("lineage",), strengths=("1e38", "12"), samples=1)
    trials = ran(folders, tmp_path, chosen)
    broken = [each for each in trials if each.strength == "1e38"]
    assert all(each.failed and "not finite" in each.failed for each in broken) and len(broken) == 2
    assert all(each.words is None and each.nats is None for each in broken)


def test_marks_by_hand(folders: tuple[str, str], tmp_path: Path) -> None:
    assert repetition([1, 2, 3, 1, 2, 3]) == 0.25 and repetition([1, 2]) is None
    assert compression("ab" * 500) == pytest.approx(0.017, abs=0.01) and compression("") is None
    feature = "tiny-1m/3-res-16/9"
    with open_atlas(folders[0]) as atlas:
        with pytest.raises(PlanError, match="turned by the sweep"):
            held_out(atlas, chain_of(atlas, design(folders)), theme_pattern(["w3"]), [FEATURE])
        with pytest.raises(PlanError, match="no largest activation"):
            held_out(atlas, chain_of(atlas, design(folders)), theme_pattern(["w3"]), [feature])


def test_held_out_features_read_the_new_tokens_alone(folders: tuple[str, str]) -> None:
    model, tokenizer = load_model(folders[1], device="cpu")
    chosen = {"tiny-1m/2-res-16": [5, 9], "tiny-1m/3-mlp-16": [2]}
    with open_atlas(folders[0]) as atlas:
        records = {id_: atlas.dictionaries[id_] for id_ in chosen}
        encoders = {id_: Encoder.of(records[id_], atlas.rows(id_), rows) for id_, rows in chosen.items()}
    points = {id_: read_point(model, record) for id_, record in records.items()}
    largest = {"tiny-1m/2-res-16": torch.tensor([2.0, 0.5]), "tiny-1m/3-mlp-16": torch.tensor([0.25])}
    made = [Generation("w9 w9 w9", "", [7, 8, 1], [], 0, [9, 9, 9]), Generation("w5", "", [12], [], 0, [5])]
    plain = [[5, 9], [6]]  # read after these, whatever the arm's own prompt was
    found = marks(model, tokenizer, made, plain, theme_pattern(["w3"]), Readers(points, encoders, largest))
    for each, before, mark in zip(made, plain, found, strict=True):
        with torch.no_grad(), captured(points) as seen:
            model(input_ids=torch.tensor([before + each.tokens]))
        parts = [encoders[id_](seen[id_]).values[0] / largest[id_] for id_ in chosen]
        strongest = torch.cat(parts, -1).amax(-1)[len(before) :]
        new = strongest[:2] if len(each.tokens) == 3 else strongest  # 1 is a special token
        assert mark.activation == pytest.approx(float(new.mean()), rel=1e-4)
    assert found[0].activation != found[1].activation
    expected = nats_per_token(model, tokenizer, [replace(made[0], prompt_tokens=[5, 9])])[0]
    assert found[0].nats == pytest.approx(expected, rel=1e-5)


def test_contrast_passages_are_as_many_of_each_kind() -> None:
    war = "\n".join(f"They went to war in the year {i} and came back." for i in range(20))
    peace = "\n".join(f"They went to sea in the year {i} and came back." for i in range(50))
    with_, without = contrast_passages(f"{war}\n{peace}", theme_pattern(["war"]), 0)
    assert len(with_) == len(without) == 20
    assert all("war" in each for each in with_) and not any("war" in each for each in without)
    with pytest.raises(PlanError, match="20 sentences with words of the theme and 0 without"):
        contrast_passages(war, theme_pattern(["war"]), 0)


@pytest.mark.slow
def test_the_command_prints_its_tables_and_keeps_everything(folders: tuple[str, str], tmp_path: Path) -> None:
    atlas, model = folders
    (tmp_path / "prose.txt").write_text("\n".join(f"w3 w5 w{i} w9 w8 w7\nw6 w5 w{i} w9 w8 w7" for i in range(10, 40)))
    common = [FEATURE, "-a", atlas, "--model", model, "--device", "cpu", "--tokens", "4", "--samples", "2"]
    common += ["--report-samples", "3", "--words", "w3,w4*", "-o", str(tmp_path / "out"), "--strengths", "90%"]
    common += ["--format", "json", "--prompt", "w5 w9", "--prompt", "w6", "--contrast", str(tmp_path / "prose.txt")]

    def rows(*arguments: str) -> list[dict[str, Any]]:
        result = CliRunner().invoke(sweep, [*common, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert "arms and strengths" in result.stderr
        return list(json.loads(result.stdout))

    (dry,) = rows("--dry-run")
    assert dry["texts"] == dry["left"] > 0 and dry["seconds"] > 0 and not (tmp_path / "out").exists()
    arms = rows()
    assert {row["arm"] for row in arms} == set(KINDS["add"])
    assert all(row["texts"] == 3 and row["failed"] == 0 for row in arms)
    contrasts = rows("--rows", "contrasts")
    assert {row["kind"] for row in contrasts} == {"each at its best", "equal dose"}
    assert all((row["p_holm"] is None) == (row["score"] != "success") for row in contrasts)
    assert 0.5 * dry["texts"] < len(rows("--rows", "trials")) <= dry["texts"]
    (left,) = rows("--dry-run")
    assert left["left"] < dry["left"] / 2
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"design.json", "streams.npz", "plans", "trials", "arms.csv", "contrasts.csv", "strengths.csv"}
    assert os.listdir(tmp_path / "out" / "trials")


@pytest.mark.slow
def test_suppression_turns_the_factor_and_ends_sooner(folders: tuple[str, str], tmp_path: Path) -> None:
    chosen = design(
        folders, mode="suppress", strengths=("0", "-2"), arms=KINDS["suppress"], prompts=("w5 w9", "w6"), samples=1
    )
    with open_atlas(folders[0]) as atlas:
        chain = chain_of(atlas, chosen)
        assert {record.site for record, _ in chain.values()} >= {"res", "mlp"}
        plans = Plans(atlas, chosen, chain, Streams({}))
        seeds = plans.plan(Cell(Arm("seeds"), "-2"))
        assert seeds is not None
        assert [(each.feature, each.mode, str(each.strength)) for each in seeds.interventions] == [
            (FEATURE, "suppress", "-2")
        ]
    trials = ran(folders, tmp_path, chosen)
    assert {each.arm for each in trials} >= {"unsteered", "lineage", "seeds", "random", "single:2", "upto:2"}

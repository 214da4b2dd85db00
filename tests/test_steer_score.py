"""Theme scores by hand, and the commands `steer` and `score` end to end on a tiny model in a folder."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import planted_steering as planted
import pytest
import saes
import tiny_models as tiny
import torch
from click.testing import CliRunner

from atlas.atlas import open_atlas
from atlas.cli.output import render
from atlas.cli.progress import Advance, Progress
from atlas.errors import ModelError, PlanError
from hooked.load import load_model
from ingest.job import ingest
from queries.steer.commands import announced_model, score, steer
from queries.steer.generation import Generation, generate
from queries.steer.plan import SteeringPlan
from queries.steer.printed import side_by_side, with_errors
from queries.steer.score import ThemeScore, nats_per_token, read_words, theme_pattern, theme_score, verdict

FEATURE = "tiny-1m/1-res-16/3"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An atlas, and the model that it is of."""
    base = tmp_path_factory.mktemp("commands")
    ingest([saes.planted(base / "saes", range(1, 4), n=16, d=32)], base / "atlas", k=2)
    tiny.tiny_model("llama").save_pretrained(base / "model")
    tiny.tiny_tokenizer(padding=True).save_pretrained(base / "model")
    return str(base / "atlas"), str(base / "model")


def run(command: Any, *arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_words_are_counted_whole_and_in_any_case(tmp_path: Path) -> None:
    pattern = theme_pattern(["war", "soldier*", "St. John"])
    # War, soldiers, war, St. John; not warm, nor postwar.
    assert len(pattern.findall("War is warm; soldiers of the postwar (war) at St. John.")) == 4
    with pytest.raises(PlanError, match="no words"):
        theme_pattern(["", " "])
    (tmp_path / "words.txt").write_text("war\narmy, navy\n")
    assert [word.strip() for word in read_words(str(tmp_path / "words.txt"))] == ["war", "army", "navy"]
    assert read_words("war,army") == ["war", "army"]


def test_nats_equal_a_loop_over_tokens() -> None:
    model, tokenizer = tiny.tiny_model("gpt2"), tiny.tiny_tokenizer()
    made = [Generation("w5 w9", "", [7, 8, 9], [], 0), Generation("w5", "", [12], [], 0)]
    expected = []
    with torch.no_grad():
        for each in made:
            ids, total = list(tokenizer(each.prompt)["input_ids"]), 0.0
            for token in each.tokens:
                total -= math.log(float(model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)[token]))
                ids.append(token)
            expected.append(total / len(each.tokens))
    assert nats_per_token(model, tokenizer, made) == pytest.approx(expected, abs=1e-5)


class Counted(Progress):
    """Keeps what a bar would be told."""

    told: ClassVar[list[tuple[str, int, list[int]]]] = []

    @contextmanager
    def steps(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        done: list[int] = []
        self.told.append((f"{name}, {unit}", total, done))
        yield done.append


def test_a_table_of_scores_fits_a_terminal() -> None:
    scores = [
        ThemeScore("unsteered", 48, 0.042, 0.028, 0.042, 0.028, 1.847, 0.051),
        ThemeScore("film", 48, 1.812, 0.19, 0.854, None, 2.35, 0.054, "unsteered", -0.667, 0.254, 0.5, 0.01),
    ]
    rows = [with_errors(score) for score in scores]
    lines = render(rows, [*rows[0]], "table", 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["condition", "texts", "words", "share", "nats", "more", "nats_more"]
    assert lines[2].split() == ["unsteered", "48", "0.04±0.03", "0.04±0.03", "1.85±0.05"]
    assert lines[3].split() == ["film", "48", "1.81±0.19", "0.85", "2.35±0.05", "-0.67±0.25", "0.50±0.01"]


def test_a_score_shows_its_progress_token_by_token() -> None:
    model, tokenizer = tiny.tiny_model("llama"), tiny.tiny_tokenizer()
    plans = {"unsteered": None, "again": None}
    options = {"samples": 3, "max_new_tokens": 6, "temperature": 1.0}
    shown = theme_score(model, tokenizer, ["w5 w9", "w40"], "w5", plans, progress=Counted(), **options)  # type: ignore[arg-type]
    ((name, total, done),) = Counted.told
    # Two conditions, two prompts three times each, six tokens: a step a token for all texts of a condition.
    assert (name, total, sum(done)) == ("texts, tokens", 2 * 2 * 3 * 6, 2 * 2 * 3 * 6)
    assert len(done) >= 2 * 6 and max(done) <= 6 * 6
    assert shown == theme_score(model, tokenizer, ["w5 w9", "w40"], ["w5"], plans, **options)  # type: ignore[arg-type]


def test_a_score_is_the_mean_over_samples_with_its_error() -> None:
    model, tokenizer = tiny.tiny_model("llama"), tiny.tiny_tokenizer()
    words = [f"w{number}" for number in range(2, 20)]
    prompts = ["w5 w9", "w40"]
    (only,) = theme_score(model, tokenizer, prompts, words, {"unsteered": None}, samples=3, max_new_tokens=6)
    made = generate(model, tokenizer, prompts * 3, max_new_tokens=6, seed=0, temperature=1.27, top_p=0.7)
    found = [sum(word in words for word in each.text.split()) for each in made]
    counts = [(found[i] + found[i + 1]) / 2 for i in (0, 2, 4)]
    mean = sum(counts) / 3
    assert (only.condition, only.texts) == ("unsteered", 6) and only.words == pytest.approx(mean)
    assert only.words_se == pytest.approx(math.sqrt(sum((count - mean) ** 2 for count in counts) / 2 / 3))


@pytest.mark.slow
def test_steer_prints_what_the_contract_says(folders: tuple[str, str], tmp_path: Path) -> None:
    atlas, model = folders
    plan = str(tmp_path / "plan.json")
    common = ("w5 w9", "-a", atlas, "--model", model, "--tokens", "5", "--device", "cpu")
    text = run(steer, *common, "--feature", f"{FEATURE}=200%", "--save-plan", plan, "--format", "json")
    result = json.loads(text)
    assert set(result) == {"prompt", "seed", "model", "plan", "unsteered", "steered", "hooks"}
    assert result["plan"][0]["strength"] == "200%"
    assert result["unsteered"]["tokens"] != result["steered"]["tokens"]
    assert result["hooks"][0]["module"] == "model.layers.1"
    assert result["hooks"][0]["calls"] == len(result["steered"]["tokens"])
    assert json.loads(run(steer, *common, "--plan", plan, "--format", "json")) == result
    shown = run(steer, *common, "--plan", plan)
    assert "unsteered" in shown
    assert f"add 200%  {FEATURE}" in shown
    assert max(map(len, shown.splitlines())) <= 100
    by_lineage = json.loads(run(steer, *common, "--lineage", "tiny-1m/3-res-16/3", "--format", "json"))
    assert [each["strength"] for each in by_lineage["plan"]] == ["6%"] * 3
    query = "MATCH (f:Feature) WHERE f.layer = 2 AND f.site = 'mlp' AND f.index < 2 RETURN f.id AS feature"
    by_query = json.loads(run(steer, *common, "--cypher", query, "--mode", "suppress", "--format", "json"))
    assert [each["strength"] for each in by_query["plan"]] == [0.0, 0.0]


def test_a_random_control_is_beside_it(folders: tuple[str, str], tmp_path: Path) -> None:
    atlas, model = folders
    common = (
        "w5 w9",
        "-a",
        atlas,
        "--model",
        model,
        "--tokens",
        "5",
        "--device",
        "cpu",
        "--feature",
        f"{FEATURE}=200%",
    )
    plain = json.loads(run(steer, *common, "--format", "json"))
    made = [
        json.loads(run(steer, *common, "--control", "random", "--control-seed", seed, "--format", "json"))
        for seed in ("0", "0", "1")
    ]
    assert made[0] == made[1]
    assert set(made[0]["control"]) == {"text", "tokens"}
    assert {name: value for name, value in made[0].items() if name != "control"} == plain
    assert made[0]["control"]["tokens"] != made[2]["control"]["tokens"]
    with open_atlas(atlas) as opened:
        other = SteeringPlan.from_features(opened, {FEATURE: "200%"}).control(opened, 0)
        loaded, tokenizer = load_model(model, device="cpu")
        (text,) = generate(loaded, tokenizer, ["w5 w9"], other, max_new_tokens=5)
    assert text.tokens == made[0]["control"]["tokens"]
    shown = run(steer, *common, "--control", "random")
    assert "│ control" in shown and max(map(len, shown.splitlines())) <= 100


def test_what_changed_nothing_is_said_on_stderr(folders: tuple[str, str]) -> None:
    atlas, model = folders
    common = ("w5 w9", "-a", atlas, "--model", model, "--tokens", "1", "--device", "cpu", "--feature", FEATURE)
    result = CliRunner().invoke(steer, [*common, "--positions", "generated"], catch_exceptions=False)
    assert "steered: model.layers.1 was steered at 0 positions" in result.stderr
    shown = run(steer, *common, "--mode", "suppress", "--strength", "-1")
    assert f"{FEATURE} was active at" in shown


def test_chat_puts_the_prompt_through_the_template(folders: tuple[str, str]) -> None:
    atlas, model = folders
    common = (
        "w5 w9",
        "-a",
        atlas,
        "--model",
        model,
        "--tokens",
        "2",
        "--device",
        "cpu",
        "--feature",
        f"{FEATURE}=200%",
    )
    result = CliRunner().invoke(steer, [*common, "--chat"])
    assert isinstance(result.exception, ModelError) and "no chat template" in str(result.exception)
    announced_model.cache_clear()
    loaded, tokenizer = load_model(model, device="cpu")
    tokenizer.chat_template = "{% for m in messages %}w3 {{ m['content'] }} {% endfor %}w4"
    folder = Path(model).parent / "chat"
    loaded.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    common = (*common[:3], "--model", str(folder), *common[5:])
    made = json.loads(run(steer, *common, "--chat", "--positions", "turn", "--format", "json"))
    plan = SteeringPlan.from_features
    with open_atlas(atlas) as opened:
        (text,) = generate(
            loaded,
            tokenizer,
            [[{"role": "user", "content": "w5 w9"}]],
            plan(opened, {FEATURE: "200%"}, positions="turn"),
            max_new_tokens=2,
        )
    assert (made["prompt"], made["steered"]["tokens"]) == ("w5 w9", text.tokens)
    assert made["hooks"][0]["positions"] == 4


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_of_few_characters_gets_all_of_them(folders: tuple[str, str], encoding: str) -> None:
    root = "from atlas.cli.main import main; main()"

    def output(*arguments: str) -> str:
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        command = [sys.executable, "-c", root, *arguments, "-a", folders[0]]
        made = subprocess.run(command, env=environment, capture_output=True, check=True)
        return made.stdout.decode("utf-8" if encoding == "ascii" else encoding)  # click takes ASCII for a mistake

    assert FEATURE in output("lineage", FEATURE)
    rows = json.loads(output("query", "RETURN 'é│电😀' AS text", "--format", "json"))
    assert rows == [{"text": "é|电😀"}]


def test_wide_characters_take_two_columns() -> None:
    plan = SteeringPlan((planted.intervention(planted.planted_dictionary("blocks.1.hook_resid_post"), 7, "add", 4),))
    hooks = [{"module": "m", "calls": 1, "positions": 1}]
    made = {
        title: Generation("", "电影是一种艺术，我的朋友告诉我" * 3, [1], hooks, 0) for title in ("unsteered", "steered")
    }
    text = side_by_side("", plan, made, width=60)
    for line in text.splitlines():
        assert sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line) <= 60


def test_score_prints_a_row_a_condition(folders: tuple[str, str], tmp_path: Path) -> None:
    atlas, model = folders
    plan = str(tmp_path / "plan.json")
    common = ("-a", atlas, "--model", model, "--tokens", "4", "--device", "cpu")
    run(steer, "w5", *common, "--feature", FEATURE, "--save-plan", plan)
    rows = json.loads(
        run(score, *common, "--plan", plan, "--words", "w3,w4*", "--samples", "2", "--prompt", "w5", "--format", "json")
    )
    assert [row["condition"] for row in rows] == ["unsteered", "plan"]
    assert all(row["texts"] == 2 and row["nats"] > 0 for row in rows)


def test_the_verdict_dresses_nothing_up() -> None:
    def condition(name: str, words: float, se: float, nats: float) -> ThemeScore:
        return ThemeScore(name, 48, words, se, 0.5, 0.1, nats, 0.1)

    # 1.3 − 0.5 = 0.8, its standard error √(0.3² + 0.4²) = 0.5: less than twice that. With 0.1s it is √0.02 = 0.14.
    near = verdict([condition("a", 0.5, 0.3, 2.5), condition("b", 1.3, 0.4, 2.2)])
    assert near.startswith("b has 0.80 ± 0.50") and "do not tell them apart" in near and "-0.30 ± 0.14 nats" in near
    assert "tell" not in verdict([condition("a", 0.5, 0.1, 2.5), condition("b", 1.3, 0.1, 2.2)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to turn"),
        (("--feature", FEATURE, "--lineage", FEATURE), "name what to turn"),
        (("--plan", "p.json", "--mode", "add"), "--mode is for a new plan"),
        (("--feature", FEATURE, "--mode", "boost"), "'add', 'suppress', 'clamp', 'ablate'"),
    ],
)
def test_usage_errors(folders: tuple[str, str], arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(steer, ["w5", "-a", folders[0], *arguments])
    assert result.exit_code == 2
    assert message in result.output

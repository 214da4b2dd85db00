"""Words of a theme in every script, and conditions compared in pairs."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path

import planted_steering as planted
import pytest
import tiny_models as tiny

from atlas.errors import PlanError
from queries.steer.generation import generate
from queries.steer.plan import SteeringPlan
from queries.steer.score import ThemeScore, read_words, theme_pattern, theme_score, verdict


@pytest.mark.parametrize(
    ("word", "text", "times"),
    [
        ("电影", "我昨天看了一部电影，那部电影很好看。", 2),
        ("电影*", "我昨天看了一部电影，那部电影很好看，电影电影。", 4),
        ("映画", "昨日映画を見た。", 1),
        ("ภาพยนตร์", "ฉันดูภาพยนตร์เมื่อวาน", 1),
        ("영화*", "어제 영화를 봤다", 1),
        ("영화", "어제 영화를 봤다", 0),
        ("café", unicodedata.normalize("NFD", "the café"), 1),
        (unicodedata.normalize("NFD", "café"), "CAFÉ", 1),
        ("cafe", unicodedata.normalize("NFD", "the café"), 0),
        ("फ़िल्म", "कल फ़िल्म देखी", 1),
        ("फ़िल", "कल फ़िला देखी", 0),
        ("don't", "I don’t know", 1),
        ("film*", "The film's plot, FILMS, Filmé", 3),
        ("straße", "STRASSE", 1),
        ("İstanbul", "istanbul", 1),
        ("AI", "看AI电影, MAIL", 1),
        ("AI电影", "看AI电影", 1),
    ],
)
def test_words_are_found_in_every_script(word: str, text: str, times: int) -> None:
    assert len(theme_pattern([word]).findall(text)) == times


def test_files_of_words_from_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xef\xbb\xbfthe\r\nzebra\r\n")
    assert [word.strip() for word in read_words(str(path))] == ["the", "zebra"]
    assert read_words("电影，映画、war") == ["电影", "映画", "war"]
    path.write_bytes("the\n".encode("utf-16"))
    with pytest.raises(PlanError, match="not UTF-8"):
        read_words(str(path))


def test_conditions_are_compared_in_pairs_of_seed_and_prompt() -> None:
    model, tokenizer = tiny.tiny_model("llama"), tiny.tiny_tokenizer()
    model.generation_config.eos_token_id, tokenizer.eos_token = None, None
    words = [f"w{number}" for number in range(2, 20)]
    dictionary = planted.planted_dictionary("blocks.1.hook_resid_post")
    one, two = (SteeringPlan((planted.intervention(dictionary, index, "add", 2),)) for index in (3, 7))
    plans = {"unsteered": None, "one": one, "two": two}

    def counts(plan: SteeringPlan | None) -> list[float]:
        made = generate(
            model, tokenizer, ["w5 w9", "w40"] * 3, plan, max_new_tokens=8, seed=0, temperature=1.27, top_p=0.7
        )
        found = [sum(word in words for word in each.text.split()) for each in made]
        return [(found[i] + found[i + 1]) / 2 for i in (0, 2, 4)]

    for control in ("unsteered", "two"):
        scores = theme_score(
            model, tokenizer, ["w5 w9", "w40"], words, plans, control=control, samples=3, max_new_tokens=8
        )
        by_name = {score.condition: score for score in scores}
        assert by_name[control].more is None
        for name in plans.keys() - {control}:
            pairs = [a - b for a, b in zip(counts(plans[name]), counts(plans[control]), strict=True)]
            mean = sum(pairs) / 3
            error = math.sqrt(sum((pair - mean) ** 2 for pair in pairs) / 2 / 3)
            assert by_name[name].control == control
            assert by_name[name].more == pytest.approx(mean)
            assert by_name[name].more_se == pytest.approx(error)
        said = verdict(scores).splitlines()
        assert len(said) == 2 and all(control in line for line in said)
    with pytest.raises(PlanError, match="'three' is none of the conditions: unsteered, one, two"):
        theme_score(model, tokenizer, ["w5"], words, plans, control="three")


def test_where_nobody_scores_there_is_no_difference() -> None:
    none = [ThemeScore(name, 24, 0.0, 0.0, 0.0, 0.0, nats, 0.1) for name, nats in (("unsteered", 2.0), ("plan", 2.5))]
    assert verdict(none).startswith("no difference between plan and unsteered: no text has a theme word, at +0.50")
    fewer = [ThemeScore("unsteered", 24, 2.0, 0.1, 1.0, 0.0, 2.0, 0.1), ThemeScore("plan", 24, 1.0, 0.1, 1.0, 0, 2, 0)]
    assert verdict(fewer).startswith("plan has 1.00 ± 0.14 theme words a text fewer than unsteered, at")

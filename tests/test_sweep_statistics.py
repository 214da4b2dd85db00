"""Bootstrap intervals, Holm's correction, choosing and contrasts on tables whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from queries.sweep.design import Design
from queries.sweep.findings import arm_rows, chosen, contrast_rows, edges, reported, sentences, strength_rows
from queries.sweep.intervals import holm, interval
from queries.sweep.scores import scores_of
from queries.sweep.trials import Trial


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_an_interval_of_independent_texts_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(0.5, 1.0, size=(40, 40))
    found = interval(values)
    # A text's noise counts twice, in its prompt's mean and in the samples drawn of it: √2 wider than the mean's.
    half = 1.96 * np.sqrt(2) * values.std() / 40
    assert found.n == 1600 and found.mean == pytest.approx(values.mean())
    assert (found.high or 0) - (found.low or 0) == pytest.approx(2 * half, rel=0.15)
    assert found == interval(values) and found.p is not None and found.p < 0.001


def test_an_interval_is_as_wide_as_prompts_differ() -> None:
    # Four prompts at 0, 0, 1, 1 whatever the sample: 16 texts are worth no more than four. The share of prompts at 1 is
    # binomial(4, ½)/4, whose 2.5 and 97.5 % quantiles are 0 and 1.
    found = interval(np.repeat([[0.0], [0.0], [1.0], [1.0]], 4, axis=1))
    assert (found.n, found.mean, found.low, found.high) == (16, 0.5, 0.0, 1.0)


def test_what_is_missing_is_left_out() -> None:
    values = np.array([[1.0, np.nan], [1.0, 1.0]])
    found = interval(values)
    assert (found.n, found.mean, found.low, found.high) == (3, 1.0, 1.0, 1.0)
    assert interval(np.full((2, 2), np.nan)) == (0, None, None, None, None)
    assert interval(np.array([[2.0]])) == (1, 2.0, None, None, None)


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says() -> None:
    generator, inside = np.random.default_rng(1), 0
    for round_ in range(200):
        values = generator.normal(size=(8, 1)) + generator.normal(size=(8, 8))
        found = interval(values, round_)
        inside += (found.low or 0) <= 0 <= (found.high or 0)
    assert inside >= 0.85 * 200  # eight prompts: percentile intervals are a little short


def trials_of(words: dict[tuple[str, str | None], list[float]], **marks: float) -> list[Trial]:
    """Two prompts to choose and two to report, two samples each, with as many theme words as given by half."""
    made = []
    for (arm, strength), (choose, report) in words.items():
        for prompt in range(4):
            half = "report" if prompt % 2 else "choose"
            for sample in range(2):
                count = report if half == "report" else choose
                row: dict[str, Any] = {"words": count, "activation": None, "nats": 2.0, "rep3": 0.0, "zlib": 0.5}
                made.append(Trial(arm, strength, prompt, sample, half, 0, "text", [1, 2], **(row | marks)))
    return made


DESIGN = Design(
    features=("f",), theme="war", words=("war",), model="m", prompts=("a", "b", "c", "d"), samples=2, report_samples=2
)


def test_strength_and_layer_are_chosen_on_one_half_alone() -> None:
    scores = scores_of(
        DESIGN,
        trials_of(
            {
                ("unsteered", None): [0, 0],
                ("lineage", "12%"): [0, 1],
                ("lineage", "24%"): [1, 0],
                ("single:8", "12%"): [0, 1],
                ("single:8", "24%"): [0, 1],
                ("single:9", "12%"): [1, 0],
                ("single:9", "24%"): [0, 1],
            }
        ),
    )
    assert scores.limit == 2.0 and scores.primary == "success"
    best = chosen(scores)
    # On the choosing half 24% of the lineage and layer 9 at 12% succeed; what the other half would like is not asked.
    assert best == {"unsteered": ("unsteered", None), "lineage": ("lineage", "24%"), "single": ("single:9", "12%")}
    # At 24% no single layer has success on the choosing half: the first stands.
    assert reported(scores) == {*best.values(), ("single:8", "24%")}
    rows = {row["arm"]: row for row in arm_rows(scores)}
    assert rows["lineage"]["strength"] == "24%" and rows["lineage"]["success"] == 0.0 and rows["lineage"]["texts"] == 4
    contrasts = {(row["contrast"], row["kind"]): row for row in contrast_rows(scores) if row["score"] == "success"}
    equal = contrasts["lineage − single", "equal dose"]
    assert (equal["arm"], equal["control"], equal["difference"], equal["n"]) == ("lineage 24%", "single:8 24%", -1.0, 4)
    assert ("lineage − unsteered", "equal dose") not in contrasts
    (line,) = [line for line in sentences(contrasts.values(), "success") if line.startswith("equal dose")]
    assert line.startswith("equal dose: lineage 24% is worse than single:8 24%: success -1.000 [-1.000, -1.000]")


def test_a_best_at_the_end_of_the_range_is_told() -> None:
    words = {("unsteered", None): [0.0, 0.0], ("lineage", "12%"): [0.0, 0.0], ("lineage", "24%"): [1.0, 1.0]}
    assert edges(scores_of(DESIGN, trials_of(words))) == [
        "lineage: its best strength, 24%, is the strongest that was tried; more may be better"
    ]
    words |= {("lineage", "48%"): [0.0, 1.0]}
    assert edges(scores_of(DESIGN, trials_of(words))) == []


def test_a_text_succeeds_with_the_theme_and_without_faults() -> None:
    words = {("unsteered", None): [0.0, 0.0], ("lineage", "12%"): [2.0, 2.0]}
    assert scores_of(DESIGN, trials_of(words)).cells["lineage", "12%"]["success"].tolist() == [[1.0] * 2] * 4
    loops = scores_of(DESIGN, trials_of(words, rep3=0.21))
    assert not loops.cells["lineage", "12%"]["success"].any()
    # The limit is the unsteered texts': one nat more is too much.
    trials = trials_of(words)
    dear = [each if each.arm == "unsteered" else Trial(**(vars(each) | {"nats": 3.0})) for each in trials]
    assert not scores_of(DESIGN, dear).cells["lineage", "12%"]["success"].any()
    suppressing = Design(**(vars(DESIGN) | {"mode": "suppress", "strengths": ("0",), "arms": ("lineage",)}))
    assert scores_of(suppressing, trials).cells["unsteered", None]["success"].all()


def test_failed_texts_are_counted_and_change_no_mean() -> None:
    trials = trials_of({("unsteered", None): [1.0, 1.0], ("lineage", "12%"): [1.0, 1.0]})
    broken = Trial("lineage", "12%", 1, 0, "report", 0, None, None, None, None, None, None, None, "not finite")
    trials = [broken if (t.arm, t.prompt, t.sample) == ("lineage", 1, 0) else t for t in trials]
    scores = scores_of(DESIGN, trials)
    (row,) = [row for row in arm_rows(scores) if row["arm"] == "lineage"]
    assert (row["texts"], row["failed"], row["words"]) == (4, 1, 1.0)
    (row,) = [
        row
        for row in strength_rows(scores)
        if (row["arm"], row["half"], row["score"]) == ("lineage", "report", "words")
    ]
    assert (row["n"], row["failed"], row["mean"]) == (3, 1, 1.0)
    (pair,) = [row for row in contrast_rows(scores) if (row["kind"], row["score"]) == ("each at its best", "words")]
    assert (pair["n"], pair["difference"]) == (3, 0.0)


def test_a_judge_s_total_takes_the_place_of_success() -> None:
    trials = trials_of(
        {("unsteered", None): [1.0, 1.0], ("lineage", "12%"): [1.0, 1.0], ("lineage", "24%"): [1.0, 1.0]}
    )
    judged = {
        (t.arm, t.strength, t.prompt, t.sample): {"total": 0.5 if t.strength == "24%" else 0.25, "behavioral": None}
        for t in trials
    }
    scores = scores_of(DESIGN, trials, judged)
    assert scores.primary == "total" and chosen(scores)["lineage"] == ("lineage", "24%")
    (row,) = [row for row in arm_rows(scores) if row["arm"] == "lineage"]
    assert row["total"] == 0.5 and row["behavioral"] is None

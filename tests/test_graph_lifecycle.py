"""Life cycle: the paper's four cases, one feature each, with their arithmetic."""

from __future__ import annotations

import numpy as np

from atlas.graph.lifecycle import life_cycle, vanishes

MODULES = {"mlp": 0.25, "att": 0.25}


def test_the_four_cases_and_their_origin() -> None:
    # feature        A     B     C     D     at the threshold (counts as high)
    s_res = np.array([0.9, 0.6, 0.4, 0.4, 0.5])
    s_mlp = np.array([0.1, 0.7, 0.2, 0.2, 0.0])
    s_att = np.array([0.2, 0.1, 0.3, 0.1, 0.25])
    scores: dict[str, np.ndarray | None] = {"res": s_res, "mlp": s_mlp, "att": s_att}
    lifecycle, origin = life_cycle(scores, 0.5, MODULES, np.ones(5, bool))
    assert lifecycle.tolist() == ["persists", "transforms", "appears", "unexplained", "transforms"]
    # B: mlp .7 beats res .6; C: only att reaches its threshold, though res .4 is larger; E: res .5 beats att .25.
    assert origin.tolist() == ["res", "mlp", "att", "none", "res"]


def test_without_an_earlier_stream_everything_starts() -> None:
    scores = {"res": None, "mlp": np.array([0.9, 0.1]), "att": None}
    lifecycle, origin = life_cycle(scores, 0.5, MODULES, np.ones(2, bool))
    assert lifecycle.tolist() == ["start", "start"]
    assert origin.tolist() == ["mlp", "none"]


def test_dead_features_have_no_life_cycle() -> None:
    scores = {"res": np.array([0.9, 0.9]), "mlp": None, "att": None}
    lifecycle, origin = life_cycle(scores, 0.5, MODULES, np.array([True, False]))
    assert lifecycle.tolist() == ["persists", None] and origin.tolist() == ["res", None]


def test_vanishing() -> None:
    alive = np.array([True, True, False])
    gone = vanishes(np.array([0.49, 0.5, 0.0]), 0.5, alive)
    assert gone is not None and gone.tolist() == [True, False, None]
    assert vanishes(None, 0.5, alive) is None

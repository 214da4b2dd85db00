"""Predecessor groups: on blocks that write nothing, against NumPy on a model that does, Mann-Whitney against SciPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evidence_atlas import active_by_hand, idle_atlas, tiny_atlas, write_text
from scipy.stats import mannwhitneyu

from atlas import open_atlas
from atlas.errors import QueryError
from hooked.load import load_model
from queries.evidence.groups import GROUPS, Occurrences, groups
from queries.evidence.intervals import auc
from queries.evidence.sampling import PER_TEXT, chosen_places


def test_blocks_that_write_nothing_bring_every_feature_down_the_stream(tmp_path: Path) -> None:
    """The same rows in every layer: a feature's best match is itself, and active wherever it is."""
    text = write_text(tmp_path / "t.txt", 600)
    with open_atlas(idle_atlas(tmp_path)) as atlas:
        found = groups(atlas, [text], positions=15)
    rows = found.shares()
    assert [(row["layer"], row["group"], row["share"]) for row in rows] == [(1, "res", 1), (2, "res", 1)]
    assert all(row["s_res"] == pytest.approx(1) and row["s_mlp"] is None for row in rows)
    assert found.tests() == []  # one group is compared with nothing


def test_groups_against_numpy(tmp_path: Path) -> None:
    """Every context run by hand, its drawn tokens looked at one by one."""
    text = write_text(tmp_path / "t.txt", 700)
    with open_atlas(tiny_atlas(tmp_path, layers=(0, 1))) as atlas:
        found = groups(atlas, [text], positions=12, seed=5)
        shares = {(row["layer"], row["group"]): row for row in found.shares()}
        model, tokenizer = load_model(str(tmp_path / "model"), device="cpu")
        ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
        expected: dict[tuple[int, str], int] = {}
        fires = dict.fromkeys(atlas.dictionaries, 0)
        for number, first in enumerate(range(0, len(ids), 255)):
            active = {}
            for id_, d in atlas.dictionaries.items():
                active[id_] = active_by_hand(model, ids[first : first + 255], d, atlas.rows(d.id))
                fires[id_] += active[id_].sum()
            places = chosen_places(np.ones(len(active[id_]), dtype=bool), number, 12, 5)
            for place in places:
                for layer in range(2):
                    later = atlas.dictionary(f"{layer}-res-20")
                    sites = {"mlp": layer, "att": layer} | ({"res": 0} if layer else {})
                    for feature in np.flatnonzero(active[later.id][place]):
                        on = []
                        for site in ("res", "mlp", "att"):
                            if site in sites:
                                earlier = atlas.dictionary(f"{sites[site]}-{site}-20")
                                cosines = atlas.rows(earlier.id).decoder @ atlas.rows(later.id).decoder[feature]
                                if active[earlier.id][place, cosines.argmax()]:
                                    on.append(site)
                        name = " & ".join(on) or "nowhere"
                        expected[layer, name] = expected.get((layer, name), 0) + 1
        rates = {row["dictionary"]: row for row in found.rates()}
    assert {place: row["n"] for place, row in shares.items()} == expected and len(expected) > 6
    for layer in range(2):
        assert sum(row["share"] for (own, _), row in shares.items() if own == layer) == pytest.approx(1)
    for id_, row in rates.items():
        assert (row["positions"], row["features"], row["dead"]) == (700, 20, 0)
        # Rounding may carry a handful of activations across their threshold.
        assert row["l0"] == pytest.approx(fires[id_] / 700, abs=0.01)


def planted_occurrences() -> Occurrences:
    """Two groups of 30 features in 10 contexts, whose cosines overlap; every feature met three times."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 30)
    score = rng.normal(size=60) + group
    rows = np.tile(np.arange(60), 3)
    columns = {
        "layer": np.full(180, 4),
        "text": rng.integers(0, 10, 180),
        "feature": rows,
        "group": group[rows],
        "s_res": score[rows],
        "s_mlp": np.full(180, np.nan),
        "s_att": np.round(score[rows]),  # with ties
    }
    return Occurrences(0, [columns])


def test_tests_are_scipy_s_with_one_row_a_feature() -> None:
    found = planted_occurrences()
    (columns,) = found.columns
    rows = {row["score"]: row for row in found.tests()}
    assert rows.keys() == {"res", "att"}  # no cosine with an MLP was there
    for site, row in rows.items():
        score = columns[f"s_{site}"][:60]
        expected = mannwhitneyu(score[:30], score[30:])
        assert (row["n"], row["n_other"]) == (30, 30)
        assert row["p"] == pytest.approx(expected.pvalue)
        assert row["auc"] == pytest.approx(expected.statistic / 900)
        assert row["auc_low"] <= row["auc"] <= row["auc_high"] < 0.5


def test_auc_by_hand() -> None:
    """3 beats 1 and 2, and ties with 3: (1 + 1 + ½) / 3; 0 beats none: 2.5 of 6 pairs."""
    values = np.array([3.0, 0.0]), np.array([1.0, 2.0, 3.0])
    once = np.ones((2, 4), dtype=bool), np.ones((3, 4), dtype=bool)
    assert auc(values, once, seed=0) == pytest.approx([2.5 / 6] * 3)
    alone = np.ones((2, 1), dtype=bool), np.ones((3, 1), dtype=bool)
    assert np.isnan(auc(values, alone, seed=0)[1])


def test_places_are_drawn_among_those_that_count() -> None:
    counted = np.zeros(50, dtype=bool)
    counted[[3, 7, 8, 20, 30, 40, 41]] = True
    places = chosen_places(counted, 0, 100, seed=0)
    assert len(places) == PER_TEXT == len(set(places)) and counted[places].all() and places == sorted(places)
    assert places == chosen_places(counted, 0, 100, seed=0) != chosen_places(counted, 0, 100, seed=1)
    # 12 in all: 5, 5 and 2, and then none.
    assert [len(chosen_places(counted, text, 12, seed=0)) for text in range(4)] == [5, 5, 2, 0]
    assert GROUPS[0] == "nowhere" and len(set(GROUPS)) == 8


def test_an_atlas_without_predecessors_is_refused(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 300)
    with (
        open_atlas(tiny_atlas(tmp_path, layers=(0,), sites=("res",))) as atlas,
        pytest.raises(QueryError, match="no residual dictionary with an earlier one"),
    ):
        groups(atlas, [text])

"""Chains of mutual best matches where several dictionaries stand at one place, against all walks by recursion."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from planted import Planted, _classify, _columns, _record, _unit

from atlas.atlas import open_atlas
from atlas.folder.dictionary import Dictionary
from atlas.ids import RES
from queries.questions.questions import ask

LAYERS, WIDTH = range(5), 32
SIZES = (24, 20)  # two dictionaries at each place


class Doubled(Planted):
    """Two residual dictionaries a layer, rows noisy copies of the layer before; both are matched with both."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.k, self.state = 3, "state-doubled"
        self.dictionaries, self.columns, self.matched = [], {}, []
        theme = rng.normal(size=(max(SIZES), WIDTH))
        before: list[tuple[Dictionary, np.ndarray]] = []
        for layer in LAYERS:
            theme = theme + 0.45 * rng.normal(size=theme.shape)
            here = []
            for size in SIZES:
                rows = _unit(theme[:size] + 0.5 * rng.normal(size=(size, WIDTH)))
                rows[-1] = 0
                here.append((_record(layer, RES, size, WIDTH), rows))
            for record, rows in here:
                self.dictionaries.append(record)
                self.columns[record.id] = _columns(rng, record, rows)
            for later in here:
                for earlier in before:
                    self._match(later, earlier)
            before = here
        for record in self.dictionaries:
            _classify(self.columns[record.id], record, first=0)


@pytest.mark.parametrize("least", [0.0, 0.5, 0.7])
def test_every_chain_is_found_once_by_its_strongest_way(tmp_path: Path, least: float) -> None:
    planted = Doubled()
    links = defaultdict(list)
    for edge in planted.edge_rows():
        if edge["rank"] == edge["forward_rank"] == 0 and edge["similarity"] >= least:
            links[edge["source"]].append((edge["target"], edge["similarity"]))
    continued = {target for ways in links.values() for target, _ in ways}

    def walks(at: str) -> list[tuple[str, int, float]]:
        return [
            (first, steps + 1, min(weakest, similarity))
            for target, similarity in links[at]
            for first, steps, weakest in (walks(target) if links.get(target) else [(target, 0, 1.0)])
        ]

    best: dict[tuple[str, str, int], float] = {}
    for last in set(links) - continued:
        for first, steps, weakest in walks(last):
            best[last, first, steps] = max(best.get((last, first, steps), -1.0), weakest)
    expected = sorted((-steps, -weakest, last, first) for (last, first, steps), weakest in best.items())
    assert len({row[2] for row in expected}) < len(expected)  # some end in several
    with open_atlas(planted.at(tmp_path / "atlas")) as atlas:
        rows = ask(atlas, "longest-lived", min_similarity=least, limit=10_000)
        features = planted.features()
        assert [(-row["steps"], -row["weakest"], row["last"], row["first"]) for row in rows] == expected
        for row in rows:
            start, end = features[row["first"]], features[row["last"]]
            assert (row["from_layer"], row["to_layer"], row["label"]) == (start["layer"], end["layer"], end["label"])

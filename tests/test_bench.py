"""The benchmarks' page is what was measured, and a ratio that fell behind is named."""

from __future__ import annotations

import json

from bench import KEPT, TEXT, fallen, page
from bench_record import Ratio


def test_the_page_is_what_was_measured() -> None:
    assert TEXT.read_text() == page(json.loads(KEPT.read_text()))


def test_what_fell_by_more_than_a_tenth_is_named() -> None:
    before = [Ratio("matching", "a pair", "knn", 1.0, 3.0), Ratio("graph", "a lineage", "networkx", 2.0, 1.0)]
    now = [
        Ratio("matching", "a pair", "knn", 1.09, 9.0),  # 9 %: a busy machine's rounds differ by as much
        Ratio("graph", "a lineage", "networkx", 2.3, 1.0),  # 2.3 / 2 = 1.15
        Ratio("server", "an edge", "UNWIND", 9.0, 1.0),  # new: nothing to compare it with
    ]
    assert fallen(now, before) == ["a lineage fell from 2.00 to 2.30 × networkx"]
    assert fallen(before, now) == []

"""The whole list of SAELens: how much of it can be ingested as typed, by a choice, or not, and why not."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from registry_walk import totals, walk

pytest.importorskip("sae_lens")


@pytest.mark.slow
def test_nearly_all_of_the_list_can_be_ingested(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the walk asks nothing of a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    walked = walk()
    sums = totals(walked)
    assert sums.total() == sum(one.typed + one.choice + one.refused for one in walked)
    assert (sums["typed"] + sums["choice"]) / sums.total() >= 0.95
    refused = {one.release: one for one in walked if one.refused}
    # Embeddings have no block (4 and 4), cross-layer transcoders no one direction, temporal ones no row a feature.
    assert {name: one.refused for name, one in refused.items()} == {
        "gemma-scope-2b-pt-res": 4,
        "gemma-scope-9b-pt-res": 4,
        "mntss-gemma-2-2b-2.5m-clt-as-per-layer": 26,
        "temporal-sae-gemma-2-2b": 1,
        "temporal-sae-llama-3.1-8b": 2,
    }
    asked = [one for one in walked if not one.typed and one.choice]
    assert all("choose by" in reason for one in asked for reason in one.reasons)
    assert {one.release.split("-pt")[0].split("-it")[0].rpartition("-")[0] for one in asked} == {
        "gemma-scope",
        "gemma-scope-2",
    }

"""Which dictionaries a residual feature's pre-activation is taken apart into, so that nothing counts twice."""

from __future__ import annotations

import planted_steering as planted

from atlas.folder.dictionary import Dictionary
from atlas.ids import depth
from queries.occurrence.sources import sources_of


def record(name: str) -> Dictionary:
    """`2-res-24`, `2-mid-24`, `2-att-48` …"""
    number, place, width = name.split("-")
    hook = {"res": "hook_resid_post", "mid": "hook_resid_mid", "mlp": "hook_mlp_out", "att": "hook_attn_out"}[place]
    site = "res" if place == "mid" else place
    where = depth(site, int(number), mid=place == "mid")
    hook_name = f"blocks.{number}.{hook}"
    made, _ = planted.planted_dictionary(hook_name, id=f"tiny/{name}", d_sae=int(width), depth=where)
    return made


def names(target: str, there: list[str]) -> list[str]:
    found = sources_of(record(target), [record(name) for name in there])
    return [d.id.partition("/")[2] for d in found]


def test_the_stream_before_it_and_what_was_added_since() -> None:
    there = [f"{layer}-{place}-24" for layer in range(4) for place in ("res", "mlp", "att")]
    assert names("2-res-24", there) == ["1-res-24", "2-att-24", "2-mlp-24"]
    assert names("0-res-24", there) == ["0-att-24", "0-mlp-24"]
    # Over a missing layer all modules between count.
    assert names("3-res-24", [name for name in there if name != "2-res-24"]) == [
        "1-res-24", "2-att-24", "2-mlp-24", "3-att-24", "3-mlp-24",
    ]  # fmt: skip


def test_the_stream_between_attention_and_mlp_is_one_step() -> None:
    there = ["1-res-24", "2-att-24", "2-mid-24", "2-mlp-24", "2-res-24"]
    assert names("2-res-24", there) == ["2-mid-24", "2-mlp-24"]
    assert names("2-mid-24", there) == ["1-res-24", "2-att-24"]
    assert names("2-res-24", [name for name in there if name != "1-res-24"]) == ["2-mid-24", "2-mlp-24"]


def test_of_two_at_one_place_the_one_of_its_own_width() -> None:
    there = ["1-res-48", "1-res-24", "2-att-96", "2-att-48", "2-mlp-24", "2-mlp-48"]
    assert names("2-res-24", there) == ["1-res-24", "2-att-48", "2-mlp-24"]
    assert names("2-res-48", there) == ["1-res-48", "2-att-48", "2-mlp-48"]

"""Which dictionaries the flow graph pairs."""

from __future__ import annotations

from types import SimpleNamespace

from atlas.ids import depth
from ingest.matching.pairs import plan_pairs


def dictionary(layer: int, site: str, model: str = "m", set_: str = "a", hub: str | None = None) -> SimpleNamespace:
    between = site == "mid"
    place = depth("res" if between else site, layer, mid=between)
    return SimpleNamespace(
        id=f"{model}/{layer}-{site}-{set_}",
        model=model,
        model_name=hub or f"hub/{model}",
        layer=layer,
        site="res" if between else site,
        depth=place,
    )


def pairs(*dictionaries: SimpleNamespace) -> list[tuple[str, str, str, int]]:
    return [(p.later, p.earlier, p.type, p.gap) for p in plan_pairs(dictionaries, 5)]  # type: ignore[arg-type]


def test_a_residual_dictionary_is_paired_with_the_stream_before_and_the_modules_of_its_block() -> None:
    found = pairs(*(dictionary(layer, site) for layer in (0, 1) for site in ("res", "mlp", "att")))
    assert found == [
        ("m/0-res-a", "m/0-att-a", "FROM_ATT", 0),
        ("m/0-res-a", "m/0-mlp-a", "FROM_MLP", 0),
        ("m/1-res-a", "m/0-res-a", "FROM_RES", 1),
        ("m/1-res-a", "m/1-att-a", "FROM_ATT", 0),
        ("m/1-res-a", "m/1-mlp-a", "FROM_MLP", 0),
    ]


def test_where_a_layer_is_missing_the_nearest_earlier_one_is_taken_and_the_gap_recorded() -> None:
    found = pairs(dictionary(2, "res"), dictionary(5, "res"), dictionary(4, "mlp"))
    assert found == [("m/5-res-a", "m/2-res-a", "FROM_RES", 3)]


def test_the_stream_before_block_0_is_earlier_than_everything() -> None:
    found = pairs(dictionary(-1, "res"), dictionary(0, "att"), dictionary(0, "res"))
    assert found == [("m/0-res-a", "m/-1-res-a", "FROM_RES", 1), ("m/0-res-a", "m/0-att-a", "FROM_ATT", 0)]


def test_several_sets_are_all_paired_and_models_never() -> None:
    found = pairs(
        dictionary(0, "res"), dictionary(0, "res", set_="b"), dictionary(1, "res"), dictionary(1, "res", model="other")
    )
    assert found == [("m/1-res-a", "m/0-res-a", "FROM_RES", 1), ("m/1-res-a", "m/0-res-b", "FROM_RES", 1)]


def test_a_model_that_ids_call_by_two_names_is_one() -> None:
    found = pairs(
        dictionary(0, "res", "m-pt", hub="hub/m"), dictionary(1, "res", "m"), dictionary(1, "mlp", "m-pt", hub="hub/m")
    )
    assert found == [("m/1-res-a", "m-pt/0-res-a", "FROM_RES", 1), ("m/1-res-a", "m-pt/1-mlp-a", "FROM_MLP", 0)]
    # The same id with its model in a folder: --model was given for one of them only.
    assert pairs(dictionary(0, "res"), dictionary(0, "att", hub="/models/m")) == [
        ("m/0-res-a", "m/0-att-a", "FROM_ATT", 0)
    ]


def test_the_stream_between_attention_and_mlp() -> None:
    """After att of its block and the stream before the block, before res after it; never paired with the MLP."""
    whole = [dictionary(layer, site) for layer in (0, 1) for site in ("res", "mlp", "att", "mid")]
    found = pairs(*whole)
    assert found == [
        ("m/0-mid-a", "m/0-att-a", "FROM_ATT", 0),
        ("m/0-res-a", "m/0-mid-a", "FROM_RES", 0),
        ("m/0-res-a", "m/0-att-a", "FROM_ATT", 0),
        ("m/0-res-a", "m/0-mlp-a", "FROM_MLP", 0),
        ("m/1-mid-a", "m/0-res-a", "FROM_RES", 1),
        ("m/1-mid-a", "m/1-att-a", "FROM_ATT", 0),
        ("m/1-res-a", "m/0-res-a", "FROM_RES", 1),
        ("m/1-res-a", "m/1-mid-a", "FROM_RES", 0),
        ("m/1-res-a", "m/1-att-a", "FROM_ATT", 0),
        ("m/1-res-a", "m/1-mlp-a", "FROM_MLP", 0),
    ]
    # it adds pairs, it takes none away
    assert set(pairs(*(d for d in whole if "-mid-" not in d.id))) < set(found)


def test_streams_between_attention_and_mlp_alone_are_a_chain() -> None:
    found = pairs(dictionary(0, "mid"), dictionary(1, "mid"), dictionary(1, "mlp"), dictionary(3, "mid"))
    assert found == [("m/1-mid-a", "m/0-mid-a", "FROM_RES", 1), ("m/3-mid-a", "m/1-mid-a", "FROM_RES", 2)]
    assert pairs(dictionary(0, "mid"), dictionary(2, "res")) == [("m/2-res-a", "m/0-mid-a", "FROM_RES", 2)]

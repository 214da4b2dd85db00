"""Push against the encoder itself: what adding one unit of a feature to the stream does to a later activation."""

from __future__ import annotations

from typing import Any

import numpy as np
import planted_steering as planted
import pytest
import torch

from atlas.folder.dictionary import Dictionary, Rows
from hooked.direct_path import push, why_no_push
from hooked.encoder import Encoder

EARLIER = planted.planted_dictionary("blocks.1.hook_resid_post", seed=1)


def later(architecture: str = "standard", **changes: Any) -> tuple[Dictionary, Rows]:
    """A dictionary two layers on, all of whose features are active everywhere."""
    record, rows = planted.planted_dictionary(
        "blocks.3.hook_resid_post",
        seed=2,
        architecture=architecture,
        k=24 if architecture == "topk" else None,
        **changes,
    )
    vectors = dict(rows.vectors) | {"b_enc": np.full(24, 50, np.float32)}
    if architecture == "gated":
        scale = np.random.default_rng(3).normal(size=24).astype(np.float32)
        vectors |= {"b_gate": vectors["b_enc"], "b_mag": np.full(24, 90, np.float32), "r_mag": scale}
    return record, Rows(rows.decoder, rows.encoder, vectors)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "gated"])
def test_it_is_what_the_encoder_makes_of_one_unit(architecture: str, centred: bool) -> None:
    pair = later(architecture, centred_input=centred)
    b, a = (index.ravel() for index in np.indices((24, 24)))
    found = push(pair, EARLIER, b, a)
    assert found is not None
    written = torch.from_numpy(EARLIER[1].decoder * EARLIER[1].vectors["norms"][:, None])  # by one unit of each
    encoder = Encoder.of(*pair)
    rise = encoder(written).values - encoder(torch.zeros(1, 32)).values  # [24 earlier, 24 later]
    np.testing.assert_allclose(found.reshape(24, 24), rise.numpy().T, atol=3e-5)


def test_it_is_the_product_of_float64_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, rng = later(), np.random.default_rng(0)
    b, a = rng.integers(0, 24, 500), rng.integers(0, 24, 500)
    decoder = EARLIER[1].decoder.astype(np.float64) * EARLIER[1].vectors["norms"].astype(np.float64)[:, None]
    expected = (pair[1].encoder[b].astype(np.float64) * decoder[a]).sum(1)
    for elements in (1, 32 * 7, 1 << 22):
        monkeypatch.setattr("hooked.direct_path._BATCH", elements)
        np.testing.assert_allclose(push(pair, EARLIER, b, a), expected, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "changes", "reason"),
    [
        ("later", {"normalize_activations": "layer_norm"}, "scales what it reads by token"),
        ("later", {"normalize_activations": "expected_average_only_in"}, "scales what it reads"),  # constant unknown
        ("later", {"architecture": "matching_pursuit"}, "not linear"),
        ("later", {"hook_name_in": "blocks.3.hook_mlp_in"}, "reads another place"),
        ("earlier", {"normalize_activations": "constant_norm_rescale"}, "scales what it reads by token"),
        ("earlier", {"architecture": "abstopk"}, "abstopk"),
        ("earlier", {"mapped": "o_proj+norm"}, "output norm"),
    ],
)
def test_where_it_differs_from_token_to_token_there_is_none(side: str, changes: dict[str, Any], reason: str) -> None:
    records = {"later": later()[0], "earlier": EARLIER[0]}
    fields = {name: getattr(records[side], name) for name in vars(records[side])}
    records[side] = Dictionary(**(fields | changes))
    assert reason in str(why_no_push(records["later"], records["earlier"]))
    index = np.arange(3)
    assert push((records["later"], later()[1]), (records["earlier"], EARLIER[1]), index, index) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mapped": "o_proj"},  # rows of head space through W_O alone: what they add is linear
        {"hook_name_in": "blocks.1.hook_mlp_in", "normalize_activations": "layer_norm"},  # a transcoder writes as it is
    ],
)
def test_what_writes_as_it_is_has_one(changes: dict[str, Any]) -> None:
    fields = {name: getattr(EARLIER[0], name) for name in vars(EARLIER[0])}
    assert why_no_push(later()[0], Dictionary(**(fields | changes))) is None

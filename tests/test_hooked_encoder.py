"""Encoders against SAELens's own `encode`, and what features write against its `decode`."""

from __future__ import annotations

from typing import Any

import numpy as np
import planted_steering as planted
import pytest
import torch

from atlas.folder.dictionary import Dictionary, Rows
from hooked.encoder import Encoder

D_IN, D_SAE, K = 16, 40, 6
KINDS = ("standard", "gated", "jumprelu", "topk")
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")


def saelens(architecture: str, normalisation: str, *, b_dec_to_input: bool, seed: int = 0) -> Any:
    """A SAELens dictionary of random weights."""
    import sae_lens

    kind, config = {
        "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig),
        "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig),
        "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig),
        "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig),
    }[architecture]
    extra: dict[str, Any] = {"k": K, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {}
    sae = kind(
        config(
            d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=b_dec_to_input, normalize_activations=normalisation, **extra
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise.abs() * 0.3 if name == "threshold" else noise * 0.4)
    return sae


def taken_in(sae: Any) -> tuple[Dictionary, Rows]:
    """The record and rows that an ingest makes of it."""
    values = {name: value.detach().numpy().copy() for name, value in sae.named_parameters()}
    norms = np.linalg.norm(values["W_dec"], axis=1)
    vectors = {name: value for name, value in values.items() if name not in ("W_dec", "W_enc")}
    record, _ = planted.planted_dictionary(
        "blocks.1.hook_resid_post",
        d_model=D_IN,
        architecture=sae.cfg.architecture(),
        d_sae=D_SAE,
        k=K if sae.cfg.architecture() == "topk" else None,
        apply_b_dec_to_input=sae.cfg.apply_b_dec_to_input,
        normalize_activations=sae.cfg.normalize_activations,
    )
    rows = Rows(values["W_dec"] / norms[:, None], values["W_enc"].T.copy(), vectors | {"norms": norms})
    return record, rows


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize("b_dec_to_input", [True, False])
def test_activations_and_what_they_write_equal_saelens(
    architecture: str, normalisation: str, b_dec_to_input: bool
) -> None:
    sae = saelens(architecture, normalisation, b_dec_to_input=b_dec_to_input)
    record, rows = taken_in(sae)
    hidden = torch.randn(3, 50, D_IN, generator=torch.Generator().manual_seed(9)) * 2 + 0.5
    with torch.no_grad():
        expected = sae.encode(hidden)
        written = sae.decode(expected)
        sae.encode(hidden)  # decode gives the token's norm back from the last encode
        nothing = sae.decode(torch.zeros_like(expected))
    values, reach = Encoder.of(record, rows)(hidden)
    assert 0.02 < (expected > 0).float().mean() < 0.9
    torch.testing.assert_close(values, expected, atol=2e-6, rtol=2e-5)
    contributions = (values * reach) @ torch.from_numpy(rows.decoder)
    torch.testing.assert_close(contributions, written - nothing, atol=2e-5, rtol=2e-5)

    some = [31, 2, 17]
    part, part_reach = Encoder.of(record, rows, some)(hidden)
    torch.testing.assert_close(part, expected[..., some], atol=2e-6, rtol=2e-5)
    torch.testing.assert_close(part_reach, reach[..., some])


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", KINDS)
def test_the_pre_activation_is_affine_at_a_token_and_what_was_removed_comes_back(
    architecture: str, normalisation: str
) -> None:
    sae = saelens(architecture, normalisation, b_dec_to_input=True)
    record, rows = taken_in(sae)
    encoder = Encoder.of(record, rows)
    hidden = torch.randn(4, D_IN, generator=torch.Generator().manual_seed(3)) * 2 + 0.5
    before = encoder.before(hidden)
    weights, bias = encoder.affine(hidden[2], [5, 1, 30])
    torch.testing.assert_close(
        (weights @ hidden[2].double() + bias).float(), before[2, [5, 1, 30]], atol=1e-5, rtol=1e-5
    )
    values = encoder(hidden).values
    fires = values > 0
    torch.testing.assert_close(before[fires], values[fires], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        sae.encode(hidden[2:3])
        nothing = sae.decode(torch.zeros(1, D_SAE))[0]
    mean, factor = encoder.removed(hidden[2])
    base = torch.from_numpy(rows.vectors["b_dec"]).double() * factor + mean
    torch.testing.assert_close(base.float(), nothing, atol=1e-5, rtol=1e-5)


def test_the_mean_is_removed_for_dictionaries_of_centred_weights() -> None:
    # The encoder sees x − mean(x): adding the same number to every component changes nothing.
    record, rows = planted.planted_dictionary("blocks.1.hook_resid_pre", centred_input=True)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    encoder = Encoder.of(record, rows)
    torch.testing.assert_close(encoder(hidden).values, encoder(hidden + 3).values, atol=1e-5, rtol=1e-5)
    assert (encoder(hidden).values > 0).any()


def test_half_precision_and_a_threshold_met_exactly() -> None:
    record, rows = planted.planted_dictionary("blocks.1.hook_resid_post", apply_b_dec_to_input=False)
    encoder_rows = np.asarray(rows.encoder)
    encoder_rows[0], rows.vectors["b_enc"][0], rows.vectors["threshold"][0] = 0, 0.25, 0.25
    encoder_rows[1], rows.vectors["b_enc"][1], rows.vectors["threshold"][1] = 0, 0.25, 0.125
    hidden = torch.zeros(1, 32, dtype=torch.bfloat16)
    # 0.25 is not above 0.25: strictly greater, as SAELens has it.
    assert Encoder.of(record, rows, [0, 1])(hidden).values.tolist() == [[0.0, 0.25]]

"""Explained variance: by hand, on blocks that write nothing, and against NumPy on a model that does something."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from evidence_atlas import idle_atlas, tiny_atlas, write_text
from saes import unit, write_sae

from atlas import open_atlas
from atlas.errors import QueryError
from hooked.encoder import Encoder
from hooked.load import load_model
from ingest import ingest
from queries.evidence.mapping import METHODS, Variance, map_rows
from queries.evidence.sources import sources


def test_the_formula_by_hand() -> None:
    """x = [[2,0],[0,4]], x̂ = [[2,1],[0,3]]: μ = [1,2], Σ‖x−μ‖² = 5 + 5, Σ‖x−x̂‖² = 1 + 1, so 1 − 2/10 = .8."""
    x, near = torch.tensor([[2.0, 0], [0, 4]]), torch.tensor([[2.0, 1], [0, 3]])
    mean = torch.tensor([[1.0, 2], [1, 2]])
    whole = Variance()
    whole.add(x, {"near": near, "mean": mean, "same": x})
    assert whole.explained("near") == pytest.approx(0.8)
    assert (whole.explained("mean"), whole.explained("same")) == (0, 1)
    # Token by token the mean is still that of all of them; a ratio for each token, averaged, would be another number.
    parts = Variance()
    for row in range(2):
        parts.add(x[row : row + 1], {"near": near[row : row + 1]})
    assert parts.explained("near") == pytest.approx(0.8)


def test_a_long_mean_costs_no_digits() -> None:
    rng = np.random.default_rng(0)
    x = 1e4 + rng.normal(size=(1000, 8))
    near = x + 0.1 * rng.normal(size=x.shape)
    variance = Variance()
    for first in range(0, 1000, 64):
        variance.add(torch.from_numpy(x[first : first + 64]), {"near": torch.from_numpy(near[first : first + 64])})
    expected = 1 - ((x - near) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert variance.explained("near") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("direction", ["target", "source"])
def test_blocks_that_write_nothing_are_mapped_without_a_rest(tmp_path: Path, direction: str) -> None:
    text = write_text(tmp_path / "t.txt", 600)
    with open_atlas(idle_atlas(tmp_path, both=True)) as atlas:
        rows = map_rows(atlas, [text], tokens=0, direction=direction, permutation=True, frozen=True)
    assert {row["method"] for row in rows} == set(METHODS) and len(rows) == 2 * len(METHODS)
    for row in rows:
        expected = {"mean": 0}.get(row["method"], 1)
        if row["method"] == "shuffled":
            assert row["explained_variance"] < 0
        elif row["method"] == "frozen":  # rows that nobody trained
            assert row["explained_variance"] < 0.9
        else:
            assert row["explained_variance"] == pytest.approx(expected, abs=1e-5), row


def test_predictions_against_numpy(tmp_path: Path) -> None:
    """The stream from the model's own hidden states, T applied feature by feature, in contexts of 255 tokens."""
    text = write_text(tmp_path / "t.txt", 700)
    with open_atlas(tiny_atlas(tmp_path, layers=(0, 1))) as atlas:
        l0: dict[str, float] = {}
        found = {row["method"]: row["explained_variance"] for row in map_rows(atlas, [text], tokens=0, l0=l0)}
        summed = {r["method"]: r["explained_variance"] for r in map_rows(atlas, [text], tokens=0, direction="source")}
        model, tokenizer = load_model(str(tmp_path / "model"), device="cpu")
        ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
        streams: list[list[np.ndarray]] = [[], []]
        with torch.no_grad():
            for first in range(0, len(ids), 255):
                states = model(torch.tensor([[1, *ids[first : first + 255]]]), output_hidden_states=True).hidden_states
                for layer in range(2):
                    streams[layer].append(states[layer + 1][0, 1:].double().numpy())
        before, after = (np.concatenate(each) for each in streams)
        records = [atlas.dictionary(f"{layer}-res-20") for layer in range(2)]
        rows = [atlas.rows(record.id) for record in records]
        z, own = (
            Encoder.of(record, each)(torch.from_numpy(x).float()).values.double().numpy() * each.vectors["norms"]
            for record, each, x in zip(records, rows, (before, after), strict=True)
        )
    assert l0 == pytest.approx({d.id: (each > 0).sum() / len(each) for d, each in zip(records, (z, own), strict=True)})
    cosine = rows[1].decoder.astype(np.float64) @ rows[0].decoder.T
    best, giver = cosine.argmax(1), cosine.argmax(0)

    def explained(lengths: np.ndarray | None, x: np.ndarray | None = None) -> float:
        if lengths is not None:
            x = lengths @ rows[1].decoder.astype(np.float64) + rows[1].vectors["b_dec"]
        return float(1 - ((after - x) ** 2).sum() / ((after - after.mean(0)) ** 2).sum())

    assert found["top1"] == pytest.approx(explained(z[:, best]), abs=1e-4)
    assert found["weighted"] == pytest.approx(explained(z[:, best] * cosine.max(1)), abs=1e-4)
    assert found["ceiling"] == pytest.approx(explained(own), abs=1e-4)
    assert found["skip"] == pytest.approx(explained(None, before), abs=1e-4) and found["mean"] == 0
    many = np.zeros_like(z)
    for source, target in enumerate(giver):
        many[:, target] += z[:, source]
    assert summed["top1"] == pytest.approx(explained(many), abs=1e-4)
    assert summed["ceiling"] == found["ceiling"]


def test_an_atlas_without_neighbours_is_refused(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 300)
    with (
        open_atlas(tiny_atlas(tmp_path, layers=(0,))) as atlas,
        pytest.raises(QueryError, match="no two neighbouring"),
    ):
        map_rows(atlas, [text])


def test_the_permutation_has_the_largest_sum_of_cosines(tmp_path: Path) -> None:
    """All 7! ways of pairing seven living features with seven; a dead one gets no partner."""
    decoders = unit(np.random.default_rng(5).normal(size=(2, 8, 5)).reshape(16, 5)).reshape(2, 8, 5)
    decoders[0, 6], decoders[1, 3] = 0, 0
    for layer, rows in enumerate(decoders):
        write_sae(tmp_path / "saes", layer, "res", rows)
    ingest([tmp_path / "saes"], tmp_path / "a")
    with open_atlas(tmp_path / "a") as atlas:
        (source,) = sources(atlas)
        later, earlier = np.delete(np.arange(8), 3), np.delete(np.arange(8), 6)
        cosines = (decoders[1] @ decoders[0].T)[np.ix_(later, earlier)]
        best = max(itertools.permutations(range(7)), key=lambda order: cosines[np.arange(7), order].sum())
        expected = np.full(8, -1)
        expected[later] = earlier[list(best)]
        assert source.permuted.tolist() == expected.tolist()
        # Otherwise the best match of each would be one already.
        assert (source.permuted != source.best).any()

"""Figures of edges: against NumPy on dense activations, killed and repeated, in both stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evidence_atlas import SIZE, tiny_atlas, write_text
from neo4j_for_tests import Server, emptied

from atlas import open_atlas
from atlas.address import ServerAddress
from atlas.atlas import Atlas
from atlas.cli.info import summary
from atlas.embedded.store import LadybugStore
from atlas.errors import IngestError, QueryError
from atlas.graph.binding import bind
from atlas.graph.copying import copy_atlas
from hooked.encoder import Encoder
from hooked.load import load_model
from ingest import ingest
from queries import ask, lineage
from queries.evidence.firing import spool as spooling
from queries.evidence.firing.cofiring import SUPPORT, alone, together
from queries.evidence.firing.edges import measure_edges
from queries.evidence.removals.deactivation import deactivation
from queries.evidence.removals.effects import write_effects

TOKENS = 1200
FIGURES = "r.cofire AS cofire, r.lift AS lift, r.correlation AS correlation, r.support AS support"
EDGES = f"MATCH (b:Feature)-[r]->(a:Feature) RETURN b.id AS later, a.id AS earlier, type(r) AS type, r.rank AS rank, \
r.forward_rank AS forward_rank, r.similarity AS similarity, r.push AS push, {FIGURES} ORDER BY later, earlier"


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    write_text(tmp_path / "t.txt", TOKENS)
    return tiny_atlas(tmp_path, layers=(0, 1))


def by_hand(atlas: Atlas, text: str) -> dict[str, np.ndarray]:
    """Activations float64 [tokens, d_sae] of every dictionary, its module hooked by hand, context by context."""
    model, tokenizer = load_model(next(iter(atlas.dictionaries.values())).model_name, device="cpu")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    modules = {"res": "", "mlp": ".mlp", "att": ".self_attn"}
    seen: dict[str, list[torch.Tensor]] = {id_: [] for id_ in atlas.dictionaries}
    hooks = [
        model.get_submodule(f"model.layers.{d.layer}{modules[d.site]}").register_forward_hook(
            lambda _m, _a, out, id_=id_: seen[id_].append(out[0] if isinstance(out, tuple) else out)
        )
        for id_, d in atlas.dictionaries.items()
    ]
    with torch.no_grad():
        for first in range(0, len(ids), 255):
            model(torch.tensor([[tokenizer.bos_token_id, *ids[first : first + 255]]]))
        for hook in hooks:
            hook.remove()
        return {
            id_: Encoder.of(d, atlas.rows(id_))(torch.cat([out[0, 1:] for out in seen[id_]])).values.double().numpy()
            for id_, d in atlas.dictionaries.items()
        }


def test_every_edge_has_the_figures_of_numpy(atlas: Path) -> None:
    text = atlas.parent / "t.txt"
    report = measure_edges(atlas, [text])
    assert (report.positions, report.sinks) == (TOKENS, 0)
    with open_atlas(atlas) as opened:
        dense, rows = by_hand(opened, text.read_text()), opened.read(EDGES)
        cosines = {row["type"]: row for row in rows}
    assert {"FROM_RES", "FROM_MLP", "FROM_ATT", "FIRES_WITH"} == cosines.keys()
    seen = 0
    for row in rows:
        (later, i), (earlier, j) = (
            (id_, int(n)) for id_, _, n in (row[e].rpartition("/") for e in ("later", "earlier"))
        )
        y, x = dense[later][:, i], dense[earlier][:, j]
        # Rounding may carry a handful of activations across their threshold.
        assert abs(row["support"] - (y > 0).sum()) <= 1
        if (y > 0).sum() > SUPPORT + 1 and (x > 0).sum() > SUPPORT + 1:
            cofire = (x[y > 0] > 0).mean()
            assert row["cofire"] == pytest.approx(cofire, abs=0.01)
            assert row["lift"] == pytest.approx(cofire / (x > 0).mean(), rel=0.02)
            assert row["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=0.01)
            seen += 1
        elif (y > 0).sum() < SUPPORT - 1:
            assert row["cofire"] is row["lift"] is row["correlation"] is None
    assert seen > 100 and report.edges + report.fires_with >= seen


def test_fires_with_are_the_most_correlated_that_are_no_matches(atlas: Path) -> None:
    measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        rows = [row for row in opened.read(EDGES) if "1-res" in row["later"] and "0-res" in row["earlier"]]
        dense = by_hand(opened, (atlas.parent / "t.txt").read_text())
        ends = [opened.dictionary(name) for name in ("1-res-20", "0-res-20")]
        later, earlier = (opened.rows(d.id) for d in ends)
    with np.errstate(invalid="ignore"):
        both = np.corrcoef(dense[ends[0].id].T, dense[ends[1].id].T)[:SIZE, SIZE:]
    often = [(dense[d.id] > 0).sum(0) >= SUPPORT for d in ends]
    both[~(often[0][:, None] & often[1])] = -1
    best = {(i, int(j)) for i in range(SIZE) for j in np.argsort(-both[i])[:3] if both[i, j] > 0}
    place = {(int(row["later"].split("/")[-1]), int(row["earlier"].split("/")[-1])): row for row in rows}
    matches = {ends for ends, row in place.items() if row["type"] == "FROM_RES"}
    others = {ends: row for ends, row in place.items() if row["type"] == "FIRES_WITH"}
    assert others.keys() == best - matches and len(others) > 10
    for (i, j), row in others.items():
        assert row["rank"] is row["forward_rank"] is None
        assert row["similarity"] == pytest.approx(float(later.decoder[i] @ earlier.decoder[j]), abs=1e-6)
        push = later.encoder[i] @ earlier.decoder[j] * earlier.vectors["norms"][j]
        assert row["push"] == pytest.approx(float(push), rel=1e-4, abs=1e-5)


def test_sums_against_numpy_on_dense_float64() -> None:
    """Any pair of features; one that never fires, one that always does, one that is the other's double."""
    import scipy.sparse as sp

    rng = np.random.default_rng(0)
    x, y = (rng.exponential(size=(500, 30)) * (rng.random((500, 30)) < 0.3) for _ in range(2))
    x[:, 0], x[:, 1] = 0, rng.random(500) + 1
    y[:, 2] = 2 * x[:, 3]
    parts = [(sp.csr_array(y[at : at + 64]), sp.csr_array(x[at : at + 64])) for at in range(0, 500, 64)]
    later, earlier = (alone((part[end] for part in parts), 30) for end in range(2))
    (block,) = together(lambda: iter(parts), later, earlier)
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(y.T, x.T)[:30, 30:]
    np.testing.assert_allclose(block.correlation[:, 1:], expected[:, 1:], atol=1e-12)
    # Never active: neither a correlation nor a lift, and together with nothing.
    assert np.isnan(block.correlation[:, 0]).all() and np.isnan(block.lift[:, 0]).all() and not block.cofire[:, 0].any()
    assert block.correlation[2, 3] == 1 and block.cofire[2, 3] == 1 and (block.lift[:, 1] == pytest.approx(1))


def test_blocks_of_later_features_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.sparse as sp

    from queries.evidence.firing import cofiring

    rng = np.random.default_rng(1)
    y, x = (sp.csr_array(rng.random((200, 25)) * (rng.random((200, 25)) < 0.4)) for _ in range(2))
    later, earlier = alone(iter([y]), 25), alone(iter([x]), 25)
    (whole,) = together(lambda: iter([(y, x)]), later, earlier)
    monkeypatch.setattr(cofiring, "BLOCK", 7 * 25)
    blocks = list(together(lambda: iter([(y, x)]), later, earlier))
    assert [block.first for block in blocks] == [0, 7, 14, 21]
    np.testing.assert_array_equal(np.concatenate([b.correlation for b in blocks]), whole.correlation)


@pytest.mark.slow
def test_broken_off_in_the_pass_it_goes_on_with_the_same_numbers(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_atlas(tmp_path / "whole", layers=(0, 1))
    monkeypatch.setattr(spooling, "SHARD", 2)
    monkeypatch.setattr(spooling, "BATCH", 1)
    measure_edges(whole, [atlas.parent / "t.txt"])
    with open_atlas(whole) as opened:
        expected = opened.read(EDGES)
    real, calls = np.savez, []

    def failing(*arguments: Any, **arrays: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments, **arrays)

    monkeypatch.setattr(np, "savez", failing)
    with pytest.raises(KeyboardInterrupt):
        measure_edges(atlas, [atlas.parent / "t.txt"])
    monkeypatch.setattr(np, "savez", real)
    shards = sorted(path.name for path in (atlas / "evidence").rglob("*.npz"))
    assert shards == ["0-000000.npz", "0-000001.npz"]
    measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        assert opened.read(EDGES) == expected
    assert not (atlas / "evidence").exists()


@pytest.mark.slow
def test_broken_off_in_the_graph_it_is_the_one_state_or_the_other(atlas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_atlas(atlas) as opened:
        before = opened.read(EDGES)

    def failing(*_arguments: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LadybugStore, "publish", failing)
        with pytest.raises(KeyboardInterrupt):
            measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        assert opened.read(EDGES) == before and not opened.manifest.measured
    # Between the new graph and its name in the manifest.
    with monkeypatch.context() as patched:
        patched.setattr(
            "atlas.graph.publish.replace", lambda *a, **k: failing() if "fingerprint" in k else _replace(*a, **k)
        )
        with pytest.raises(KeyboardInterrupt):
            measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        assert opened.read(EDGES) == before
    measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        after = opened.read(EDGES)
    assert after != before and len(list((atlas / "matches").iterdir())) == 5


def _replace(*arguments: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(*arguments, **changes)


@pytest.mark.slow
def test_another_text_replaces_the_figures_whole_and_info_says_which(atlas: Path) -> None:
    other = write_text(atlas.parent / "other.txt", 300, seed=9)
    measure_edges(atlas, [atlas.parent / "t.txt"])
    measure_edges(atlas, [other])
    with open_atlas(atlas) as opened:
        twice, lines = opened.read(EDGES), summary(opened)
        (measured,) = opened.manifest.measured
    assert (measured["name"], measured["tokens"], measured["support"]) == ("other.txt", 300, SUPPORT)
    assert "on other.txt (sha256" in lines["evidence"] and "300 tokens" in lines["evidence"]
    ingest([], atlas, k=2)  # other matches: what was measured on the old ones is gone with them
    ingest([], atlas, k=3)
    with open_atlas(atlas) as opened:
        assert not opened.manifest.measured and not any(row["support"] for row in opened.read(EDGES))
    measure_edges(atlas, [other])
    with open_atlas(atlas) as opened:
        assert opened.read(EDGES) == twice


def test_an_ingest_keeps_figures_of_the_pairs_that_stay(atlas: Path) -> None:
    measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        before = opened.read(EDGES)
    assert not ingest([], atlas, min_res=0.5).published
    ingest([], atlas, min_res=0.4)
    with open_atlas(atlas) as opened:
        assert opened.read(EDGES) == before and len(opened.manifest.measured) == 1


def test_a_lineage_keeps_to_what_fires_together(atlas: Path) -> None:
    with open_atlas(atlas) as opened, pytest.raises(QueryError, match="evidence edges --text FILE"):
        lineage(opened, "1-res-20/3", min_cofire=0.1)
    measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        rows = {(row["later"], row["earlier"]): row for row in opened.read(EDGES)}
        removed = 0
        for index in range(SIZE):
            feature = opened.full_id(f"1-res-20/{index}")
            whole = lineage(opened, feature, min_res=0.0, min_module=0.0, k=3)
            kept = lineage(opened, feature, min_res=0.0, min_module=0.0, k=3, min_cofire=0.5)
            assert all((rows[edge.source, edge.target]["cofire"] or 0) >= 0.5 for edge in kept.edges)
            own = {edge for edge in whole.edges if edge.source == feature}
            expected = {edge for edge in own if (rows[edge.source, edge.target]["cofire"] or 0) >= 0.5}
            assert {edge for edge in kept.edges if edge.source == feature} == expected
            removed += len(own) - len(expected)
    assert removed > 10


@pytest.mark.slow
def test_contexts_are_drawn_by_the_seed(atlas: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        assert measure_edges(atlas, [atlas.parent / "t.txt"], tokens=300, seed=seed).positions == 510
        with open_atlas(atlas) as opened:
            found.append(opened.read(EDGES))
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_measured_is_refused(atlas: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(IngestError, match="no text"):
        measure_edges(atlas, [tmp_path / "empty.txt"])
    with pytest.raises(QueryError, match="--text"):
        measure_edges(atlas, [])


def _questions(atlas: Atlas) -> list[list[dict[str, Any]]]:
    """Answers over the figures, which a server gives by statements of its own: few and all, everywhere and not."""
    wheres: list[dict[str, Any]] = [{}, {"site": "mlp"}, {"layer": 1, "site": "res"}]
    return [
        ask(atlas, name, limit=limit, **where, **({"min_similarity": 0.0} if "never" in name else {}))
        for where in wheres
        for name in ("alike-and-together", "alike-never-together")
        for limit in (2, 5, 10_000)
    ]


@pytest.mark.parametrize("store", ["neo4j_lts"])
def test_a_server_holds_the_same(atlas: Path, tmp_path: Path, store: str, request: pytest.FixtureRequest) -> None:
    """Copied there, measured there anew, and back in a folder."""
    server: Server = request.getfixturevalue(store)
    address = emptied(server)
    measure_edges(atlas, [atlas.parent / "t.txt"])
    with open_atlas(atlas) as opened:
        expected, measured = opened.read(EDGES), opened.manifest.measured
        asked = _questions(opened)
        copy_atlas(opened, address)
    with open_atlas(address) as opened:
        assert opened.read(EDGES) == expected
        assert _questions(opened) == asked and len(asked[2]) > 5
        assert json.dumps(opened.manifest.measured) == json.dumps(measured)
        copy_atlas(opened, str(tmp_path / "back"))
    with open_atlas(tmp_path / "back") as opened:
        assert opened.read(EDGES) == expected
    # A folder whose graph lives on the server; measured twice, since the second time edges are there to be replaced.
    address = emptied(server)
    bind(tmp_path / "bound" / "atlas", ServerAddress.parse(address))
    bound = tiny_atlas(tmp_path / "bound", layers=(0, 1))
    measure_edges(bound, [atlas.parent / "t.txt"], tokens=300)
    measure_edges(bound, [atlas.parent / "t.txt"])
    with open_atlas(address) as opened:
        assert opened.read(EDGES) == expected
        outcome = deactivation(opened, [atlas.parent / "t.txt"], positions=5)
    with open_atlas(bound) as opened:
        assert deactivation(opened, [atlas.parent / "t.txt"], positions=5).rows() == outcome.rows()
    assert write_effects(bound, outcome) > 0

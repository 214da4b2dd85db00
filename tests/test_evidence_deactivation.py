"""Removals against hooks by hand, on blocks whose truth is known, and repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from evidence_atlas import idle_atlas, tiny_atlas, write_text
from planted_steering import hooks_left, planted_dictionary

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.errors import ModelError, QueryError
from hooked.encoder import Encoder
from hooked.hookpoints import read_point, write_point
from hooked.load import load_model
from queries.evidence.controls.frozen import Frozen
from queries.evidence.firing.edges import measure_edges
from queries.evidence.intervals import shares
from queries.evidence.readers import Reader
from queries.evidence.removals import copies
from queries.evidence.removals.copies import Context, first_block, losses, run_changed
from queries.evidence.removals.deactivation import deactivation
from queries.evidence.removals.effects import write_effects
from queries.evidence.removals.layout import Change
from queries.evidence.removals.outcome import Outcome
from queries.evidence.removals.removal import METHODS
from queries.evidence.sampling import PER_TEXT
from queries.evidence.sources import sources

TOKENS = [1, *range(5, 18)]
# The last one reads at the input of the block behind it.
WRITERS = ("blocks.1.hook_resid_post", "blocks.2.hook_mlp_out", "blocks.2.hook_attn_out", "blocks.2.hook_resid_pre")


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("place", [len(TOKENS) - 1, 6])
def test_every_intervention_is_a_hook_by_hand(family: str, place: int) -> None:
    """Each alone in a pass over the plain tokens, at this token or at the one before; and none of them."""
    model = tiny_models.tiny_model(family)
    written = {hook: planted_dictionary(hook, id=hook)[0] for hook in WRITERS}
    target = planted_dictionary("blocks.2.hook_resid_post", id="target")[0]
    generator = torch.Generator().manual_seed(0)
    changes = [Change(hook, torch.randn(32, generator=generator) * 3, b) for hook in WRITERS for b in (False, True)]

    def by_hand(change: Change | None) -> torch.Tensor:
        seen = []

        def add(hidden: torch.Tensor, _input: Any) -> torch.Tensor:
            changed = hidden.clone()
            assert change is not None
            changed[0, place - change.before] += change.vector
            return changed

        handles = [] if change is None else [write_point(model, written[change.dictionary]).register(add)]
        handles.append(read_point(model, target).register(lambda hidden, _input: seen.append(hidden[0, place])))
        with torch.no_grad():
            model(torch.tensor([TOKENS]))
        for handle in handles:
            handle.remove()
        return torch.as_tensor(seen[0])

    context = Context.read(model, TOKENS, {first_block(record) for record in written.values()})
    plain, changed = run_changed(model, context, place, changes, written, {"target": target})
    torch.testing.assert_close(plain["target"], by_hand(None), atol=1e-5, rtol=1e-5)
    for change, found in zip(changes, changed["target"], strict=True):
        torch.testing.assert_close(found, by_hand(change), atol=1e-5, rtol=1e-5)
    # What a block's module writes at one token reaches no other token within that block.
    moved = (changed["target"] - plain["target"]).norm(dim=1) > 1e-4
    assert moved.tolist() == [True, True, True, False, True, False, True, True]
    assert hooks_left(model) == 0 and not any("forward" in vars(module) for module in model.modules())


def test_how_many_go_through_the_model_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.tiny_model("llama")
    record, target = (planted_dictionary(f"blocks.{n}.hook_resid_post", id=str(n))[0] for n in (1, 2))
    generator = torch.Generator().manual_seed(0)
    changes = [Change("1", torch.randn(32, generator=generator), bool(n % 3 == 0)) for n in range(20)]
    found = []
    for most in (512, 7, 1):
        monkeypatch.setattr(copies, "MOST", most)
        context = Context.read(model, TOKENS, {2})
        found.append(run_changed(model, context, 9, changes, {"1": record}, {"2": target})[1]["2"])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_losses_are_those_of_a_hook_by_hand(family: str) -> None:
    model, place = tiny_models.tiny_model(family), 7
    record = planted_dictionary("blocks.1.hook_resid_post", id="1")[0]
    generator = torch.Generator().manual_seed(0)
    changes = [Change("1", torch.randn(32, generator=generator) * 3) for _ in range(3)]
    context = Context.read(model, TOKENS, {2})
    plain, found = losses(model, context, place, TOKENS[place + 1], changes, {"1": record})

    def by_hand(change: Change | None) -> float:
        def add(hidden: torch.Tensor, _input: Any) -> torch.Tensor:
            changed = hidden.clone()
            changed[0, place] += 0 if change is None else change.vector
            return changed

        handle = write_point(model, record).register(add)
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0, place]
        handle.remove()
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(TOKENS[place + 1])))

    assert plain == pytest.approx(by_hand(None), abs=1e-4)
    assert found == pytest.approx([by_hand(change) for change in changes], abs=1e-4)
    assert min(abs(loss - plain) for loss in found) > 1e-3 and hooks_left(model) == 0


def test_a_window_shorter_than_a_context_is_refused() -> None:
    model = tiny_models.tiny_model("gemma2")  # 16 tokens
    with pytest.raises(ModelError, match="16 tokens back"):
        Context.read(model, [1, *range(2, 30)], {1})


# --- blocks that write nothing ------------------------------------------------------------------------------------


def rows_of(outcome: Outcome, **where: Any) -> dict[str, dict[str, Any]]:
    rows = [row for row in outcome.rows() if row["margin"] == "all" and all(row[k] == v for k, v in where.items())]
    return {row["method"]: row for row in rows}


def test_a_predecessor_that_is_the_target_removes_it_and_no_other_does(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 600)
    atlas = idle_atlas(tmp_path)
    measure_edges(atlas, [text])
    with open_atlas(atlas) as opened:
        outcome = deactivation(opened, [text], positions=15, permutation=True)
    for layer in (1, 2):
        found = rows_of(outcome, layer=layer, site="res")
        for method in ("top1", "permutation", "pearson", "exhaustive", "topk"):
            assert (found[method]["success"], found[method]["n"]) == (1, found["top1"]["n"]), method
            # The threshold cuts no activation that is above it, so all of it goes.
            assert found[method]["change"] == 1
        # A drawn active feature is the target's own now and then: 1 of about 16. Of living rows that are not active
        # none is; what is removed in their direction leaves the target alone, exhaustive search among them too.
        assert found["random"]["success"] < 0.2
        for method in ("norm_matched", "best_of_random", "shifted"):
            assert found[method]["success"] == 0 and found[method]["change"] == pytest.approx(0, abs=1e-4), method
    recall = {(row["layer"], row["by"], row["top"]): row for row in outcome.recall() if row["margin"] == "all"}
    for by in ("cosine", "push", "correlation"):
        assert recall[1, by, 1]["recall"] == recall[1, by, 1]["precision"] == 1
    assert recall[2, "edge", None]["recall"] == 1
    (row,) = [row for row in outcome.by_cosine() if row["layer"] == 1]
    assert (row["cosine"], row["success"], row["success_low"], row["success_high"]) == ("0.8-1", 1, 1, 1)
    # The dictionary of another layer holds the same rows here, so its matches are right ones.
    assert rows_of(outcome, layer=2, site="res")["wrong_layer"]["success"] == 1


def test_effects_reach_the_edges_that_were_tried(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 600)
    atlas = idle_atlas(tmp_path)
    cypher = (
        "MATCH (b:Feature)-[r:FROM_RES]->(a:Feature) WHERE r.effect IS NOT NULL RETURN r.rank AS rank, r.effect AS e"
    )
    with open_atlas(atlas) as opened:
        outcome = deactivation(opened, [text], positions=10)
        assert opened.read(cypher) == []
    count = write_effects(atlas, outcome)
    with open_atlas(atlas) as opened:
        rows = opened.read(cypher)
        assert opened.manifest.measured[0]["kind"] == "effects"
    assert len(rows) == count > 20
    assert all(row["e"] == pytest.approx(1 if row["rank"] == 0 else 0, abs=1e-4) for row in rows)
    # Another measurement replaces them whole; one of an atlas that has changed meanwhile is not written.
    write_effects(atlas, replace(outcome, effects={}))
    with open_atlas(atlas) as opened:
        assert opened.read(cypher) == []
    with pytest.raises(QueryError, match="was changed"):
        write_effects(atlas, outcome)


# --- a model whose blocks do something ----------------------------------------------------------------------------


def test_methods_are_removals_by_hand(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 255)
    atlas = tiny_atlas(tmp_path, layers=(0, 1))
    with open_atlas(atlas) as opened:
        outcome = deactivation(opened, [text], positions=1, seed=3)
        again = deactivation(opened, [text], positions=1, seed=3)
        other = deactivation(opened, [text], positions=1, seed=4)
        model, tokenizer = load_model(str(tmp_path / "model"), device="cpu")
        ids = [tokenizer.bos_token_id, *tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]]
        checked = 0
        for part in outcome.targets:
            layer, site = int(part["layer"][0]), str(part["site"][0])
            later = opened.dictionary(f"{layer}-res-20")
            earlier = opened.dictionary(f"{layer - (site == 'res')}-{site}-20")
            checked += _check_top(opened, model, ids, part, later, earlier)
    assert checked > 3
    assert outcome.rows() == again.rows() != other.rows()


def _check_top(atlas: Atlas, model: Any, ids: list[int], part: dict[str, np.ndarray], later: Any, earlier: Any) -> int:
    """Find the token by the targets' activations, remove each target's best match there by hand, compare; how many."""
    encoders = [Encoder.of(d, atlas.rows(d.id)) for d in (later, earlier)]

    def run(place: int, vector: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        seen: dict[str, torch.Tensor] = {}

        def add(hidden: torch.Tensor, _input: Any) -> torch.Tensor | None:
            seen["earlier"] = hidden[0]
            if vector is None:
                return None
            changed = hidden.clone()
            changed[0, place] -= vector
            return changed

        handles = [write_point(model, earlier).register(add)]
        handles.append(read_point(model, later).register(lambda hidden, _i: seen.__setitem__("later", hidden[0])))
        with torch.no_grad():
            model(torch.tensor([ids[:256]]))
        for handle in handles:
            handle.remove()
        return encoders[0](seen["later"]).values, encoders[1](seen["earlier"]).values

    values, writes = run(0, None)
    (place,) = {
        int(place)
        for place in range(1, 256)
        if all(bool(((values[place] - float(old)).abs() < 1e-3).any()) for old in part["old"])
    }
    cosine = atlas.rows(later.id).decoder @ atlas.rows(earlier.id).decoder.T
    checked = 0
    for old, new in zip(part["old"], part["top1"], strict=True):
        target = int((values[place] - float(old)).abs().argmin())
        best = int(cosine[target].argmax())
        active = float(writes[place, best])
        assert np.isnan(new) == (active == 0)
        if active:
            rows = atlas.rows(earlier.id)
            vector = torch.from_numpy(np.array(rows.decoder[best])) * active * float(rows.vectors["norms"][best])
            assert float(run(place, vector)[0][place, target]) == pytest.approx(float(new), abs=1e-3)
            checked += 1
    return checked


def test_frozen_random_rows_take_all_that_the_state_has_along_them(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 600)
    with open_atlas(idle_atlas(tmp_path)) as opened:
        pair = next(pair for pair in sources(opened) if pair.later.layer == 1 and pair.earlier.site == "res")
        rows_of_it = opened.rows(pair.earlier.id)
        reader = Reader(pair.earlier, rows_of_it, Encoder.of(pair.earlier, rows_of_it))
        frozen = Frozen.of(pair, reader, seed=0)
        assert frozen is not None
        rows = frozen.rows.double().numpy()
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        assert (frozen.best == (pair.rows[0].decoder[:] @ rows.T).argmax(axis=1)).all()
        # None of them is one of the dictionary's: whatever they do was not learned.
        assert (rows @ reader.rows.decoder[:].T).max() < 0.999
        again = Frozen.of(pair, reader, seed=0)
        assert again is not None and torch.equal(again.rows, frozen.rows)
        hidden = torch.randn(pair.earlier.d_model, generator=torch.Generator().manual_seed(0)) * 4
        active, writes = frozen.writes(hidden, 5)
        state = (hidden - frozen.centre).double().numpy()
        along = rows @ state
        assert active.tolist() == np.argsort(-along)[:5].tolist()
        for row, write in zip(rows[active], writes.double().numpy(), strict=True):
            assert abs((state - write) @ row) < 1e-4 and write @ row > 0
        outcome = deactivation(opened, [text], positions=15, frozen=True)
    for layer in (1, 2):
        found = rows_of(outcome, layer=layer, site="res")
        assert found["top1"]["success"] == 1 and 0 < found["frozen"]["n"] <= found["best_of_frozen"]["n"]
        assert found["frozen"]["success"] <= found["best_of_frozen"]["success"]
        assert found["frozen"]["change"] < found["top1"]["change"]


@pytest.mark.slow
def test_rows_have_their_shape_and_the_denominators_differ(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt", 900)
    atlas = tiny_atlas(tmp_path, layers=(0, 1, 2))
    with open_atlas(atlas) as opened:
        outcome = deactivation(opened, [text], positions=12)
    rows = outcome.rows()
    # Without `evidence edges`; not asked for.
    assert {row["method"] for row in rows} == set(METHODS) - {"pearson", "permutation", "frozen", "best_of_frozen"}
    assert {row["margin"] for row in rows} == {"all", "below 1.1", "1.1-1.5", "above 1.5"}
    for row in rows:
        low, high = row["success_low"], row["success_high"]
        assert low is None or low <= row["success"] <= high
    for layer, site in {(row["layer"], row["site"]) for row in rows}:
        found = rows_of(outcome, layer=layer, site=site)
        assert found["exhaustive"]["n"] == found["random"]["n"] == found["best_of_random"]["n"] >= found["top1"]["n"]
        assert found["exhaustive"]["success"] >= found["random"]["success"]
        assert found["norm_matched"]["n"] == found["shifted"]["n"] == found["top1"]["n"] <= found["topk"]["n"]
        parts = [row["n"] for row in rows if (row["layer"], row["site"], row["method"]) == (layer, site, "top1")]
        assert parts[0] == sum(parts[1:])
    (res,) = [row for row in outcome.loss() if (row["layer"], row["site"]) == (2, "res")]
    assert res["n"] > 0 and res["loss_low"] <= res["loss_change"] <= res["loss_high"]
    common = [row for row in outcome.rows(common=True) if row["margin"] == "all"]
    for layer, site in {(row["layer"], row["site"]) for row in common}:
        counts = {row["method"]: row["n"] for row in common if (row["layer"], row["site"]) == (layer, site)}
        assert counts.pop("wrong_layer", 0) <= counts["top1"] and set(counts.values()) == {counts["top1"]}
    texts = {int(part["text"][0]) for part in outcome.targets}
    assert texts == set(range(-(-12 // PER_TEXT)))


def test_intervals_resample_texts() -> None:
    """Ten contexts that are all one way or the other: their interval is a binomial's of 10, not of 1,000."""
    texts = np.repeat(np.arange(10), 100)
    successes = (texts % 2 == 0).astype(float)
    ratio, low, high = shares(successes, np.ones(1000), texts, seed=0)
    # √(.25 / 10) = .158, so ±.31 at 95 %.
    assert ratio == 0.5 and low == pytest.approx(0.19, abs=0.1) and high == pytest.approx(0.81, abs=0.1)
    assert shares(successes, np.ones(1000), texts, seed=0) == (ratio, low, high)
    assert np.isnan(shares(np.ones(3), np.ones(3), np.zeros(3, int), seed=0)[1])

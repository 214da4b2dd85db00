"""The flow graph of one occurrence: sums that must come out, on models whose truth is known, and hooks by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from folders import configuration, tensors, write_folder

from atlas import open_atlas
from atlas.errors import QueryError
from ingest import ingest
from queries import SteeringPlan, lineage
from queries.lineage.draw import FORMATS, draw
from queries.lineage.graph import Lineage

TEXT = "w9 w17 w23 w4 w31 w40"
WIDTH = tiny_models.WIDTH
RES = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
ALL = [f"blocks.{layer}.{hook}" for layer in range(3) for hook in ("hook_resid_post", "hook_mlp_out", "attn.hook_z")]
O_PROJ = {"gpt2": "attn.c_proj", "gpt_neox": "attention.dense"}


def saved(folder: Path, family: str = "llama", *, silent: bool = False) -> Any:
    """A tiny model in a folder; silent: its blocks write nothing."""
    model = tiny_models.tiny_model(family)
    if silent:
        with torch.no_grad():
            for block in model.model.layers:
                block.self_attn.o_proj.weight.zero_()
                block.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    tiny_models.tiny_tokenizer().save_pretrained(folder)
    return model


def made(folder: Path, hooks: list[str], model: Any, architecture: str = "jumprelu", **fields: Any) -> Path:
    """An atlas of one dictionary of 20 features a hook."""
    heads = model.get_submodule(_block(model, 0, O_PROJ.get(model.config.model_type, "self_attn.o_proj")))
    wide = getattr(heads, "in_features", WIDTH)
    for seed, hook in enumerate(hooks):
        cfg = configuration(hook, architecture, d_in=wide if hook.endswith("hook_z") else WIDTH, **fields)
        write_folder(folder / "saes" / hook, cfg, weights(hook, seed, cfg))
    ingest([folder / "saes"], folder / "a", model=str(folder / "model"))
    return folder / "a"


def weights(hook: str, seed: int, cfg: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: value * np.float32(0.4) for name, value in tensors(cfg, seed=seed).items()}


def _block(model: Any, layer: int, module: str) -> str:
    blocks = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}.get(model.config.model_type, "model.layers")
    return f"{blocks}.{layer}" + (f".{module}" if module else "")


def any_feature(atlas: Any, model: Any, dictionary: str) -> str:
    """A feature of that dictionary that fires somewhere in TEXT."""
    from queries import activate

    rows = activate(atlas, model, tiny_models.tiny_tokenizer(), TEXT, top=1)
    return str(next(row["feature"] for row in rows if row["feature"].startswith(f"{dictionary}/")))


def parts(graph: Lineage, feature: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The node of a feature and its edges by predecessor."""
    values = graph.to_dict()
    node = next(node for node in values["nodes"] if node["id"] == feature)
    return node, {edge["target"]: edge for edge in values["edges"] if edge["source"] == feature}


@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("architecture", ["jumprelu", "standard", "gated", "topk"])
def test_where_blocks_write_nothing_the_parts_are_the_pre_activation(
    tmp_path: Path, architecture: str, normalisation: str
) -> None:
    """x of layer 2 is x of layer 1, so that z = Σ a·norm·(W·d) + W·b_dec + b + W·error, each by hand in float64."""
    model = saved(tmp_path / "model", silent=True)
    fields = {"normalize_activations": normalisation} | ({"k": 6} if architecture == "topk" else {})
    atlas = made(tmp_path, RES[1:], model, architecture, **fields)
    with open_atlas(atlas) as opened:
        earlier, later = opened.dictionaries
        feature = any_feature(opened, model, later)
        graph = lineage(opened, feature, on=TEXT, model=model, tokenizer=tiny_models.tiny_tokenizer(), k=20)
    node, edges = parts(graph, feature)
    drawn = sum(edge["share"] for edge in edges.values())
    assert drawn + node["other"] + node["bias"] + node["error"] + node["unread"] == pytest.approx(1, abs=1e-5)
    assert node["unread"] == pytest.approx(0, abs=1e-6) and len(edges) > 1 and node["activation"] > 0
    if normalisation != "none" or architecture != "jumprelu":
        return
    cfg = configuration(RES[1], architecture, d_in=WIDTH)
    one, two = ({n: v.astype(np.float64) for n, v in weights(RES[1], seed, cfg).items()} for seed in (0, 1))
    tokenizer = tiny_models.tiny_tokenizer()
    ids = [1, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    x = states[2][0, 1 + graph.to_dict()["on"]["position"]].double().numpy()
    index = int(feature.rpartition("/")[2])
    z = (x - two["b_dec"]) @ two["W_enc"][:, index] + two["b_enc"][index]
    before = (x - one["b_dec"]) @ one["W_enc"] + one["b_enc"]
    fired = np.where(before > one["threshold"], np.maximum(before, 0), 0)
    given = fired * (one["W_dec"] @ two["W_enc"][:, index])
    error = x - one["b_dec"] - fired @ one["W_dec"]
    assert node["pre_activation"] == pytest.approx(z, rel=1e-5)
    assert node["error"] == pytest.approx(error @ two["W_enc"][:, index] / z, rel=1e-4)
    bias = (one["b_dec"] - two["b_dec"]) @ two["W_enc"][:, index] + two["b_enc"][index]
    assert node["bias"] == pytest.approx(bias / z, rel=1e-4)
    assert edges.keys() == {f"{earlier}/{i}" for i in np.flatnonzero(given > 0)}
    for name, edge in edges.items():
        i = int(name.rpartition("/")[2])
        assert edge["share"] == pytest.approx(given[i] / z, rel=1e-4)
        assert edge["push"] == pytest.approx(one["W_dec"][i] @ two["W_enc"][:, index], rel=1e-5)
        unit = one["W_dec"][i] / np.linalg.norm(one["W_dec"][i])
        row = two["W_dec"][index] / np.linalg.norm(two["W_dec"][index])
        assert edge["similarity"] == pytest.approx(unit @ row, abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox", "gemma3_text"])
def test_in_every_family_the_stream_is_what_the_dictionaries_read(tmp_path: Path, family: str) -> None:
    """res after L = res after L−1 + attention + MLP: one after the other, in parallel (NeoX), behind output norms, with
    attention's rows mapped out of head space."""
    model = saved(tmp_path / "model", family)
    with open_atlas(made(tmp_path, ALL, model)) as atlas:
        later = next(id_ for id_, d in atlas.dictionaries.items() if d.site == "res" and d.layer == 2)
        feature = any_feature(atlas, model, later)
        graph = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tiny_models.tiny_tokenizer(), k=3)
        mapped = {d.mapped for d in atlas.dictionaries.values() if d.site == "att"}
    assert mapped == {"o_proj+norm" if family.startswith("gemma") else "o_proj"}
    followed = [node for node in graph.to_dict()["nodes"] if "error" in node]
    assert {node["layer"] for node in followed} == {0, 1, 2} and {node.site for node in graph.nodes} == {
        "res",
        "mlp",
        "att",
    }
    for node in followed:
        drawn = sum(edge["share"] for edge in parts(graph, node["id"])[1].values())
        scale = 1 + max(abs(node[part]) for part in ("other", "bias", "error", "unread"))
        assert drawn + sum(node[p] for p in ("other", "bias", "error", "unread")) == pytest.approx(1, abs=1e-5 * scale)
        if node["layer"] > 0:  # nothing before layer 0 is read
            assert abs(node["unread"]) < 1e-5 * scale


@pytest.mark.parametrize("silent", [True, False])
def test_what_is_verified_equals_a_hook_by_hand(tmp_path: Path, silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queries.occurrence.removal.ROWS", 3)
    model = saved(tmp_path / "model", silent=silent)
    tokenizer = tiny_models.tiny_tokenizer()
    with open_atlas(made(tmp_path, RES, model)) as atlas:
        later = next(id_ for id_, d in atlas.dictionaries.items() if d.layer == 2)
        feature = any_feature(atlas, model, later)
        graph = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tokenizer, k=3, verify=True)
    position = 1 + graph.to_dict()["on"]["position"]
    ids = torch.tensor([[1, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]]])
    cfg = configuration(RES[0], "jumprelu", d_in=WIDTH)
    saes = [{n: torch.from_numpy(v).double() for n, v in weights("", seed, cfg).items()} for seed in range(3)]

    def before(layer: int, change: tuple[int, torch.Tensor] | None = None) -> torch.Tensor:
        """Pre-activations of a layer's features at the token, with something taken from an earlier layer's output."""
        seen: list[torch.Tensor] = []

        def take(_module: Any, _given: Any, out: Any) -> Any:
            if change is None:
                return None
            out = out.clone()
            out[0, position] -= change[1].float()
            return out

        blocks = model.model.layers
        handles = [blocks[change[0] if change else 0].register_forward_hook(take)]
        handles.append(blocks[layer].register_forward_hook(lambda _m, _g, out: seen.append(out[0, position].double())))
        with torch.no_grad():
            model(ids)
        for handle in handles:
            handle.remove()
        return (seen[0] - saes[layer]["b_dec"]) @ saes[layer]["W_enc"] + saes[layer]["b_enc"]

    edges = graph.to_dict()["edges"]
    assert len(edges) > 6 and {edge["source"].split("/")[1][0] for edge in edges} == {"1", "2"}
    for edge in edges:
        (late, b), (early, a) = (
            (int(edge[end].split("/")[1].split("-")[0]), int(edge[end].rpartition("/")[2]))
            for end in ("source", "target")
        )
        plain = before(late)[b]
        removed = torch.relu(before(early)[a]) * saes[early]["W_dec"][a]
        after = before(late, (early, removed))[b]
        assert edge["measured"] == pytest.approx(float(plain - after), abs=1e-4)
        left = float(after / plain) if after > saes[late]["threshold"][b] and after > 0 else 0.0
        assert edge["left"] == pytest.approx(left, abs=1e-4)
        if silent:
            assert edge["measured"] == pytest.approx(edge["predicted"], abs=1e-4)
    if not silent:
        assert any(abs(edge["measured"] - edge["predicted"]) > 0.01 for edge in edges)


def test_rows_of_head_space_are_taken_away_as_at_the_projections_input(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "gpt2")
    hooks = [RES[1], "blocks.1.attn.hook_z"]
    tokenizer = tiny_models.tiny_tokenizer()
    with open_atlas(made(tmp_path, hooks, model)) as atlas:
        later = next(id_ for id_, d in atlas.dictionaries.items() if d.site == "res")
        feature = any_feature(atlas, model, later)
        graph = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tokenizer, k=4, verify=True)
    position = 1 + graph.to_dict()["on"]["position"]
    ids = torch.tensor([[1, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]]])
    res, att = (
        {
            n: torch.from_numpy(v).double()
            for n, v in weights("", s, configuration(hooks[0], "jumprelu", d_in=WIDTH)).items()
        }
        for s in (0, 1)
    )
    block = model.transformer.h[1]
    index = int(feature.rpartition("/")[2])
    for edge in graph.to_dict()["edges"]:
        a = int(edge["target"].rpartition("/")[2])
        found: list[torch.Tensor] = []
        for remove in (False, True):

            def take(_module: Any, given: Any, remove: bool = remove, a: int = a) -> Any:
                z = given[0].clone()
                value = torch.relu((z[0, position].double() - att["b_dec"]) @ att["W_enc"][:, a] + att["b_enc"][a])
                z[0, position] -= (value * att["W_dec"][a]).float() * remove
                return (z,)

            handles = [block.attn.c_proj.register_forward_pre_hook(take)]
            handles.append(
                block.register_forward_hook(
                    lambda _m, _g, out, to=found: to.append(out if isinstance(out, torch.Tensor) else out[0])
                )
            )
            with torch.no_grad():
                model(ids)
            for handle in handles:
                handle.remove()
        z = [(x[0, position].double() - res["b_dec"]) @ res["W_enc"][:, index] + res["b_enc"][index] for x in found]
        assert edge["measured"] == pytest.approx(float(z[0] - z[1]), abs=1e-4)


def test_the_token_is_where_it_is_strongest_and_others_can_be_named(tmp_path: Path) -> None:
    from queries import activate

    model, tokenizer = saved(tmp_path / "model"), tiny_models.tiny_tokenizer()
    with open_atlas(made(tmp_path, RES, model)) as atlas:
        later = next(id_ for id_, d in atlas.dictionaries.items() if d.layer == 2)
        rows = activate(atlas, model, tokenizer, TEXT, features=[f"{later}/{i}" for i in range(20)])
        fires = {row["feature"]: [r for r in rows if r["feature"] == row["feature"]] for row in rows}
        feature = next(name for name, found in fires.items() if 1 < len(found) < 6)
        best = max(fires[feature], key=lambda row: row["activation"])
        graph = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tokenizer)
        on = {"text": TEXT, "position": best["position"], "token": best["token"]}
        assert graph.to_dict()["on"] == on == graph.options["on"]
        assert parts(graph, feature)[0]["activation"] == pytest.approx(best["activation"], rel=1e-5)
        other = next(row for row in fires[feature] if row is not best)
        graph = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tokenizer, token=other["position"])
        assert parts(graph, feature)[0]["activation"] == pytest.approx(other["activation"], rel=1e-5)
        silent = next(i for i in range(6) if i not in {row["position"] for row in fires[feature]})
        never = next(f"{later}/{i}" for i in range(20) if f"{later}/{i}" not in fires)
        for name, given, problem in (
            (feature, {"token": silent}, f"does not fire at token {silent} .*it does at {best['position']} "),
            (feature, {"token": 6}, "tokens 0 to 5, not 6"),
            (never, {}, "does not fire on this text"),
            (feature, {"forward": 1}, "goes back, by shares"),
            (feature, {"by": "push"}, "goes back, by shares"),
        ):
            with pytest.raises(QueryError, match=problem):
                lineage(atlas, name, on=TEXT, model=model, tokenizer=tokenizer, **given)
        with pytest.raises(QueryError, match="belong to a text"):
            lineage(atlas, feature, token=1)
        near = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tokenizer, back=1)
        assert {node.layer for node in near.nodes} == {1, 2}
        plan = SteeringPlan.from_lineage(atlas, near, 2)
        assert plan.origin is not None and plan.origin["on"] == on


def test_every_form_draws_it(tmp_path: Path) -> None:
    model, tokenizer = saved(tmp_path / "model"), tiny_models.tiny_tokenizer()
    with open_atlas(made(tmp_path, ALL, model)) as atlas:
        later = next(id_ for id_, d in atlas.dictionaries.items() if d.site == "res" and d.layer == 2)
        feature = any_feature(atlas, model, later)
        graph = lineage(atlas, feature, on=TEXT, model=model, tokenizer=tokenizer, verify=True)
        with pytest.raises(QueryError, match="is a feature of mlp"):
            lineage(atlas, "2-mlp-20/1", on=TEXT, model=model, tokenizer=tokenizer)
    shown = {form: draw(graph, form) for form in FORMATS}
    seed, edges = parts(graph, feature)
    share = max(edge["share"] for edge in edges.values())
    for form in ("tree", "mermaid", "dot"):
        assert f"{share:.2f} (" in shown[form], form
    assert f"{seed['activation']:.3g}" in shown["tree"] and f"other {seed['other']:.2f}" in shown["tree"]
    assert "at token" in shown["tree"].splitlines()[-2] and "forward pass without" in shown["tree"]
    assert json.loads(shown["json"]) == graph.to_dict()
    assert f">{share}<" in shown["graphml"] and f">{seed['activation']}<" in shown["graphml"]


@pytest.mark.slow
def test_the_command_draws_it(tmp_path: Path) -> None:
    model, tokenizer = saved(tmp_path / "model"), tiny_models.tiny_tokenizer()
    atlas = made(tmp_path, RES, model)
    with open_atlas(atlas) as opened:
        later = next(id_ for id_, d in opened.dictionaries.items() if d.layer == 2)
        feature = any_feature(opened, model, later)
        expected = lineage(opened, feature, on=TEXT, model=model, tokenizer=tokenizer, k=2).to_dict()
    code = "from atlas.cli.main import main; main()"
    base = [sys.executable, "-c", code, "lineage", feature, "-a", str(atlas)]
    command = [*base, "--on", TEXT, "--k", "2", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))
    for extra, problem in (([*command, "--by", "push"], "--by has no part"), ([*base, "--verify"], "belongs to --on")):
        refused = subprocess.run(extra, capture_output=True, text=True)
        assert refused.returncode == 2 and problem in refused.stderr

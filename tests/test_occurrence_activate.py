"""What fires at each token, against the model hooked by hand and an encoder in float64."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models
import torch
from folders import configuration, tensors, write_folder

from atlas import open_atlas
from atlas.errors import ModelError, PlanError, QueryError, UnknownFeature
from ingest import ingest
from ingest.labels.job import label_atlas
from queries import activate

TEXT = "w9 w17 w23 w4 w31 w40"
HOOKS = {"res": "blocks.1.hook_resid_post", "mlp": "blocks.1.hook_mlp_out", "att": "blocks.1.attn.hook_z"}
HEADS = tiny_models.HEADS * tiny_models.HEAD_DIM


def made(folder: Path, *, sink: bool = False, architecture: str = "jumprelu", **fields: Any) -> Path:
    """An atlas of three dictionaries of a tiny Llama: after block 1, of its MLP, and in head space."""
    model = tiny_models.tiny_model("llama")
    if sink:
        with torch.no_grad():
            model.get_input_embeddings().weight[23] *= 1000
    for part in (model, tiny_models.tiny_tokenizer()):
        part.save_pretrained(folder / "model")
    for seed, (site, hook) in enumerate(HOOKS.items()):
        cfg = configuration(hook, architecture, d_in=HEADS if site == "att" else tiny_models.WIDTH, **fields)
        write_folder(folder / "saes" / site, cfg, tensors(cfg, seed=seed))
    ingest([folder / "saes"], folder / "a", model=str(folder / "model"))
    return folder / "a"


def by_hand(folder: Path, *, prepended: bool = True) -> dict[str, np.ndarray]:
    """float64 [positions, 20] by site: hooks of torch's own, JumpReLU written out."""
    model, tokenizer = tiny_models.tiny_model("llama"), tiny_models.tiny_tokenizer()
    model.load_state_dict(type(model).from_pretrained(folder / "model").state_dict())
    seen: dict[str, torch.Tensor] = {}
    block = model.model.layers[1]
    block.mlp.register_forward_hook(lambda _m, _a, out: seen.update(mlp=out))
    block.self_attn.o_proj.register_forward_pre_hook(lambda _m, given: seen.update(att=given[0]))
    ids = ([1] if prepended else []) + tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        seen["res"] = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2]
    found = {}
    for seed, site in enumerate(HOOKS):
        cfg = configuration(HOOKS[site], "jumprelu", d_in=HEADS if site == "att" else tiny_models.WIDTH)
        weights = {name: value.astype(np.float64) for name, value in tensors(cfg, seed=seed).items()}
        hidden = seen[site][0, 1 if prepended else 0 :].double().numpy()
        before = (hidden - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
        found[site] = np.where(before > weights["threshold"], np.maximum(before, 0), 0.0)
    return found


@pytest.mark.parametrize("prepended", [True, False])
def test_all_that_fires_is_what_the_encoder_gives_by_hand(tmp_path: Path, prepended: bool) -> None:
    atlas = made(tmp_path, prepend_bos=prepended)
    expected = by_hand(tmp_path, prepended=prepended)
    with open_atlas(atlas) as opened:
        rows = activate(opened, None, None, TEXT, top=20)
        few = activate(opened, str(tmp_path / "model"), None, TEXT, top=2)
        ids = {d.site: d.id for d in opened.dictionaries.values()}
    found = {(row["feature"], row["position"]): row["activation"] for row in rows}
    wanted = {
        (f"{ids[site]}/{i}", position): values[position, i]
        for site, values in expected.items()
        for position, i in zip(*np.nonzero(values), strict=True)
    }
    assert found.keys() == wanted.keys() and len(found) == len(rows) > 100
    for key, value in wanted.items():
        assert found[key] == pytest.approx(value, rel=1e-4)
    assert next(row["token"] for row in rows) == "w9"
    assert {row["relative"] for row in rows} == {None}  # nothing on record
    order = [
        (row["position"], [ids["att"], ids["mlp"], ids["res"]].index(row["feature"].rpartition("/")[0])) for row in few
    ]
    assert order == sorted(order) and len(few) == len(TEXT.split()) * 3 * 2
    for position, values in enumerate(expected["res"]):
        best = [f"{ids['res']}/{i}" for i in np.argsort(-values)[:2]]
        assert [r["feature"] for r in few if r["position"] == position][4:] == best


def test_named_features_relative_to_the_largest_on_record(tmp_path: Path) -> None:
    atlas = made(tmp_path)
    expected = by_hand(tmp_path)["res"]
    table = pa.table({"dictionary": ["tiny-1m/1-res-20"] * 2, "index": [3, 4], "max_activation": [8.0, 0.0]})
    with open_atlas(atlas) as opened:
        (name,) = (d.id for d in opened.dictionaries.values() if d.site == "res")
    pq.write_table(table.set_column(0, "dictionary", pa.array([name] * 2)), tmp_path / "labels.parquet")
    label_atlas(atlas, imports=[str(tmp_path / "labels.parquet")])
    with open_atlas(atlas) as opened:
        rows = activate(opened, None, None, TEXT, features=[f"{name}/3", "1-res-20/4", f"{name}/3"])
    wanted = [(p, i) for p in range(len(expected)) for i in (3, 4) if expected[p, i] > 0]
    assert sorted((row["position"], int(row["feature"].rpartition("/")[2])) for row in rows) == wanted
    for row in rows:
        three = row["feature"].endswith("/3")
        assert row["relative"] == (pytest.approx(row["activation"] / 8) if three else None)


def test_attention_sinks_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_atlas(made(tmp_path, sink=True)) as atlas:
        rows = activate(atlas, None, None, TEXT, top=1)
    assert {row["position"] for row in rows} == {0, 1, 3, 4, 5}
    assert "token 2 ('w23') is an attention sink in 3 of 3 dictionaries and left out there" in caplog.text


def test_what_cannot_be_had_is_refused_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_atlas(made(tmp_path)) as atlas:
        for problem, error, given in (
            ("at least one word", QueryError, {"text": ""}),
            ("has 127 tokens|reads at most 127", QueryError, {"text": " ".join(["w9"] * 128)}),
            ("at least 1", QueryError, {"text": TEXT, "top": 0}),
            ("no dictionary", UnknownFeature, {"text": TEXT, "features": "other/1-res-20/3"}),
            ("at least one feature", QueryError, {"text": TEXT, "features": []}),
        ):
            with pytest.raises(error, match=problem):
                activate(atlas, str(tmp_path / "model"), None, **given)
        with pytest.raises(ModelError, match="its tokenizer"):
            activate(atlas, tiny_models.tiny_model("llama"), None, TEXT)
    pursued = made(tmp_path / "other", architecture="abstopk", k=4)
    with open_atlas(pursued) as atlas:
        with pytest.raises(QueryError, match="no dictionary of the atlas has activations"):
            activate(atlas, None, None, TEXT)
        with pytest.raises(PlanError, match="abstopk"):
            activate(atlas, None, None, TEXT, features=f"{next(iter(atlas.dictionaries))}/3")


@pytest.mark.slow
def test_the_command_prints_the_rows(tmp_path: Path) -> None:
    atlas = made(tmp_path)
    code = "from atlas.cli.main import main; main()"
    command = [sys.executable, "-c", code, "activate", TEXT, "-a", str(atlas), "--format", "json"]
    done = subprocess.run([*command, "--top", "4"], capture_output=True, text=True, check=True)
    with open_atlas(atlas) as opened:
        assert json.loads(done.stdout) == activate(opened, None, None, TEXT, top=4)
    assert list(json.loads(done.stdout)[0]) == ["position", "token", "feature", "activation", "relative"]
    both = subprocess.run([*command, "--top", "4", "--feature", "x/1-res-2/1"], capture_output=True, text=True)
    assert both.returncode == 2 and "without --feature" in both.stderr

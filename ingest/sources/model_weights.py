"""A language model's files: its configuration, and the few tensors that mapping needs, without loading the model.

A model is a folder or a hub name. In a folder everything is read in place; from the hub, only the configuration, the
index and the one file that holds a tensor are fetched (into the hub's own cache, which also serves offline).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import IngestError, ModelError
from hooked.families import Family, family_of, family_of_name, split_revision
from ingest.sources.head_space import HeadMap
from ingest.sources.releases.hub import offline_where_unreachable
from ingest.sources.tensors import Tensors, open_safetensors

_CONFIG, _INDEX, _SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
# Where a file's tensor names put the decoder: as transformers names them, in multimodal wrappers, or without the head.
_ROOTS = ("{}", "language_model.{}", "model.language_model.{}")


def known_width(model: str) -> int | None:
    """Width of the model's residual stream, where its config.json is at hand without a network."""
    path = _find(model, _CONFIG, fetch=False)
    return _width(_json(path)) if path else None


def known_family(model: str) -> Family | None:
    """The model's family: by its config.json where that is at hand without a network, else by its name.

    None where neither tells; raises ModelError where the configuration is of no known family.
    """
    path = _find(model, _CONFIG, fetch=False)
    if path is None:
        return family_of_name(model)
    config = _json(path)
    return family_of(str((config.get("text_config") or config).get("model_type") or config.get("model_type")))


def head_map(model: str, layer: int) -> HeadMap:
    """The map from `hook_z` of a block into the residual stream, from the model's own weights.

    Raises IngestError where the model's files cannot be had or lack a tensor, ModelError where its family is unknown.
    """
    from hooked.load import weights_place

    model = weights_place(model)
    path = _find(model, _CONFIG, fetch=True)
    if path is None:
        raise IngestError(
            f"{model} has no {_CONFIG}, and hook_z rows need the model's weights; say --model NAME_OR_FOLDER"
        )
    config = _json(path)
    family = family_of(str(config.get("model_type")))
    quantised = config.get("quantization_config") or {}
    projection = _tensor(model, _names(family, layer, family.o_proj), quantised.get("weight_block_size"))
    if family.o_proj_transposed:
        # Conv1D keeps [in, out].
        projection = np.ascontiguousarray(projection.T)
    gain = None
    if family.output_norm is not None:
        # These norms keep their weight less 1.
        gain = 1 + _tensor(model, _names(family, layer, family.output_norm))
    width = _width(config)
    if projection.ndim != 2 or projection.shape[0] != width or (gain is not None and gain.shape != (width,)):
        raise ModelError(f"the attention weights of {model}, layer {layer}, do not fit its width of {width}")
    return HeadMap(projection, gain)


def _width(config: dict[str, Any]) -> int | None:
    text = config.get("text_config") or config  # multimodal models nest the language model's
    return next((text[name] for name in ("hidden_size", "n_embd", "d_model") if name in text), None)


def _names(family: Family, layer: int, module: str) -> list[str]:
    """The names under which a block's weight may stand in a file."""
    block = f"{layer}.{module}.weight"
    inner = family.layers.partition(".")[2]  # GPT-2's files on the hub say h.0, not transformer.h.0
    return [root.format(f"{layers}.{block}") for layers in (family.layers, inner) for root in _ROOTS]


def _tensor(model: str, names: Sequence[str], blocks: Sequence[int] | None = None) -> np.ndarray:
    """float32: the first of `names` that the model's files hold; quantised weights times their scales.

    blocks: rows and columns that share one scale, where the configuration says so.
    """
    for name, tensors in _holding(model, names):
        weight = tensors.whole(name)
        kind = tensors.parts[name].dtype
        # Values of such kinds are codes; without their scales they would give other directions.
        if kind.kind in "iub" or (kind.names and kind.names[0].startswith("float8")):
            weight = weight * _scales(model, name, weight.shape, blocks)
        return weight
    raise IngestError(f"{model} has no safetensors file with {names[0]}; hook_z rows cannot be mapped without it")


def _scales(model: str, name: str, shape: tuple[int, ...], blocks: Sequence[int] | None) -> np.ndarray:
    """What the values of a quantised weight are to be multiplied by, broadcastable to its `shape`.

    One number for all or for each row (`weight_scale`), or one a block (`weight_scale_inv`), as transformers has it.
    Raises IngestError where neither is there in such a form: without them the directions would be others.
    """
    for scale_name, tensors in _holding(model, [f"{name}_scale", f"{name}_scale_inv"]):
        scale = tensors.whole(scale_name)
        if scale.size == 1:
            return scale.reshape(1, 1)
        if scale.size == shape[0]:
            return scale.reshape(-1, 1)
        if blocks is not None and scale.shape == tuple(-(-n // step) for n, step in zip(shape, blocks, strict=True)):
            return scale.repeat(blocks[0], 0).repeat(blocks[1], 1)[: shape[0], : shape[1]]
    raise IngestError(
        f"{name} of {model} is quantised, and its scales are not beside it in a form that is known; name the model "
        "before it was quantised with --model NAME_OR_FOLDER"
    )


def _holding(model: str, names: Sequence[str]) -> Iterator[tuple[str, Tensors]]:
    """Each of `names` that the model's files hold, with the opened file's tensors."""
    index = _find(model, _INDEX, fetch=True)
    if index is not None:
        files = _json(index).get("weight_map", {})
        found = [_find(model, files[name], fetch=True) for name in names if name in files]
        paths = list(dict.fromkeys(path for path in found if path))
    else:
        path = _find(model, _SINGLE, fetch=True)
        paths = [path] if path else sorted(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
    for path in paths:
        with open_safetensors(path) as tensors:
            yield from ((name, tensors) for name in names if name in tensors.shapes)


def _find(model: str, name: str, *, fetch: bool) -> Path | None:
    """A file of the model: in its folder, in the hub's cache or, with `fetch`, from the hub; None where it has none."""
    folder = Path(model)
    if folder.is_dir():
        path = folder / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    repository, revision = split_revision(model)
    if fetch:
        offline_where_unreachable()
    try:
        # Without `fetch` no network may be touched: a plan must be instant.
        ask = hf_hub_download if fetch else try_to_load_from_cache
        found = ask(repository, name, revision=revision)
    except HFValidationError:
        if not fetch:
            return None
        raise IngestError(f"{model!r} is neither a folder nor a model's hub name (--model NAME_OR_FOLDER)") from None
    except EntryNotFoundError:
        return None  # no such file, or neither in the cache nor within reach: the caller says what is missing
    except OSError as error:
        raise IngestError(f"{name} of {model} could not be fetched ({_line(error)}); or say --model FOLDER") from None
    # The cache also tells, by an object of its own, that a file is known not to exist.
    return Path(found) if isinstance(found, str) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise IngestError(f"{path} cannot be read as JSON ({error})") from None
    return content if isinstance(content, dict) else {}


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

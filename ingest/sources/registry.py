"""Dictionaries of SAELens's registry: a release, or `release/sae_id`.

1. Look the word up in SAELens's own list, read from its file: importing the package takes seconds that a misspelt word
   or a release in SAELens's own format does not need.
2. Refuse what has no rows in one space and what is kept as pickles; leave out what layers and width exclude.
3. Configurations and weights through SAELens's loaders, the ones beneath `SAE.from_pretrained`; releases in its own
   format through the hub's cache, then as local folders are.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from atlas.errors import IngestError
from ingest.sources.configuration import CROSS_LAYER, Configuration, read_configuration
from ingest.sources.local import CONFIGURATION, WEIGHTS, read_json
from ingest.sources.selection import Selection, smallest_common
from ingest.sources.tensors import Tensors, open_safetensors

_OWN = "sae_lens"  # the loader of SAELens's own format
# The weights file that each loader reads; `{}` is the dictionary's path in its repository.
_FILES = {
    _OWN: "{}/" + WEIGHTS,
    "gemma_2": "{}/params.npz",
    "gemma_2_transcoder": "{}/params.npz",
    "gemma_3": "{}/params.safetensors",
    "llama_scope": "{}/checkpoints/final.safetensors",
    "llama_scope_r1_distill": "{}/sae_weights.safetensors",
    "mwhanna_transcoder": "{}",
}
_PICKLE = "its weights are pickles, which can run code when read; convert them to SAELens folders (safetensors)"
_REFUSED = {
    "connor_rob_hook_z": _PICKLE,
    "deepseek_r1": _PICKLE,
    "dictionary_learning_1": _PICKLE,
    "goodfire": _PICKLE,
    "qwen_scope": _PICKLE,
    "mntss_clt_layer_transcoder": CROSS_LAYER,
    "temporal": "its features depend on earlier tokens through attention, which an atlas cannot encode",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One dictionary of a release."""

    release: str
    sae_id: str
    repository: str  # on the hub
    path: str  # in the repository
    loader: str  # name of SAELens's loader
    configuration: Configuration

    @property
    def address(self) -> str:
        """What names it again."""
        return f"{self.release}/{self.sae_id}"

    def files(self) -> list[Path]:
        """The file that holds its weights, fetched where the hub's cache lacks it."""
        with _translated(self.address):
            return [_fetch(self.repository, _FILES[self.loader].format(self.path))]

    @contextmanager
    def tensors(self) -> Iterator[Tensors]:
        """Its tensors: mapped where the format is SAELens's own, else as SAELens's loader gives them."""
        path = self.files()[0]
        if self.loader == _OWN:
            with open_safetensors(path) as tensors:
                yield tensors
        else:
            yield Tensors.of(self._load())

    def _load(self) -> Mapping[str, Any]:
        from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS as loaders

        overrides = {"device": "cpu", "dtype": "float32"}
        with _translated(self.address), _shapes_from_cache():
            _, state, _ = loaders[self.loader](self.repository, self.path, "cpu", False, overrides)
        return dict(state)


def find_entries(address: str, selection: Selection) -> list[Entry]:
    """The dictionaries that a release's name or `release/sae_id` stands for.

    What an id shows not to be selected is left out before anything is fetched; without a width, a release that has
    several gives the smallest that it has at every place.

    Raises IngestError where there is no such release or id (with those that are close), where it cannot be taken in, or
    where a file is neither in the hub's cache nor to be had from the hub.
    """
    release, _, sae_id = address.partition("/")
    listed = _registry()
    if release not in listed:
        raise IngestError(_unknown(address, release))
    loader = listed[release].get("conversion_func") or _OWN
    if loader not in _FILES:
        reason = _REFUSED.get(loader, f"its format {loader!r} is not known")
        raise IngestError(f"release {release} cannot be taken in: {reason}")
    saes = listed[release]["saes"]
    if sae_id:
        chosen = [sae for sae in saes if sae["id"] == sae_id]
        if not chosen:
            close = difflib.get_close_matches(sae_id, [sae["id"] for sae in saes], n=3, cutoff=0)
            raise IngestError(f"release {release} has no {sae_id!r}; closest: {', '.join(close)}")
        return [_entry(release, sae, loader) for sae in chosen]
    entries = [_entry(release, sae, loader) for sae in saes if selection.may_take(sae["id"])]
    common = smallest_common(entry.configuration for entry in entries) if selection.width is None else None
    if common is None:
        return entries
    _log.warning("%s holds several widths; taking %d features (--width all: every one)", release, common)
    return [entry for entry in entries if entry.configuration.d_sae == common]


@cache
def _registry() -> dict[str, dict[str, Any]]:
    """SAELens's list of releases, from the file of the installed package."""
    import yaml

    package = importlib.util.find_spec("sae_lens")
    if package is None or not package.submodule_search_locations:
        raise IngestError("releases need the package sae-lens, which is not installed; or name a folder")
    path = Path(package.submodule_search_locations[0]) / "pretrained_saes.yaml"
    with path.open() as file:
        listed = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(listed)


def _unknown(address: str, release: str) -> str:
    listed = list(_registry())
    close = difflib.get_close_matches(release, listed, n=5, cutoff=0.5)
    close += [name for name in listed if release.lower() in name.lower() and name not in close][: 5 - len(close)]
    hint = f"close to it: {', '.join(close)}" if close else f"it lists {len(listed)}, e.g. {listed[0]}"
    return f"{address!r} is neither a folder nor a release of SAELens; {hint}"


def _entry(release: str, sae: Mapping[str, Any], loader: str) -> Entry:
    listed = _registry()[release]
    address, repository, path = f"{release}/{sae['id']}", str(listed["repo_id"]), str(sae["path"])
    if "clt" in path:
        raise IngestError(f"{address} is a cross-layer transcoder: {CROSS_LAYER}")
    overrides = {**(listed.get("config_overrides") or {}), "neuronpedia_id": sae.get("neuronpedia")}
    with _translated(address):
        if loader == _OWN:
            raw = {**read_json(_fetch(repository, f"{path}/{CONFIGURATION}")), **overrides}
        else:
            raw = _loaded_configuration(release, sae["id"])
    configuration = read_configuration(raw, address)
    if configuration.normalize_activations == "expected_average_only_in":
        configuration = replace(configuration, norm_factor=sae.get("norm_scaling_factor"))
    return Entry(release, sae["id"], repository, path, loader, configuration)


def _loaded_configuration(release: str, sae_id: str) -> dict[str, Any]:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    with _shapes_from_cache():
        return dict(load_sae_config_from_huggingface(release, sae_id))


def _fetch(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name))


@contextmanager
def _translated(address: str) -> Iterator[None]:
    """Errors of the hub, of SAELens's loaders and of damaged files, as one line."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise IngestError(
            f"{address} could not be had: {_line(error)}; with a network once, then offline from the hub's cache"
        ) from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise IngestError(f"{address} cannot be read: {_line(error)}; fetch it again") from None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(". ")[0]
    return f"{text[:200]}…" if len(text) > 200 else text or type(error).__name__


@contextmanager
def _shapes_from_cache() -> Iterator[None]:
    """Let SAELens's Gemma 3 loader take shapes from a cached file: it asks the hub for them even when offline."""
    from huggingface_hub import try_to_load_from_cache
    from sae_lens.loading import pretrained_sae_loaders as loaders

    ask = loaders.get_safetensors_tensor_shapes

    def shapes(repository: str, name: str) -> dict[str, list[int]]:
        cached = try_to_load_from_cache(repository, name)
        if not isinstance(cached, str):
            return dict(ask(repository, name))
        with open_safetensors(Path(cached)) as tensors:
            return {tensor: list(shape) for tensor, shape in tensors.shapes.items()}

    loaders.get_safetensors_tensor_shapes = shapes
    try:
        yield
    finally:
        loaders.get_safetensors_tensor_shapes = ask

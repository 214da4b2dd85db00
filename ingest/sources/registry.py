"""Dictionaries of SAELens's registry: a release, `release/sae_id`, or `release/GLOB` over its ids.

1. Look the word up in SAELens's own list (`releases.listing`); refuse what has no rows in one space.
2. Choose by ids alone (`releases.choices`), before anything is fetched.
3. Configurations through SAELens's loaders, the ones beneath `SAE.from_pretrained`; weights through them too, pickles
   in a process of their own (`releases.pickles`); releases in SAELens's own format as local folders are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atlas.errors import IngestError
from ingest.sources.configuration import CROSS_LAYER, Configuration, read_configuration
from ingest.sources.local import CONFIGURATION, WEIGHTS, read_json
from ingest.sources.releases.choices import Listed, choose
from ingest.sources.releases.hub import fetch, offline_where_unreachable
from ingest.sources.releases.listing import read_release
from ingest.sources.releases.pickles import NAMED as PICKLED
from ingest.sources.releases.pickles import open_pickle
from ingest.sources.selection import Selection
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
    **dict.fromkeys(PICKLED, "{}"),
    "dictionary_learning_1": "{}/ae.pt",
}
# What a loader reads for the configuration: asked for first where only the cache can be, before SAELens is imported.
_CONFIGURATIONS = {
    "dictionary_learning_1": "{}/config.json",
    "gemma_3": _FILES["gemma_3"],  # for its shapes
    "llama_scope": "{}/hyperparams.json",
    "llama_scope_r1_distill": "{}/config.json",
}
_REFUSED = {
    "mntss_clt_layer_transcoder": CROSS_LAYER,
    "temporal": "its features depend on earlier tokens through attention, which an atlas cannot encode",
}


@dataclass(frozen=True)
class Entry:
    """One dictionary of a release."""

    release: str
    sae_id: str
    repository: str  # on the hub
    path: str  # in the repository
    loader: str  # name of SAELens's loader
    configuration: Configuration
    variant: str  # what tells it from others at its place, as a part of a name

    @property
    def address(self) -> str:
        """What names it again."""
        return f"{self.release}/{self.sae_id}"

    def files(self) -> list[Path]:
        """The file that holds its weights, fetched where the hub's cache lacks it."""
        with _translated(self.address):
            return [fetch(self.repository, _FILES[self.loader].format(self.path))]

    def size(self) -> tuple[int | None, bool]:
        """Bytes of its weights where the hub's cache has them, and whether it has."""
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.repository, _FILES[self.loader].format(self.path))
        return (Path(cached).stat().st_size, True) if isinstance(cached, str) else (None, False)

    @contextmanager
    def tensors(self) -> Iterator[Tensors]:
        """Its tensors: mapped from SAELens's own format or a converted pickle, else as SAELens's loader gives them."""
        path = self.files()[0]
        if self.loader == _OWN:
            with open_safetensors(path) as tensors:
                yield tensors
        elif self.loader in PICKLED:
            with open_pickle(path, self.loader, self.configuration.encoder) as tensors:
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
    """The dictionaries that a release's name, `release/sae_id` or `release/GLOB` stands for.

    Raises IngestError where there is no such release or id (with those that are close), where one of several has to be
    chosen or none can be taken in, or where a file is neither in the hub's cache nor to be had from the hub.
    """
    release, _, sae_id = address.partition("/")
    listed = read_release(address)
    loader = listed.get("conversion_func") or _OWN
    if loader not in _FILES:
        reason = _REFUSED.get(loader, f"its format {loader!r} is not known")
        raise IngestError(f"release {release} cannot be taken in: {reason}")
    chosen = choose(release, listed["saes"], sae_id, selection)
    return [_entry(one, str(listed["repo_id"]), listed.get("config_overrides") or {}, loader) for one in chosen]


def _entry(one: Listed, repository: str, overrides: Mapping[str, Any], loader: str) -> Entry:
    if "clt" in one.path:
        raise IngestError(f"{one.address} is a cross-layer transcoder: {CROSS_LAYER}")
    with _translated(one.address):
        if loader == _OWN:
            raw = read_json(fetch(repository, f"{one.path}/{CONFIGURATION}"))
            raw |= {**overrides, "neuronpedia_id": one.neuronpedia}
        else:
            if loader in _CONFIGURATIONS and offline_where_unreachable():
                # What is not in the cache fails here at once; SAELens's import alone takes seconds.
                fetch(repository, _CONFIGURATIONS[loader].format(one.path))
            raw = _loaded_configuration(one.release, one.id)
    configuration = read_configuration(raw, one.address)
    if configuration.normalize_activations == "expected_average_only_in":
        configuration = replace(configuration, norm_factor=one.norm_scaling_factor)
    return Entry(one.release, one.id, repository, one.path, loader, configuration, one.folded)


def _loaded_configuration(release: str, sae_id: str) -> dict[str, Any]:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    offline_where_unreachable()
    with _shapes_from_cache():
        return dict(load_sae_config_from_huggingface(release, sae_id))


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
        if isinstance(cached, str):
            with open_safetensors(Path(cached)) as tensors:
                return {tensor: list(shape) for tensor, shape in tensors.shapes.items()}
        if offline_where_unreachable():
            raise FileNotFoundError(f"{name} of {repository} is not in the hub's cache, and the hub cannot be asked")
        return dict(ask(repository, name))

    loaders.get_safetensors_tensor_shapes = shapes
    try:
        yield
    finally:
        # It is SAELens's own module that was changed, which others in this process may use.
        loaders.get_safetensors_tensor_shapes = ask

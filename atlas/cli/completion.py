"""Ids that begin as what was typed, for the shell: from an atlas folder's records alone, so that Tab is fast."""

from __future__ import annotations

from pathlib import Path

from atlas.address import is_server
from atlas.atlas import atlas_address, load_dictionaries
from atlas.errors import AtlasError
from atlas.folder.manifest import Manifest

MOST = 200  # ids offered at once; who types on sees the others


def features(atlas: str | None, typed: str) -> list[str]:
    """Ids of features that begin so, whole, or short where the atlas has one model.

    Where several dictionaries begin so, they are offered first, as the part of an id that they are. Nothing where
    there is no atlas folder: a server is not asked at the press of a key.
    """
    sizes = _sizes(atlas)
    dictionary, slash, index = typed.rpartition("/")
    names = _beginning(sizes, typed)
    if slash and (whole := _named(sizes, dictionary)) is not None:
        found = (str(i) for i in range(sizes[whole]))
        return [f"{dictionary}/{i}" for i in found if i.startswith(index)][:MOST]
    # Alone, a dictionary would be taken for the whole word, and a space put behind it.
    return features(atlas, f"{names[0]}/") if len(names) == 1 else [f"{name}/" for name in names]


def dictionaries(atlas: str | None, typed: str) -> list[str]:
    """Ids of dictionaries that begin so, whole, or short where the atlas has one model."""
    return _beginning(_sizes(atlas), typed)


def _sizes(atlas: str | None) -> dict[str, int]:
    """Number of features of each dictionary, by id."""
    address = atlas_address(atlas)
    if is_server(address):
        return {}
    try:
        folder = Path(address)
        return {id_: d.d_sae for id_, d in load_dictionaries(folder, Manifest.load(folder).dictionaries).items()}
    except AtlasError:
        return {}


def _short(sizes: dict[str, int]) -> dict[str, str]:
    """Ids without the model, to whole ones; nothing where there are several models."""
    models = {id_.partition("/")[0] for id_ in sizes}
    return {id_.partition("/")[2]: id_ for id_ in sizes} if len(models) == 1 else {}


def _beginning(sizes: dict[str, int], typed: str) -> list[str]:
    return [id_ for id_ in sizes if id_.startswith(typed)] or [id_ for id_ in _short(sizes) if id_.startswith(typed)]


def _named(sizes: dict[str, int], name: str) -> str | None:
    return name if name in sizes else _short(sizes).get(name)

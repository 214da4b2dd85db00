"""Ids and places: what a feature is called, its site, its depth; names that may become paths.

A dictionary's id is `{model}/{layer}-{set}`, a feature's is `{dictionary}/{index}`: Neuronpedia's own scheme, e.g.
`gemma-2-2b/12-gemmascope-res-16k/14455`. Ids are stable across runs, machines and stores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from atlas.errors import UnknownFeature

RES, MLP, ATT = "res", "mlp", "att"
MID = "mid"  # in ids: res between attention and MLP of a block
SITES = (RES, MLP, ATT)
# Order of the sites inside one block along the forward pass: attention, MLP, then the stream after the block.
_ORDER = {ATT: 0, MLP: 1, RES: 2}


def depth(site: str, layer: int, *, mid: bool = False) -> int:
    """Place along the forward pass: att of L < mlp of L < res after L < att of L+1; res before block 0 is −1.

    `mid`: the stream between attention and MLP of L. It stands beside the MLP, which reads it: after att of L, before
    res after L, and nothing is matched between the two.
    """
    return 3 * layer + _ORDER[MLP if mid else site]


def is_mid(site: str, layer: int, place: int) -> bool:
    """Whether a residual dictionary of that layer and depth is the stream between attention and MLP."""
    return site == RES and place != depth(site, layer)


def set_name(site: str, d_sae: int) -> str:
    """Default set of a dictionary without a Neuronpedia id: `res-2k` for 2,048 features, `res-1000` for 1,000.

    `site` may be `mid`, as the stream between attention and MLP is called in ids.
    """
    width = f"{d_sae // 1024}k" if d_sae % 1024 == 0 else str(d_sae)
    return f"{site}-{width}"


def dictionary_id(model: str, number: int, set_: str) -> str:
    """`{model}/{number}-{set}`; number is the layer in the hook's name (Neuronpedia counts so)."""
    return f"{model}/{number}-{set_}"


def feature_id(dictionary: str, index: int) -> str:
    """`{dictionary}/{index}`."""
    return f"{dictionary}/{index}"


def split_feature_id(feature: str) -> tuple[str, int]:
    """Dictionary id and row index of a feature id.

    Raises UnknownFeature where the text is not of the form `{model}/{layer}-{set}/{index}`.
    """
    dictionary, _, index = feature.rpartition("/")
    # isdigit alone also takes superscripts and other scripts' digits, which int refuses or reads as other ids.
    if dictionary.count("/") < 1 or not index.isascii() or not index.isdigit():
        raise UnknownFeature(f"{feature!r} is not a feature id; one looks like gemma-2-2b/12-gemmascope-res-16k/14455")
    return dictionary, int(index)


# Names that become paths: whoever made an atlas or may write to a graph must not reach its readers' other files.
_ID = re.compile(r"(?!\.)[^/\\\0]+(/(?!\.)[^/\\\0]+)*")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Names:
    """How the ids of an atlas are written for people."""

    model: str | None  # of the only model there is: ids may be given without it
    places: Mapping[str, str]  # dictionaries that Neuronpedia shows, by their ids there

    def page(self, id_: str) -> str | None:
        """Where Neuronpedia shows a feature, given whole or short; None where it does not."""
        dictionary, _, index = id_.rpartition("/")
        place = self.places.get(dictionary) or self.places.get(f"{self.model}/{dictionary}")
        return f"https://www.neuronpedia.org/{place}/{index}" if place and index.isdigit() else None


def is_id(name: object) -> bool:
    """Whether it can be the id of a dictionary: folders below an atlas's `dictionaries`."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def is_file_name(name: object) -> bool:
    """Whether it can be one file of an atlas: matches of a pair, a state of the graph."""
    return is_id(name) and "/" not in str(name)


def is_sha256(name: object) -> bool:
    """Whether it can be a SHA-256, in hexadecimal digits."""
    return isinstance(name, str) and _SHA256.fullmatch(name) is not None

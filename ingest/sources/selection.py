"""Which dictionaries of the named sources are meant, and what they are to be called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from atlas.errors import IngestError
from ingest.sources.configuration import Configuration

ALL = "all"
_SET = re.compile(r"\w[\w.\-+]*")


@dataclass(frozen=True)
class Selection:
    """What to take of the named sources; None takes all."""

    layers: Collection[int] | None = None
    sites: Collection[str] | None = None
    width: str | None = None  # a label such as `16k`, `1m` or `2048`; `all`: every width of a release that has several
    set_name: str | None = None  # last part of the ids, with the site before it where there are several
    model: str | None = None  # hub name or folder, in place of the model that the metadata names

    def __post_init__(self) -> None:
        """Raises IngestError for a set's name that could not be part of an id."""
        if self.set_name is not None and not _SET.fullmatch(self.set_name):
            raise IngestError(
                f"--set {self.set_name!r}: a name of letters, digits, dots, dashes and underscores is needed"
            )

    def takes(self, layer: int, site: str, d_sae: int) -> bool:
        """Whether a dictionary at that place, of that many features, is meant."""
        return (
            (self.layers is None or layer in self.layers)
            and (self.sites is None or site in self.sites)
            and (self.width is None or has_width(d_sae, self.width))
        )

    def may_take(self, sae_id: str) -> bool:
        """Whether an id in a release, such as `layer_12/width_16k/canonical`, leaves room for what is meant."""
        number = re.search(r"(?:layer_?|blocks\.|\bl)(\d+)", sae_id)
        label = re.search(r"width_(\d+[km])", sae_id)
        # The input of block n is the stream after block n − 1.
        in_layers = (
            self.layers is None or number is None or bool({int(number[1]), int(number[1]) - 1} & set(self.layers))
        )
        width = self.width
        return in_layers and (width is None or label is None or width.lower() in (label[1], ALL) or width.isdigit())

    def __str__(self) -> str:
        """What was asked for, in words; nothing where all was."""
        asked = [f"layers {sorted(self.layers)}"] if self.layers is not None else []
        asked += [f"sites {', '.join(self.sites)}"] if self.sites is not None else []
        asked += [f"width {self.width}"] if self.width is not None else []
        return " and ".join(asked)


EVERYTHING = Selection()


def has_width(d_sae: int, label: str) -> bool:
    """Whether a label means a width: `16k` 16,384; `65k` 65,536, as Neuronpedia counts; `1m`; `2048`; `all` any."""
    labels = {ALL, str(d_sae), f"{d_sae // 1000}k"}
    labels |= {f"{d_sae >> 10}k"} if d_sae % 1024 == 0 else set()
    labels |= {f"{d_sae >> 20}m"} if d_sae % (1 << 20) == 0 else set()
    return label.lower() in labels


def smallest_common(configurations: Iterable[Configuration]) -> int | None:
    """The smallest width that every place has, where several places have several widths; otherwise None."""
    places: dict[str, set[int]] = {}
    for configuration in configurations:
        places.setdefault(configuration.hook_name, set()).add(configuration.d_sae)
    if len(places) < 2 or all(len(widths) == 1 for widths in places.values()):
        return None
    return min(set.intersection(*places.values()), default=None)

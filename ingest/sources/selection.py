"""Which dictionaries of the named sources are meant, and what they are to be called."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from atlas.errors import IngestError

ALL = "all"
L0S = ("small", "medium", "big")  # as Gemma Scope 2 names them
_SET = re.compile(r"\w[\w.\-+]*")


@dataclass(frozen=True)
class Selection:
    """What to take of the named sources; None takes all."""

    layers: Collection[int] | None = None
    sites: Collection[str] | None = None
    width: str | None = None  # a label such as `16k`, `1m` or `2048`; `all`: every width of a release that has several
    set_name: str | None = None  # last part of the ids, with the site before it where there are several
    model: str | None = None  # hub name or folder, in place of the model that the metadata names
    l0: str | None = None  # small, medium or big, or a number: of each place the dictionary that comes nearest to it
    checkpoint: int | None = None  # step of a run that holds several; None: the last

    def __post_init__(self) -> None:
        """Raises IngestError for a set's name that could not be part of an id, or an L0 that is none."""
        if self.set_name is not None and not _SET.fullmatch(self.set_name):
            raise IngestError(
                f"--set {self.set_name!r}: a name of letters, digits, dots, dashes and underscores is needed"
            )
        if self.l0 is not None and self.l0 not in L0S and not re.fullmatch(r"\d+(\.\d+)?", self.l0):
            raise IngestError(f"--l0 {self.l0!r} is neither {', '.join(L0S)} nor a number of active features")

    def takes(self, layer: int, site: str, d_sae: int) -> bool:
        """Whether a dictionary at that place, of that many features, is meant."""
        return (
            (self.layers is None or layer in self.layers)
            and (self.sites is None or site in self.sites)
            and self.has_width(d_sae)
        )

    def has_width(self, d_sae: int) -> bool:
        """Whether so many features are meant."""
        return self.width is None or has_width(d_sae, self.width)

    @property
    def l0_number(self) -> float | None:
        """The L0 to come nearest to; None for a name, or where none is asked for."""
        return None if self.l0 is None or self.l0 in L0S else float(self.l0)

    def __str__(self) -> str:
        """What was asked for, in words; nothing where all was."""
        asked = [f"layers {sorted(self.layers)}"] if self.layers is not None else []
        asked += [f"sites {', '.join(self.sites)}"] if self.sites is not None else []
        asked += [f"width {self.width}"] if self.width is not None else []
        asked += [f"l0 {self.l0}"] if self.l0 is not None else []
        return " and ".join(asked)


EVERYTHING = Selection()


def has_width(d_sae: int, label: str) -> bool:
    """Whether a label means a width: `16k` 16,384; `65k` 65,536, as Neuronpedia counts; `1m`; `2048`; `all` any."""
    # Thousands may be of 1,000 or of 1,024, and names of both kinds are in use.
    labels = {ALL, str(d_sae), f"{d_sae // 1000}k"}
    labels |= {f"{d_sae >> 10}k"} if d_sae % 1024 == 0 else set()
    labels |= {f"{d_sae >> 20}m"} if d_sae % (1 << 20) == 0 else set()
    return label.lower() in labels

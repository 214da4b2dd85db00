"""Labels for a dictionary's number of features, as people write them: `16k`, `1m`, `2048`."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.sources.configuration import Configuration

ALL = "all"


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

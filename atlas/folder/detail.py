"""What is kept of a feature beside the graph: where it was most active token by token, how often how strongly.

In `labels.parquet` (atlas.folder.labels), the columns BESIDE. One feature's are read without the rest of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from atlas.errors import CorruptAtlas
from atlas.folder.labels import BESIDE, Labels, labels_path


@dataclass(frozen=True)
class Context:
    """A passage of a text, on one line, the word at which the feature was most active between «»."""

    text: str
    tokens: tuple[tuple[str, float | None], ...]
    """The text cut into tokens with the activation at each; None where it was not kept. Empty for older labels."""


@dataclass(frozen=True)
class Histogram:
    """How often a feature was how active: positions of the text by activation, those at which it was 0 left out."""

    width: float  # of a bin, in activation
    counts: tuple[int, ...]  # positions with an activation of i·width to (i+1)·width; the last bin is not empty

    @property
    def end(self) -> float:
        """The activation at which the last bin ends."""
        return len(self.counts) * self.width


@dataclass(frozen=True)
class Detail:
    """What is known of a feature beside the graph; nothing where `label` was not run."""

    contexts: tuple[Context, ...] = ()  # best first
    histogram: Histogram | None = None
    suppresses: tuple[str, ...] = ()  # tokens, most suppressed first


def detail_of(folder: Path, index: int, state: str | None = None) -> Detail:
    """The detail of one feature of the dictionary in `folder`; `state` as in Labels.load.

    Raises CorruptAtlas where the file is damaged.
    """
    path = labels_path(folder, state)
    if not path.exists():
        return Detail()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in BESIDE if name in file.schema_arrow.names]
            first = 0
            # The group that holds the feature: the whole table takes longer to read than a page has.
            for group in range(file.num_row_groups if names else 0):
                rows = file.metadata.row_group(group).num_rows
                if index < first + rows:
                    (row,) = file.read_row_group(group, columns=names).slice(index - first, 1).to_pylist()
                    return _detail(row)
                first += rows
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise Labels.damaged(path, error) from None
    if names and index >= first:
        raise CorruptAtlas(f"{path} has {first} rows, none for feature {index}: run feature-atlas label again")
    return Detail()


def _detail(row: Mapping[str, Any]) -> Detail:
    texts, traces, histogram = row.get("contexts") or [], row.get("traces") or [], row.get("histogram")
    traces = traces if len(traces) == len(texts) else [None] * len(texts)
    return Detail(
        tuple(Context(text, _tokens(text, trace)) for text, trace in zip(texts, traces, strict=True)),
        None if histogram is None else Histogram(histogram["width"], tuple(histogram["counts"])),
        tuple(row.get("suppresses") or ()),
    )


def _tokens(text: str, trace: Mapping[str, Any] | None) -> tuple[tuple[str, float | None], ...]:
    """The text cut where the trace's tokens end, with their activations."""
    if trace is None:
        return ()
    cuts = [0, *trace["ends"]]
    tokens = [(text[a:b], activation) for (a, b), activation in zip(pairwise(cuts), trace["activations"], strict=True)]
    # Behind the last token that was read.
    return (*tokens, (text[cuts[-1] :], None)) if cuts[-1] < len(text) else tuple(tokens)

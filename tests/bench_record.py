"""Ratios that benchmarks measure against a peer in the same run, kept for docs/benchmarks.md (tests/bench.py)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "FEATURE_ATLAS_BENCH"  # names the file that ratios are added to; without it they are printed only


@dataclass(frozen=True)
class Ratio:
    """One measurement: `what` takes `ratio` times as long as `peer`, which takes `seconds`."""

    area: str
    what: str
    peer: str
    ratio: float
    seconds: float  # of the peer

    def worse(self, before: Ratio) -> float:
        """By what factor it fell behind an earlier measurement; 1: as it was."""
        return self.ratio / before.ratio


def record(area: str, what: str, peer: str, ratio: float, seconds: float) -> None:
    """Add a ratio to the file that is asked for, if any."""
    if name := os.environ.get(FILE):
        with Path(name).open("a") as file:
            file.write(json.dumps(asdict(Ratio(area, what, peer, ratio, seconds))) + "\n")

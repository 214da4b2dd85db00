"""What removing did, written to the edges that were tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from atlas.cli.progress import Progress
from atlas.errors import QueryError
from queries.evidence.figures import figures_of, with_column
from queries.evidence.removals.outcome import Outcome


def write_effects(folder: Path, outcome: Outcome, progress: Progress | None = None) -> int:
    """Write to every stored edge that was tried the mean share of the target's activation that went; how many they are.

    What an earlier measurement wrote is replaced whole.
    Raises QueryError where the atlas was changed since, LockedAtlas where another process writes to it.

    Example:
        write_effects(atlas.path, deactivation(atlas, [Path("wiki.txt")]))
    """
    written = 0
    with figures_of(folder) as figures:
        if not outcome.effects.keys() <= set(figures.manifest.pairs):
            raise QueryError(f"{folder} was changed since the removals were tried: effects are not written; repeat it")
        for name in figures.manifest.pairs:
            table = figures.read(name)
            if name in outcome.effects or "effect" in table.column_names:
                ends = table["later"].to_numpy(), table["earlier"].to_numpy()
                effect = _mean_effects(outcome.effects.get(name, []), *ends)
                written += int(np.isfinite(effect).sum())
                figures.stage(name, with_column(table, "effect", effect))
        figures.publish(outcome.record, progress or Progress(quiet=True))
    return written


def _mean_effects(tried: list[np.ndarray], b: np.ndarray, a: np.ndarray) -> np.ndarray:
    """float64 [n_edges]: the mean change of each edge (b, a) over what was tried; NaN where it never was."""
    if not tried:
        return np.full(len(b), np.nan)
    later, earlier, change = np.concatenate(tried, axis=1)
    names, place = np.unique(np.stack([later, earlier]), axis=1, return_inverse=True)
    means = dict(
        zip(
            map(tuple, names.T.astype(int).tolist()),
            np.bincount(place.ravel(), weights=change) / np.bincount(place.ravel()),
            strict=True,
        )
    )
    return np.array([means.get(ends, np.nan) for ends in zip(b.tolist(), a.tolist(), strict=True)])

"""The noise floor against the null with all eigenvectors: `python tests/bench_floor.py [FOLDER]`.

Prints, for each pair of a folder's dictionaries (the bundled ones) and for rows with falling spectra, both quantiles of
the null as it is defined, how far the floor lies from them in the mean over several draws, and how much these differ.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atlas.atlas import load_dictionaries
from atlas.folder.dictionary import Rows
from atlas.folder.manifest import Manifest
from atlas.folder.matches import read_pair
from atlas.folder.paths import dictionary_folder
from ingest import ingest
from ingest.matching.blocks import Floats
from ingest.matching.floor import noise_floor

BUNDLE = Path(__file__).parents[1] / "ingest" / "bundle" / "smollm2-135m"
SEEDS = 8
SLOPES = (0.0, 0.3, 0.5, 0.75, 1.0)
Pair = tuple[str, Floats, Floats]


def trained(source: Path) -> Iterator[Pair]:
    """Name, later and earlier rows of every pair of the folder's dictionaries."""
    with tempfile.TemporaryDirectory() as folder:
        ingest([source], folder)
        manifest = Manifest.load(Path(folder))
        records = load_dictionaries(Path(folder), manifest.dictionaries)
        for name in manifest.pairs:
            pair = read_pair(Path(folder) / "matches" / name)
            opened = [Rows.open(dictionary_folder(Path(folder), i), records[i]) for i in (pair.later, pair.earlier)]
            later, earlier = (np.array(rows.decoder[rows.alive]) for rows in opened)
            yield f"{pair.later.partition('/')[2]} ← {pair.earlier.partition('/')[2]}", later, earlier


def falling(n: int, d: int) -> Iterator[Pair]:
    """Random rows whose i-th coordinate has the scale i^−slope; half of the later ones descend from earlier ones."""
    for slope in SLOPES:
        rng = np.random.default_rng(0)
        scale = np.arange(1, d + 1, dtype=np.float32) ** -slope
        earlier, later = (_unit(rng.standard_normal((n, d), dtype=np.float32) * scale) for _ in range(2))
        later[: n // 2] += earlier[rng.permutation(n)[: n // 2]]
        yield f"{n:,}² × {d:,}, slope {slope}", _unit(later), earlier


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def exact(later: Floats, earlier: Floats) -> np.ndarray:
    """Median and 95 % quantile of the null: all later rows, flipped along all eigenvectors."""
    rng = np.random.default_rng(1)
    basis = np.linalg.eigh(earlier.T @ earlier)[1]
    best = []
    for _ in range(-(-8192 // len(later))):
        along = later @ basis
        images = (along * rng.choice(np.array([-1, 1], np.float32), along.shape)) @ basis.T
        best += [(images[i : i + 1024] @ earlier.T).max(axis=1) for i in range(0, len(images), 1024)]
    quantiles: np.ndarray = np.quantile(np.concatenate(best), [0.5, 0.95])
    return quantiles


def main() -> None:
    """Compare every pair; print its line."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLE
    worst = 0.0
    for pairs in (trained(source), falling(8192, 2304)):
        for name, later, earlier in pairs:
            null = exact(later, earlier)
            floors = [noise_floor(later, earlier, seed=seed) for seed in range(SEEDS)]
            off = np.array([[f.median, f.q95] for f in floors]) / null - 1
            (median, q95), (spread, spread95) = off.mean(axis=0), off.std(axis=0)
            print(
                f"{name}: median {null[0]:.3f} {median:+.1%} ± {spread:.1%}, "
                f"95 % {null[1]:.3f} {q95:+.1%} ± {spread95:.1%}",
                flush=True,
            )
            worst = max(worst, abs(median), abs(q95))
        print(f"farthest from the null, in the mean over {SEEDS} draws: {worst:.1%}")
        worst = 0.0


if __name__ == "__main__":
    main()

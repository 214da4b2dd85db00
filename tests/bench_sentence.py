"""Which predecessor is the one to take away? On real text, at single tokens, residual layer to residual layer.

python tests/bench_sentence.py ATLAS LATER TEXT [CONTEXTS]     LATER: a residual dictionary, e.g. 10-res-2k

At two tokens of each context of 24 tokens, of four of the later dictionary's features that fire there: every feature
that fires in the stream before it is taken away in a forward pass of its own. Printed are the share of targets that are
gone and the mean share of their activation that goes, for the predecessor of the largest activation × push (no forward
pass), for the best of all, for the best match by cosine where it fires, for the best by cosine of those that fire, and
for one drawn of them; intervals are 95 % of a bootstrap over contexts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.folder.dictionary import Dictionary
from hooked.load import load_model
from hooked.reading import sinks
from hooked.text import read_text, start_token
from queries.occurrence.firing import READ, Firing, points_of
from queries.occurrence.reading import last_block, states
from queries.occurrence.removal import removals
from queries.occurrence.sources import sources_of

LENGTH, TOKENS, TARGETS, FIRST = 24, 2, 4, 8
METHODS = ("activation × push", "best of all", "best match", "best by cosine of those that fire", "drawn")


def main() -> None:
    """Measure and print."""
    place, name, file, *rest = sys.argv[1:]
    rng = np.random.default_rng(0)
    with open_atlas(place) as atlas:
        later = atlas.dictionary(name)
        earlier = next(d for d in sources_of(later, atlas.dictionaries.values()) if d.site == "res")
        model, tokenizer = load_model(later.model_name, device="cpu")
        text = read_text([Path(file)], tokenizer, 40_000)
        number = int(rest[0]) if rest else 60
        rows: list[tuple[int, list[float], float, float]] = []
        started = time.perf_counter()
        for context in rng.choice(len(text.ids) // LENGTH, number, replace=False).tolist():
            part = text.ids[context * LENGTH : (context + 1) * LENGTH].tolist()
            ids = torch.tensor([[start_token(tokenizer), *part]])
            for column in rng.choice(np.arange(FIRST, LENGTH + 1), TOKENS, replace=False).tolist():
                found = tried(atlas, model, ids[:, : column + 1], later, earlier, rng)
                rows += [(context, *each) for each in found]
    print(f"{len(rows)} targets in {number} contexts, {time.perf_counter() - started:.0f} s")
    report(rows)


def tried(
    atlas: Atlas, model: Any, ids: torch.Tensor, later: Dictionary, earlier: Dictionary, rng: np.random.Generator
) -> list[tuple[list[float], float, float]]:
    """Of each target at the last column what goes by each of METHODS, and the predicted and measured share of the
    first."""
    records = {d.id: d for d in (later, earlier)}
    points = points_of(model, later) | points_of(model, earlier)
    seen = states(model, ids, points, last_block(records.values()))

    @cache
    def firing(name: str) -> Firing:
        return Firing.of(atlas, model, records[name], seen, -1)

    here, before = firing(later.id), firing(earlier.id)
    if sinks(seen[later.id, READ], torch.ones(ids.shape, dtype=torch.bool))[0, -1] or not len(before.active):
        return []
    targets = rng.permutation(here.active)[:TARGETS].tolist()
    pairs = [((later.id, int(j)), (earlier.id, int(i))) for j in targets for i in before.active]
    measured = removals(model, ids, records, pairs, firing)
    units = before.rows.decoder[before.active].astype(np.float64)
    found = []
    for j in targets:
        weights, bias = here.encoder.affine(here.read, [j])
        z = float(weights[0] @ here.read.double() + bias[0])
        given = (before.writes @ weights[0]).numpy()
        gone = np.array([1 - measured[(later.id, int(j)), (earlier.id, int(i))]["left"] for i in before.active])
        cosine = units @ here.rows.decoder[j].astype(np.float64)
        every = np.asarray(before.rows.decoder @ here.rows.decoder[j])
        match = np.flatnonzero(before.active == int(every.argmax()))
        best = int(given.argmax())
        values = [gone[best], gone.max(), gone[match[0]] if len(match) else np.nan, gone[int(cosine.argmax())]]
        fall = measured[(later.id, int(j)), (earlier.id, int(before.active[best]))]["measured"]
        found.append(([*map(float, values), float(rng.choice(gone))], float(given[best] / z), fall / z))
    return found


def report(rows: list[tuple[int, list[float], float, float]]) -> None:
    """One line a method, then how well a share tells what is measured."""
    contexts = np.array([row[0] for row in rows])
    for place, method in enumerate(METHODS):
        change = np.array([row[1][place] for row in rows])
        gone = np.where(np.isnan(change), np.nan, change > 1 - 1e-6)
        shown = [
            f"{np.nanmean(v):.3f} [{low:.3f}, {high:.3f}]"
            for v in (gone, change)
            for low, high in [spread(v, contexts)]
        ]
        print(f"{method:<34} {np.isfinite(change).sum():>5} targets  gone {shown[0]}  change {shown[1]}")
    predicted, measured = (np.array([row[place] for row in rows]) for place in (2, 3))
    print(
        f"share of the first: predicted {predicted.mean():.3f}, measured {measured.mean():.3f}, "
        f"correlation {np.corrcoef(predicted, measured)[0, 1]:.3f}"
    )


def spread(values: np.ndarray, contexts: np.ndarray) -> tuple[float, float]:
    """95 % of the mean over contexts drawn with replacement."""
    rng, names = np.random.default_rng(1), np.unique(contexts)
    places = {name: np.flatnonzero(contexts == name) for name in names}
    mean: Callable[[], float] = lambda: float(  # noqa: E731
        np.nanmean(values[np.concatenate([places[name] for name in rng.choice(names, len(names))])])
    )
    low, high = np.quantile([mean() for _ in range(1000)], [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()

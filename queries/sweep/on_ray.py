"""Batches of a sweep made on a Ray cluster; the driver alone writes them.

A worker opens the same atlas, by its address, loads the model once, and makes the texts that this machine would: each
draws its own random numbers. Logits differ in their last bits between kinds of machines, so texts may, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from atlas.cluster import Cluster, Shared
from queries.sweep.arms import Plans
from queries.sweep.design import Design
from queries.sweep.running import Sweep
from queries.workers import worker_atlas, worker_model

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.sweep.streams import Streams
    from queries.sweep.trials import Batch, Trial

_HELD: dict[tuple[Shared, str], Sweep] = {}  # this worker process' own, by atlas and design


def made_on_ray(
    there: Cluster, atlas: Atlas, design: Design, batches: Sequence[Batch], streams: Streams | None
) -> Iterator[tuple[Batch, list[Trial]]]:
    """Batches with their trials, as they are done.

    atlas: nodes find it at the same address. streams: the unsteered model's; None for unsteered batches.
    Raises ClusterError within `cluster`; what a worker raises, as it is.
    """
    shared = Shared.of(atlas)
    tasks = {place: (shared, design, batch, streams) for place, batch in enumerate(batches)}
    for place, trials in there.results(trials_of, tasks):
        yield batches[place], trials


def trials_of(shared: Shared, design: Design, batch: Batch, streams: Streams | None, gpu: bool) -> list[Trial]:
    """A task: one batch. Raises ClusterError where the atlas there is another."""
    key = (shared, design.key)
    if key not in _HELD:
        atlas = worker_atlas(shared)
        _HELD[key] = Sweep(atlas, *worker_model(design.model, gpu), design)
    sweep, plan = _HELD[key], None
    if streams is not None:
        plan = Plans(sweep.atlas, design, sweep.chain, streams).plan(batch.cell, batch.draw)
    return sweep.trials(batch, plan, design.max_new_tokens)

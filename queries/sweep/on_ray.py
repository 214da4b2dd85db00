"""Batches of a sweep made on a Ray cluster; the driver alone writes them.

A worker opens the same atlas, by its address, loads the model once, and makes the texts that this machine would: each
draws its own random numbers. Logits differ in their last bits between kinds of machines, so texts may, too.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from atlas.cluster import Cluster, shared_address
from atlas.errors import ClusterError
from queries.sweep.arms import Plans
from queries.sweep.design import Design
from queries.sweep.running import Sweep

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.sweep.streams import Streams
    from queries.sweep.trials import Batch, Trial

_HELD: dict[tuple[str, str], Sweep] = {}  # this worker process' own, by atlas and design


def made_on_ray(
    there: Cluster, atlas: Atlas, design: Design, batches: Sequence[Batch], streams: Streams | None
) -> Iterator[tuple[Batch, list[Trial]]]:
    """Batches with their trials, as they are done.

    atlas: nodes find it at the same address. streams: the unsteered model's; None for unsteered batches.
    Raises ClusterError within `cluster`; what a worker raises, as it is.
    """
    tasks = {place: (shared_address(atlas), design, batch, streams) for place, batch in enumerate(batches)}
    for place, trials in there.results(trials_of, tasks):
        yield batches[place], trials


def trials_of(atlas: str, design: Design, batch: Batch, streams: Streams | None, gpu: bool) -> list[Trial]:
    """A task: one batch. Raises ClusterError where the atlas there is another."""
    sweep = _HELD.get((atlas, design.key))
    if sweep is None:
        sweep = _HELD[atlas, design.key] = _opened(atlas, design, gpu)
    plan = None
    if batch.cell.strength is not None and streams is not None:
        plan = Plans(sweep.atlas, design, sweep.chain, streams).plan(batch.cell, batch.draw)
    return sweep.trials(batch, plan, design.max_new_tokens)


def _opened(address: str, design: Design, gpu: bool) -> Sweep:
    from atlas.atlas import open_atlas
    from hooked.load import load_model

    atlas = open_atlas(address)
    found = {"id": atlas.manifest.id, "state": atlas.manifest.state}
    if found != dict(design.atlas):
        raise ClusterError(f"{socket.gethostname()} finds another atlas at {address}: give all nodes the same one")
    model, tokenizer = load_model(design.model, device="cuda:0" if gpu else "cpu")
    return Sweep(atlas, model, tokenizer, design)

"""Pairs of dictionaries matched and staged, one by one: the unit of work of an ingest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.cli.progress import Advance, Progress
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.matches import Pair, file_name, name_without_push, unmeasured_name, write
from atlas.folder.paths import matches_file
from atlas.folder.rows_cache import open_rows
from atlas.ids import RES
from ingest.matching.pushed import add_push, has_rows, with_push

if TYPE_CHECKING:
    from ingest.matching.blocks import UnitRows
    from ingest.matching.gpu import Device

UNDER_WAY = 8  # pairs at once for each GPU: what a core does for a pair takes as long as an H100 takes for several
_OPEN = 32  # dictionaries that stay open


def staged_name(pair: Pair, records: dict[str, Dictionary]) -> str:
    """Name of the pair's staged file."""
    return file_name(pair, records[pair.later], records[pair.earlier])


def stage_missing(
    folder: Path,
    records: dict[str, Dictionary],
    pairs: Iterable[Pair],
    device: str,
    progress: Progress,
    known: Collection[str] = (),
    elsewhere: Callable[[Mapping[str, Pair]], None] | None = None,
) -> tuple[tuple[str, ...], int]:
    """Stage those of the pairs that are not staged; the names of all, and how many were matched now.

    pairs: of these dictionaries (ingest.matching.pairs).
    known: names that the manifest has; those of them with figures of a text stand for the plain ones.
    elsewhere: stages the missing ones, by the names of their files, in place of this machine (ingest.shards.on_ray).
    """
    from ingest.matching.matching import open_gpus

    names: list[str] = []
    missing: dict[str, Pair] = {}
    older: dict[str, tuple[str, Pair]] = {}
    measured = {unmeasured_name(name): name for name in known if matches_file(folder, name).exists()}
    for pair in pairs:
        name, without = staged_name(pair, records), name_without_push(pair, records[pair.later], records[pair.earlier])
        name = measured.get(name, name)
        # A name carries the digest of all that the content depends on, so a file that exists need not be looked into.
        if not matches_file(folder, name).exists():
            if not matches_file(folder, without).exists():
                missing[name] = pair
            elif has_rows(folder, pair, records):
                older[name] = without, pair
            else:  # rows would have to be fetched for it: its edges stay without a push
                name = without
        names.append(name)
    if missing and elsewhere is not None:
        elsewhere(missing)
    else:
        work = sum(records[p.later].d_sae * records[p.earlier].d_sae for p in missing.values())
        with progress.work("matching", len(missing), work) as advance:
            if missing:
                stage = Stage(folder, records, advance)
                gpus = open_gpus(device)
                stage.on_gpus(missing, gpus) if gpus else stage.on_cpu(missing)
    with progress.steps("push", len(older), "pairs") as step:
        for name, (without, pair) in older.items():
            add_push(folder, name, without, pair, records)
            step(1)
    return tuple(names), len(missing)


class Stage:
    """Pairs matched, measured and written."""

    def __init__(self, folder: Path, records: dict[str, Dictionary], advance: Advance) -> None:
        self._folder, self._records, self._advance = folder, records, advance
        self._telling, self._opening = threading.Lock(), threading.Lock()
        # Kept open, since neighbouring pairs share them, and a GPU knows by identity what lies on it.
        self._checked = lru_cache(maxsize=_OPEN)(self._open)

    def on_cpu(self, pairs: dict[str, Pair]) -> None:
        """Stage these, by the names of their files: one after the other, since a product takes every core."""
        for name, pair in pairs.items():
            self._one(name, pair, None)

    def on_gpus(self, pairs: dict[str, Pair], gpus: list[Device]) -> None:
        """Stage these, cut into stretches of neighbours, one a GPU.

        A few pairs of each are under way: one on the GPU, while the rows of the next are checked, and noise floors and
        files of those before are made.
        """
        named, step = list(pairs.items()), -(-len(pairs) // len(gpus))
        pools = [ThreadPoolExecutor(UNDER_WAY) for _ in gpus]
        try:
            tasks = [
                pools[place // step].submit(self._one, name, pair, gpus[place // step])
                for place, (name, pair) in enumerate(named)
            ]
            for task in as_completed(tasks):
                task.result()
        finally:
            # After a failure or an interruption nothing more begins; what is under way ends within seconds.
            for pool in pools:
                pool.shutdown(cancel_futures=True)
            for gpu in gpus:
                gpu.clear()

    def _one(self, name: str, pair: Pair, gpu: Device | None) -> None:
        """Match a pair, measure its noise floor, write `matches/{name}`."""
        import pyarrow as pa

        from ingest.matching.floor import noise_floor
        from ingest.matching.matching import match_rows

        (later, later_rows), (earlier, earlier_rows) = self.opened(pair.later), self.opened(pair.earlier)
        rows = later_rows, earlier_rows
        matches = match_rows(*rows, pair.k, gpu, self._tell)
        floor = noise_floor(*rows)
        table = pa.table(
            {
                "later": matches.later,
                "earlier": matches.earlier,
                "similarity": matches.similarity,
                "rank": pa.array(matches.rank, mask=matches.rank < 0),
                "forward_rank": pa.array(matches.forward_rank, mask=matches.forward_rank < 0),
            }
        )
        staged = replace(pair, edges=len(table), floor=floor.q95, floor_median=floor.median)
        table = with_push(table, (self._records[pair.later], later), (self._records[pair.earlier], earlier))
        write(matches_file(self._folder, name), staged, table)
        self._tell(0)

    def opened(self, id_: str) -> tuple[Rows, UnitRows]:
        """A dictionary's rows, checked; the same ones to all pairs under way: a file mapped anew is read anew."""
        with self._opening:
            return self._checked(id_)

    def _open(self, id_: str) -> tuple[Rows, UnitRows]:
        from ingest.matching.blocks import UnitRows

        record = self._records[id_]
        opened = open_rows(self._folder, record)
        # A flipped bit would become matches whose name says that they are those of the right rows.
        opened.check(record)
        if record.site == RES:  # only these are the later ones of a pair, whose encoders a push is made of
            opened.check(record, encoder=True)
        return opened, UnitRows.of(opened.decoder, opened.alive)

    def _tell(self, products: int) -> None:
        with self._telling:
            self._advance(products)

"""Pairs of dictionaries matched and staged, one by one: the unit of work of an ingest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.cli.progress import Advance, Progress
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.matches import Pair, file_name, name_without_push, read_pair, read_table, write
from atlas.folder.paths import DECODER, dictionary_folder, matches_file
from atlas.folder.rows_cache import open_rows
from hooked.direct_path import push
from ingest.matching.pairs import plan_pairs

if TYPE_CHECKING:
    import pyarrow as pa


def stage_missing(
    folder: Path, records: dict[str, Dictionary], k: int, device: str, progress: Progress
) -> tuple[tuple[str, ...], int]:
    """Stage every pair of these dictionaries that is not staged; the names of all, and how many were matched now."""
    names: list[str] = []
    missing: dict[str, Pair] = {}
    older: dict[str, tuple[Pair, str]] = {}
    for pair in plan_pairs(records.values(), k):
        ends = records[pair.later], records[pair.earlier]
        name, without_push = file_name(pair, *ends), name_without_push(pair, *ends)
        # A name carries the digest of all that the content depends on, so a file that exists need not be looked into.
        if not matches_file(folder, name).exists():
            if not matches_file(folder, without_push).exists():
                missing[name] = pair
            elif all((dictionary_folder(folder, d.id) / DECODER).exists() for d in ends):
                older[name] = pair, without_push
            else:  # without rows, which would have to be fetched, its edges stay without a push
                name = without_push
        names.append(name)
    work = sum(records[p.later].d_sae * records[p.earlier].d_sae for p in missing.values())
    with progress.work("matching", len(missing), work) as advance:
        for name, pair in missing.items():
            stage_pair(folder, name, pair, records, device, advance)
    with progress.steps("push", len(older), "pairs") as advance:
        for name, (pair, there) in older.items():
            _add_push(folder, name, pair, there, records)
            advance(1)
    return tuple(names), len(missing)


def stage_pair(
    folder: Path, name: str, pair: Pair, records: dict[str, Dictionary], device: str, advance: Advance
) -> Pair:
    """Match a pair, measure its noise floor, write `matches/{name}`; returns the pair with its figures."""
    import pyarrow as pa

    from ingest.matching.blocks import UnitRows
    from ingest.matching.floor import noise_floor
    from ingest.matching.matching import match

    later, earlier = _opened(folder, pair, records)
    rows = UnitRows.of(later.decoder, later.alive), UnitRows.of(earlier.decoder, earlier.alive)
    matches = match(*rows, pair.k, device=device, progress=advance)
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
    write(matches_file(folder, name), staged, _with_push(table, pair, records, later, earlier))
    advance(0)
    return staged


def _add_push(folder: Path, name: str, pair: Pair, there: str, records: dict[str, Dictionary]) -> None:
    """Stage anew what was staged without a push."""
    path = matches_file(folder, there)
    table = _with_push(read_table(path), pair, records, *_opened(folder, pair, records))
    write(matches_file(folder, name), read_pair(path), table)


def _opened(folder: Path, pair: Pair, records: dict[str, Dictionary]) -> tuple[Rows, Rows]:
    """The rows of the later and the earlier dictionary; raises CorruptAtlas."""
    later, earlier = (open_rows(folder, records[id_]) for id_ in (pair.later, pair.earlier))
    # A flipped bit would become edges whose name says that they are those of the right rows.
    later.check(records[pair.later])
    later.check(records[pair.later], encoder=True)
    earlier.check(records[pair.earlier])
    return later, earlier


def _with_push(table: pa.Table, pair: Pair, records: dict[str, Dictionary], later: Rows, earlier: Rows) -> pa.Table:
    """The matches with each edge's push, where the two dictionaries have one."""
    import pyarrow as pa

    b, a = (table[end].to_numpy() for end in ("later", "earlier"))
    found = push((records[pair.later], later), (records[pair.earlier], earlier), b, a)
    return table if found is None else table.append_column("push", pa.array(found))

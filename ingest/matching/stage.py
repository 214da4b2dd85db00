"""Pairs of dictionaries matched and staged, one by one: the unit of work of an ingest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atlas.cli.progress import Advance, Progress
from atlas.folder.dictionary import Dictionary
from atlas.folder.matches import Pair, file_name, write
from atlas.folder.paths import matches_file
from atlas.folder.rows_cache import open_rows
from ingest.matching.pairs import plan_pairs


def staged_name(pair: Pair, records: dict[str, Dictionary]) -> str:
    """Name of the pair's staged file."""
    return file_name(pair, records[pair.later], records[pair.earlier])


def stage_missing(
    folder: Path, records: dict[str, Dictionary], k: int, device: str, progress: Progress
) -> tuple[tuple[str, ...], int]:
    """Stage every pair of these dictionaries that is not staged; the names of all, and how many were matched now."""
    # A name carries the digest of all that the content depends on, so a file that exists need not be looked into.
    names = {staged_name(pair, records): pair for pair in plan_pairs(records.values(), k)}
    missing = {name: pair for name, pair in names.items() if not matches_file(folder, name).exists()}
    work = sum(records[p.later].d_sae * records[p.earlier].d_sae for p in missing.values())
    with progress.work("matching", len(missing), work) as advance:
        for name, pair in missing.items():
            stage_pair(folder, name, pair, records, device, advance)
    return tuple(names), len(missing)


def stage_pair(
    folder: Path, name: str, pair: Pair, records: dict[str, Dictionary], device: str, advance: Advance
) -> Pair:
    """Match a pair, measure its noise floor, write `matches/{name}`; returns the pair with its figures."""
    import pyarrow as pa

    from ingest.matching.blocks import UnitRows
    from ingest.matching.floor import noise_floor
    from ingest.matching.matching import match

    later, earlier = (open_rows(folder, records[id_]) for id_ in (pair.later, pair.earlier))
    # A flipped bit would become matches whose name says that they are those of the right rows.
    for opened, id_ in ((later, pair.later), (earlier, pair.earlier)):
        opened.check(records[id_])
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
    write(matches_file(folder, name), staged, table)
    advance(0)
    return staged

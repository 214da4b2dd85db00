"""Push on staged matches: with those that are matched now, and added to those that were staged before edges had one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.matches import Pair, read_pair, read_table, write
from atlas.folder.paths import DECODER, dictionary_folder, matches_file
from atlas.folder.rows_cache import open_rows
from hooked.direct_path import push

if TYPE_CHECKING:
    import pyarrow as pa


def with_push(table: pa.Table, later: tuple[Dictionary, Rows], earlier: tuple[Dictionary, Rows]) -> pa.Table:
    """The matches with each edge's push, where the two dictionaries, whose rows were checked, have one."""
    import pyarrow as pa

    b, a = (table[end].to_numpy() for end in ("later", "earlier"))
    found = push(later, earlier, b, a)
    return table if found is None else table.append_column("push", pa.array(found))


def add_push(folder: Path, name: str, without: str, pair: Pair, records: dict[str, Dictionary]) -> None:
    """Stage as `matches/{name}` what `matches/{without}` holds, with its push; raises CorruptAtlas."""
    path = matches_file(folder, without)
    later, earlier = ((records[id_], open_rows(folder, records[id_])) for id_ in (pair.later, pair.earlier))
    earlier[1].check(earlier[0])
    later[1].check(later[0], encoder=True)
    write(matches_file(folder, name), read_pair(path), with_push(read_table(path), later, earlier))


def has_rows(folder: Path, pair: Pair, records: dict[str, Dictionary]) -> bool:
    """Whether the folder has both dictionaries' rows, so that nothing need be fetched."""
    return all((dictionary_folder(folder, records[id_].id) / DECODER).exists() for id_ in (pair.later, pair.earlier))

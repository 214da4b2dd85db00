"""Staged matches: one Parquet file a pair of dictionaries. Checkpoint, bulk-load source and unit of work at once.

Columns: `later`, `earlier` int32 (row indices), `similarity` float32, `rank`, `forward_rank` int32 (null outside that
side's top k), and those of `atlas.schema.EDGE_FIGURES` that were computed, float64 or int64. The file's metadata hold
what is true of the pair; its pages and they have checksums, which are looked at whenever it is read. Its name carries a
digest of everything that the content depends on, so a file that exists is the right one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import CorruptAtlas
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import replacing
from atlas.schema import EDGE_FIGURES

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2  # of the matching's definition: raise it when the same inputs would give other edges or floors
PUSH = 1  # of push's definition (hooked.direct_path)
EDGE_KINDS = ("edges", "effects")  # of measurements on edges, as the manifest records them (queries.evidence)
_KEY, _DIGEST = b"feature-atlas", b"feature-atlas-sha256"
_COLUMNS = ("later", "earlier", "similarity", "rank", "forward_rank")


@dataclass(frozen=True)
class Pair:
    """Two dictionaries to be matched, and what became of it."""

    later: str  # dictionary id
    earlier: str
    type: str  # edge type, by the earlier dictionary's site
    gap: int  # layers between them; 0 within a block
    k: int  # matches kept on each side
    edges: int = 0
    floor: float | None = None  # 95 % quantile of the null's best matches (noise floor)
    floor_median: float | None = None
    fires_with: int = 0  # edges FIRES_WITH, which stand in the same file: rows without either rank


def file_name(pair: Pair, later: Dictionary, earlier: Dictionary) -> str:
    """Name of the pair's file in matches/: readable, and keyed by both contents, k and the code's versions."""
    # Encoders and norms too: dictionaries with the same decoder rows may differ in them.
    return _named(pair, f"{_matched_with(pair, later, earlier)} {later.sha256} {earlier.sha256} {PUSH}")


def name_without_push(pair: Pair, later: Dictionary, earlier: Dictionary) -> str:
    """The same of matches that were staged before edges had a push."""
    return _named(pair, _matched_with(pair, later, earlier))


def _matched_with(pair: Pair, later: Dictionary, earlier: Dictionary) -> str:
    return f"{later.rows_sha256} {earlier.rows_sha256} {pair.k} {VERSION}"


def _named(pair: Pair, key: str) -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return f"{pair.later}--{pair.earlier}--{digest}.parquet".replace("/", "~")


def write(path: Path, pair: Pair, table: pa.Table) -> None:
    """Stage a pair's table, atomically."""
    import pyarrow.parquet as pq

    text = json.dumps(asdict(pair)).encode()
    # Checksums of pages do not cover the metadata, so the record has a digest of its own.
    table = table.replace_schema_metadata({_KEY: text, _DIGEST: hashlib.sha256(text).hexdigest().encode()})
    with replacing(path) as temporary:
        # Rows and cosines hardly repeat: without dictionaries of them it is half the time and two thirds of the bytes.
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False, write_page_checksum=True)


def read_pair(path: Path) -> Pair:
    """What the staged file says of its pair, without reading its rows; raises CorruptAtlas."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
        text = metadata[_KEY]
        if _DIGEST in metadata and hashlib.sha256(text).hexdigest().encode() != metadata[_DIGEST]:
            raise ValueError("its record has changed since it was written")
        values: dict[str, Any] = json.loads(text)
        return Pair(**values)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise CorruptAtlas(f"{path} is missing or damaged ({error}); delete it and ingest again") from None


def staged_table(edges: pa.Table) -> pa.Table:
    """The columns of edges between features (atlas.graph.tables) as they are staged."""
    import pyarrow as pa

    kinds = {"similarity": pa.float32(), **dict.fromkeys(("later", "earlier", "rank", "forward_rank"), pa.int32())}
    columns = {name: edges[name].cast(kinds[name]) for name in _COLUMNS}
    return pa.table(columns | {name: edges[name] for name in _figures(edges) if edges[name].null_count < len(edges)})


def edge_table(staged: pa.Table, gap: int) -> pa.Table:
    """Staged rows as edges between features, whose gap is the pair's."""
    import pyarrow as pa

    gaps = pa.repeat(pa.scalar(gap, pa.int64()), len(staged))
    return staged.select([*_COLUMNS, *_figures(staged)]).append_column("gap", gaps)


def split(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The matches of a staged file or of its edges, and what its features fire with: the rows without either rank."""
    import pyarrow.compute as pc

    unranked = pc.and_(pc.is_null(table["rank"]), pc.is_null(table["forward_rank"]))
    return table.filter(pc.invert(unranked)), table.filter(unranked)


def measured_name(name: str, table: pa.Table) -> str:
    """Name of a pair's file once figures of a text stand in it, made from its content; `name` may be such a one."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    digest = hashlib.sha256(sink.getvalue()).hexdigest()[:16]
    return f"{unmeasured_name(name).removesuffix('.parquet')}+{digest}.parquet"


def unmeasured_name(name: str) -> str:
    """Name of the same pair's file as an ingest stages it."""
    stem, plus, _ = name.rpartition("+")
    return f"{stem}.parquet" if plus else name


def _figures(table: pa.Table) -> list[str]:
    return [name for name in EDGE_FIGURES if name in table.column_names]


def read_table(path: Path) -> pa.Table:
    """The staged rows; raises CorruptAtlas where they cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Checksums are not looked at unless asked for; a flipped bit would become an edge.
        return pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise CorruptAtlas(f"{path} is missing or damaged ({error}); delete it and ingest again") from None

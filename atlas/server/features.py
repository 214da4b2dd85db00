"""Features merged into a Neo4j database by their ids, a dictionary at a time.

A dictionary's node keeps the digest of the table that its features were written from: where it is still the same they
are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from atlas.graph.tables import conform
from atlas.schema import DICTIONARY, FEATURE
from atlas.server.lock import Claim

if TYPE_CHECKING:
    import pyarrow as pa

WORKERS = 2
CHUNK = 2_000  # features of one transaction

DIGESTS = f"MATCH (d:{DICTIONARY}) RETURN d.id AS id, d.digest AS digest"
# Vectors go with the features that are written anew (atlas.server.extras).
SET_DIGEST = f"""
MATCH (d:{DICTIONARY} {{id: $id}})
SET d.digest = $digest, d.vectors = CASE WHEN $digest IS NULL THEN null ELSE d.vectors END
"""
MERGE_FEATURES = f"UNWIND $rows AS row MERGE (f:{FEATURE} {{id: row.id}}) SET f = row"
DELETE_FEATURES = f"""
MATCH (f:{FEATURE} {{dictionary: $id}}) WHERE f.`index` >= $start
WITH f LIMIT $limit DETACH DELETE f RETURN count(*) AS n
"""


def remove_features(claim: Claim, kept: Collection[str]) -> None:
    """Remove the features of every dictionary but these."""
    for row in claim.run(DIGESTS):
        if row["id"] not in kept:
            claim.run(SET_DIGEST, id=row["id"], digest=None)
            claim.until_none(DELETE_FEATURES, id=row["id"], start=0)


def write_features(claim: Claim, tables: Iterable[pa.Table], advance: Callable[[int], None]) -> None:
    """Merge the features of every dictionary whose table has changed since it was last written whole."""
    digests = {row["id"]: row["digest"] for row in claim.run(DIGESTS)}

    def merge(chunk: pa.Table) -> None:
        claim.run(MERGE_FEATURES, rows=chunk.to_pylist())
        advance(len(chunk))

    with ThreadPoolExecutor(WORKERS) as pool:
        for table in tables:
            table = conform(FEATURE, table)
            (id_,) = table["dictionary"].unique().to_pylist()
            digest = _digest(table)
            if digests.get(id_) == digest:
                advance(len(table))
                continue
            if digests.get(id_) is not None:
                claim.run(SET_DIGEST, id=id_, digest=None)  # broken off now, they are neither the old nor the new
            # To the end: a chunk's error is raised only where its result is taken.
            for _ in pool.map(merge, [table.slice(at, CHUNK) for at in range(0, len(table), CHUNK)]):
                pass
            # Those of a wider dictionary of the same id, whose write was broken off.
            claim.until_none(DELETE_FEATURES, id=id_, start=len(table))
            claim.run(SET_DIGEST, id=id_, digest=digest)


def _digest(table: pa.Table) -> str:
    """SHA-256 of a table's content."""
    import pyarrow as pa

    class Sink:
        closed = False

        def write(self, data: Any) -> int:
            digest.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    digest = hashlib.sha256()
    with pa.ipc.new_stream(Sink(), table.schema) as stream:
        # As one chunk: the bytes would depend on how the table happens to be cut.
        stream.write_table(table.combine_chunks())
    return digest.hexdigest()

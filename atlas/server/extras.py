"""What a copy on a server may have besides the graph, where it was asked for: a dress for people who look with Neo4j
Browser or Bloom, and decoder rows with an index that finds the nearest.

Neither is part of the graph: digests, questions and copies back pass them over. A dictionary's node says which rows its
features' vectors are of (`vectors`), so that vectors of other rows are never taken for its own; a later write of the
graph takes the vectors away with the features that it changes, and the same command puts them there again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from atlas.errors import StoreError
from atlas.ids import ATT, MLP, RES
from atlas.schema import DICTIONARY, FEATURE, MODEL
from atlas.server.lock import Claim

if TYPE_CHECKING:
    from atlas.folder.dictionary import Dictionary, Rows

INDEX = "feature_vectors"
SECOND = {RES: "Res", MLP: "Mlp", ATT: "Att"}  # second labels of features
CHUNK = 2_000  # features of one transaction
AWAIT = 3_600  # seconds that the index may take to be populated

_DRESS = """
MATCH (f:Feature {{dictionary: $id}}) WHERE f.index >= $start AND f.index < $end
MATCH (d:Dictionary {{id: $id}})
MERGE (f)-[:IN]->(d) SET f:{label}
"""
_MODELS = f"MATCH (d:{DICTIONARY}) MATCH (m:{MODEL} {{id: d.model}}) MERGE (d)-[:OF]->(m)"
_VECTORS = f"""
UNWIND $rows AS row MATCH (f:{FEATURE} {{id: row.id}})
CALL db.create.setNodeVectorProperty(f, 'vector', row.vector)
"""
_THERE = f"MATCH (d:{DICTIONARY}) RETURN d.id AS id, d.vectors AS vectors"
_DONE = f"MATCH (d:{DICTIONARY} {{id: $id}}) SET d.vectors = $rows"
_OPTIONS = f"SHOW INDEXES YIELD name, options WHERE name = '{INDEX}' RETURN options"


def dress(claim: Claim, records: Iterable[Dictionary], advance: Callable[[int], None]) -> None:
    """Give features a second label by their site, and edges IN to their dictionaries, which get OF to their models.

    May be repeated. `advance` is called with the number of features dressed since the last call.
    """
    claim.run(_MODELS)
    for record in records:
        statement = _DRESS.format(label=SECOND[record.site])
        for start in range(0, record.d_sae, CHUNK):
            claim.run(statement, id=record.id, start=start, end=start + CHUNK)
            advance(min(CHUNK, record.d_sae - start))


def write_vectors(
    claim: Claim, records: Iterable[Dictionary], rows_of: Callable[[str], Rows], advance: Callable[[int], None]
) -> None:
    """Write unit decoder rows, float32 [d_model], to living features, under a cosine index that rounds nothing.

    What is there already is left; broken off, the same call goes on with the dictionary that was not whole. Raises
    StoreError where dictionaries are of several widths, or the server is too old for vector indexes.
    """
    records = list(records)
    widths = sorted({record.d_model for record in records})
    if len(widths) != 1:
        raise StoreError(f"one index holds vectors of one width, and these dictionaries have {widths}: copy them apart")
    _index(claim, widths[0])
    there = {row["id"]: row["vectors"] for row in claim.run(_THERE)}
    for record in records:
        if there.get(record.id) != record.rows_sha256:
            rows = rows_of(record.id)
            rows.check(record)
            for start in range(0, record.d_sae, CHUNK):
                claim.run(_VECTORS, rows=_chunk(record.id, rows, start))
                advance(min(CHUNK, record.d_sae - start))
            claim.run(_DONE, id=record.id, rows=record.rows_sha256)
        else:
            advance(record.d_sae)
    claim.connection.run("CALL db.awaitIndexes($seconds)", {"seconds": AWAIT})


def _chunk(dictionary: str, rows: Rows, start: int) -> list[dict[str, Any]]:
    # A dead feature has no direction, and no cosine with anything.
    places = [start + int(i) for i in rows.alive[start : start + CHUNK].nonzero()[0]]
    vectors = rows.decoder[places].tolist()
    return [{"id": f"{dictionary}/{i}", "vector": vector} for i, vector in zip(places, vectors, strict=True)]


def _index(claim: Claim, width: int) -> None:
    wanted = {"vector.dimensions": width, "vector.quantization.enabled": False}
    for row in claim.connection.run(_OPTIONS):
        there = row["options"]["indexConfig"]
        if {name: there.get(name) for name in wanted} == wanted:
            return
        claim.connection.run(f"DROP INDEX {INDEX}")
    # The width is a number of ours: options take no parameter in every version.
    claim.connection.run(
        f"CREATE VECTOR INDEX {INDEX} IF NOT EXISTS FOR (f:{FEATURE}) ON (f.vector) OPTIONS {{indexConfig: {{"
        f"`vector.dimensions`: {width}, `vector.similarity_function`: 'cosine', "
        "`vector.quantization.enabled`: false}}"
    )

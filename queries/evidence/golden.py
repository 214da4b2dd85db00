"""The graph that the paper prints (Table 5), against an atlas of Gemma Scope: does ours find the same features?

From the seed's residual feature back to layer 0, each step the best match by cosine; forward to the next layer, the
best match seen from the earlier feature; at every layer the best MLP match of at least MIN_MLP. Walked along the
printed features, so that one that differs does not carry all others with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.rows import Rows

if TYPE_CHECKING:
    from atlas.atlas import Atlas

MODEL = "gemma-2-2b"
SEED_LAYER = 24
MIN_MLP = 0.25
RES = (
    *(14403, 13755, 12939, 16138, 11935, 14558, 2452, 16335, 9666, 8318, 13754, 7614, 2812),
    *(4955, 5262, 9388, 10649, 8130, 11987, 15694, 12523, 14511, 11460, 9592, 14548, 1646),
)
MLP = {0: 12987, 1: 16168, 7: 6110, 17: 8454, 20: 601, 21: 594, 22: 14728, 23: 6936, 24: 11342}
SCORES = {(7, "res"): 0.3, (7, "mlp"): 0.82, (17, "res"): 0.48, (17, "mlp"): 0.79}  # two features' s(R) and s(M)
COLUMNS = ("layer", "site", "printed", "found", "same", "similarity", "printed_similarity", "close")
# Half of the last digit that is printed, and what rounding in bfloat16 may add.
TOLERANCE = 0.01

BACK = """
MATCH (b:Feature {id: $id})-[r:FROM_RES|FROM_MLP {rank: 0}]->(a:Feature)
WHERE a.dictionary = $earlier
RETURN a.`index` AS found, r.similarity AS similarity
ORDER BY similarity DESC LIMIT 1
"""
FORWARD = """
MATCH (b:Feature)-[r:FROM_RES {forward_rank: 0}]->(a:Feature {id: $id})
WHERE b.dictionary = $later
RETURN b.`index` AS found, r.similarity AS similarity
ORDER BY similarity DESC LIMIT 1
"""
Row = dict[str, Any]


def golden(atlas: Atlas) -> Rows:
    """A row for each printed feature whose layer the atlas holds, and for each MLP match found where none is printed.

    `same`: whether the feature found is the printed one; `close`: whether a printed score is met, null where none is.
    Raises QueryError where the atlas has no two neighbouring residual dictionaries of Gemma Scope.

    Example:
        rows = golden(atlas)
        print(sum(row["same"] for row in rows), "of", len(rows))
    """
    held = {(d.layer, d.site): d.id for d in atlas.dictionaries.values() if d.model == MODEL and d.d_sae == 16_384}
    rows = []
    for layer in range(len(RES)):
        if (later := held.get((layer, "res"))) is None:
            continue
        if layer <= SEED_LAYER and (earlier := held.get((layer - 1, "res"))) is not None:
            found = _asked(atlas, BACK, id=f"{later}/{RES[layer]}", earlier=earlier)
            # The edge leads to the feature of the layer before; its score is that of this one.
            rows.append(_row(layer - 1, "res", RES[layer - 1], found, SCORES.get((layer, "res"))))
        if layer > SEED_LAYER and (before := held.get((layer - 1, "res"))) is not None:
            found = _asked(atlas, FORWARD, id=f"{before}/{RES[layer - 1]}", later=later)
            rows.append(_row(layer, "res", RES[layer], found, None))
        if (module := held.get((layer, "mlp"))) is not None:
            found = _asked(atlas, BACK, id=f"{later}/{RES[layer]}", earlier=module)
            if layer in MLP or (found and found["similarity"] >= MIN_MLP):
                rows.append(_row(layer, "mlp", MLP.get(layer), found, SCORES.get((layer, "mlp"))))
    if not rows:
        raise QueryError(
            f"the printed graph is of {MODEL} with Gemma Scope's dictionaries of 16k features, and the atlas holds no "
            "two neighbouring ones; ingest gemma-scope-2b-pt-res-canonical and gemma-scope-2b-pt-mlp-canonical"
        )
    return Rows(sorted(rows, key=lambda row: (row["layer"], row["site"] == "res")), COLUMNS)


def _asked(atlas: Atlas, cypher: str, **ends: str) -> Row | None:
    return next(iter(atlas.read(cypher, **ends)), None)


def _row(layer: int, site: str, printed: int | None, found: Row | None, score: float | None) -> Row:
    index, similarity = (found["found"], found["similarity"]) if found else (None, None)
    # Where none is printed, a match below what is dropped is none either.
    close = None if score is None else similarity is not None and abs(similarity - score) <= 0.005 + TOLERANCE
    values = (layer, site, printed, index, index is not None and index == printed, similarity, score, close)
    return dict(zip(COLUMNS, values, strict=True))

"""A digest of an atlas's edges that every store computes in Cypher alike, to see that two hold the same.

For each pair of dictionaries the store sums, over its edges, a number made of both indices, both ranks and the gap, and
the same number weighted with the cosine to 2⁻²⁰ and with each figure to 2⁻¹⁶, modulo a prime below 2²⁰. All terms are
whole, the weighted ones below 2²⁷, and their sums below 2⁵³ up to 8 million edges a pair, so that no order of summation
changes them. The digest is the SHA-256 of these rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atlas.graph.store import Row, Store
from atlas.graph.stored import PAIRS, types_of
from atlas.schema import EDGE_FIGURES, FEATURE, NODES

ABSENT = 99_991  # stands for a null rank
_PRIME, _NULL = 1048573.0, 777_777.0  # what figures are taken modulo, and what stands for a null one


def _sums(type_: str) -> str:
    # One step a WITH, and no % of floats: both engines then do the same operations on the same doubles.
    whole = ", ".join(f"floor(r.{name} * 65536.0) AS {name}" for name in EDGE_FIGURES)
    rest = ", ".join(f"coalesce({n} - {_PRIME} * floor({n} / {_PRIME}), {_NULL}) AS {n}" for n in EDGE_FIGURES)
    sums = "".join(f", coalesce(sum((edge % 127) * {name}), 0.0) AS {name}" for name in EDGE_FIGURES)
    return f"""
MATCH (b:{FEATURE} {{dictionary: $later}})-[r:{type_}]->(a:{FEATURE} {{dictionary: $earlier}})
WITH (b.`index` * 1000003 + a.`index` * 7919 + coalesce(r.rank, {ABSENT}) * 611953
      + coalesce(r.forward_rank, {ABSENT}) * 350377 + r.gap * 104729) % 1000000007 AS edge,
     floor(r.similarity * 1048576.0) AS cosine, {whole}
WITH edge, cosine, {rest}
RETURN count(*) AS edges, coalesce(sum(edge), 0) AS ends, coalesce(sum((edge % 127) * cosine), 0.0) AS cosines{sums}
"""


@dataclass(frozen=True)
class Digest:
    """What a store holds, in numbers."""

    nodes: dict[str, int]  # by label
    edges: int  # between features
    sha256: str  # of the edges


def digest(store: Store, progress: Callable[[int], Any] | None = None) -> Digest:
    """Count a store's nodes and edges and digest the edges; `progress` is called with 1 for each pair."""
    nodes = {t.label: store.read(f"MATCH (n:{t.label}) RETURN count(*) AS n")[0]["n"] for t in NODES}
    lines, edges = [], 0
    for pair in store.read(PAIRS):
        ends = {"later": pair["later"], "earlier": pair["earlier"]}
        for type_ in types_of(pair):
            (sums,) = store.read(_sums(type_), ends)
            lines.append(_line(pair, sums))
            edges += sums["edges"]
        if progress is not None:
            progress(1)
    # Sorted here, so that nothing hangs on how a store orders text.
    return Digest(nodes, edges, hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest())


def _line(pair: Row, sums: Row) -> str:
    # Sums of whole numbers may come as floats, and JSON would write the same number in two ways.
    figures = [int(sums[name]) for name in ("edges", "ends", "cosines", *EDGE_FIGURES)]
    return json.dumps([pair["later"], pair["earlier"], *figures])

"""Which pairs of an ingest are which shard's: a function of the sources' configurations alone.

The pairs stand in the order of the flow graph, and each shard gets a stretch of it: pairs that share a dictionary stand
beside each other, so a shard reads few. Stretches end where the products of rows that came before them, in all, pass
another Nth, so that shards of equal machines end at about the same time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from atlas.errors import IngestError
from atlas.folder.matches import PUSH, VERSION, Pair
from ingest.matching.pairs import plan_pairs

_SHARD = re.compile(r"([0-9]+)/([0-9]+)")


def read_shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8); raises IngestError where it is none."""
    found = _SHARD.fullmatch(text.strip())
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise IngestError(f"shard {text!r} is not I/N with I from 1 to N, like 2/8")
    return number, count


def shards(pairs: Sequence[Pair], sizes: Mapping[str, int], count: int) -> list[list[Pair]]:
    """The pairs of each of `count` shards; some have none where there are fewer pairs.

    sizes: features of each dictionary, by id.

    Example:
        first, second = shards(plan_pairs(records.values(), k=5), {d.id: d.d_sae for d in records.values()}, 2)
    """
    work = [sizes[pair.later] * sizes[pair.earlier] for pair in pairs]
    total, before = sum(work), 0
    found: list[list[Pair]] = [[] for _ in range(count)]
    for pair, own in zip(pairs, work, strict=True):
        # By its middle: a pair across a border belongs to where more of it is. In whole numbers, on every machine.
        found[min(count - 1, (2 * before + own) * count // (2 * total))].append(pair)
        before += own
    return found


def planned(sources: Sequence[Any], k: int) -> tuple[list[Pair], dict[str, int], str]:
    """Pairs of these sources or records, sizes by id, and the digest of what parts must have in common."""
    pairs = plan_pairs(sources, k)
    sizes = {source.id: int(source.d_sae) for source in sources}
    said = [VERSION, PUSH, k, sorted(sizes.items()), [(pair.later, pair.earlier) for pair in pairs]]
    return pairs, sizes, hashlib.sha256(json.dumps(said).encode()).hexdigest()

"""Wide dictionaries: what a pair of 262,144 rows takes of memory, whichever side is the wide one."""

from __future__ import annotations

import subprocess
import sys

import pytest

N, D, OTHER = 262_144, 64, 4_096
MATCH = """
import resource, sys
import faiss, numpy as np
from ingest.matching.matching import match

def rows(n, seed):
    # Block by block: the arrays are the only large ones.
    made = np.empty((n, {d}), np.float32)
    for start in range(0, n, 8192):
        part = np.random.default_rng([seed, start]).standard_normal(made[start : start + 8192].shape, dtype=np.float32)
        made[start : start + 8192] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return made

later, earlier = (rows(int(n), seed) for seed, n in enumerate(sys.argv[1:3]))
match(later[:2048], earlier[:2048], 5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = match(later, earlier, 5)
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(more, len(found), found.rank.max(), found.forward_rank.max())
"""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(N, OTHER), (OTHER, N)])
def test_memory_stays_within_two_blocks_and_a_gigabyte(sizes: tuple[int, int]) -> None:
    """On top of the rows: two blocks of 2,048 rows and their products are 17 MB, the best few of each row 84 MB."""
    command = [sys.executable, "-c", MATCH.format(d=D), *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    more, edges, rank, forward = map(int, done.stdout.split())
    assert more < 1 << 20  # KiB
    # Each of the wide side's rows has five matches, all of them positive among 4,096 of 64 numbers.
    assert N * 5 <= edges <= (N + OTHER) * 5 and (rank, forward) == (4, 4)

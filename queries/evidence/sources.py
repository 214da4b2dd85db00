"""What the atlas says of the features that a residual dictionary could come from: its matched pairs, ready to rank by.

For each pair the stored edges (matches, and features that it fires with), and ranks of every earlier feature for some
later ones: by cosine, by push (what one unit of the earlier's activation adds to the later's pre-activation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from atlas.atlas import Atlas
from atlas.errors import QueryError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.matches import edge_table, read_table
from atlas.folder.paths import matches_file
from atlas.folder.stored_rows import products
from atlas.graph.stored import StoredGraph
from atlas.ids import RES
from hooked.direct_path import NORMED, reading_rows, why_no_push

TOP_K = 5
MOST_ASSIGNED = 16_384  # rows: the assignment holds their cosines in float64, 2 GB, and takes minutes
NONE = np.iinfo(np.int32).max  # stands for no rank


@dataclass(frozen=True)
class Source:
    """One matched pair of dictionaries."""

    key: str  # of its staged matches
    later: Dictionary
    earlier: Dictionary
    rows: tuple[Rows, Rows]  # of the later and the earlier
    b: np.ndarray  # int64 [n_edges], later features of the stored edges, FIRES_WITH among them
    a: np.ndarray  # int64 [n_edges], earlier features
    rank: np.ndarray  # int64 [n_edges], NONE where there is none
    forward_rank: np.ndarray  # the same, seen from the earlier feature
    similarity: np.ndarray  # float64 [n_edges]
    correlation: np.ndarray  # float64 [n_edges], NaN where it was not measured

    @property
    def measured(self) -> bool:
        """Whether correlations are there."""
        return bool(np.isfinite(self.correlation).any())

    @cached_property
    def best(self) -> np.ndarray:
        """int64 [d_sae later]: the earlier feature with the highest cosine, −1 for none."""
        return self._first(self.rank == 0)

    @cached_property
    def correlated(self) -> np.ndarray:
        """int64 [d_sae later]: the earlier feature with the highest correlation, −1 for none."""
        order = np.lexsort((self.a, -self.correlation))
        order = order[np.isfinite(self.correlation[order]) & (self.correlation[order] > 0)]
        found = np.full(self.later.d_sae, -1)
        # Backwards, so that the highest is written last.
        found[self.b[order][::-1]] = self.a[order][::-1]
        return found

    @cached_property
    def best_cosine(self) -> np.ndarray:
        """float64 [d_sae later]: its cosine, 0 for none."""
        found = np.zeros(self.later.d_sae)
        kept = self.rank == 0
        found[self.b[kept]] = self.similarity[kept]
        return found

    @cached_property
    def permuted(self) -> np.ndarray:
        """int64 [d_sae later]: the earlier feature of the one-to-one matching with the largest sum of cosines.

        −1 for features that get none: dead ones, and those left over where the other dictionary has fewer. Unit rows:
        the largest sum of cosines is the smallest sum of squared distances (arXiv 2410.07656 §3). Raises QueryError
        where a dictionary is too wide.
        """
        from scipy.optimize import linear_sum_assignment

        if max(self.later.d_sae, self.earlier.d_sae) > MOST_ASSIGNED:
            raise QueryError(f"--permutation needs dictionaries of at most {MOST_ASSIGNED:,} features; leave it out")
        living = [np.flatnonzero(rows.alive) for rows in self.rows]
        later, earlier = (rows.decoder[alive] for rows, alive in zip(self.rows, living, strict=True))
        b, a = linear_sum_assignment(later @ earlier.T, maximize=True)
        found = np.full(self.later.d_sae, -1)
        found[living[0][b]] = living[1][a]
        return found

    def firsts(self, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Later features, earlier ones and cosines of the best matches by target, or by source."""
        kept = (self.rank if direction == "target" else self.forward_rank) == 0
        return self.b[kept], self.a[kept], self.similarity[kept]

    def _first(self, kept: np.ndarray) -> np.ndarray:
        found = np.full(self.later.d_sae, -1)
        found[self.b[kept]] = self.a[kept]
        return found

    @cached_property
    def best_five(self) -> dict[int, np.ndarray]:
        """The earlier features of rank below TOP_K, by the later feature."""
        return self._top(TOP_K)

    def _top(self, k: int) -> dict[int, np.ndarray]:
        kept = self.rank < k
        order = np.lexsort((self.rank[kept], self.b[kept]))
        b, a = self.b[kept][order], self.a[kept][order]
        names, starts = np.unique(b, return_index=True)
        return dict(zip(names.tolist(), np.split(a, starts[1:]), strict=True)) if len(names) else {}

    def cosines(self, features: np.ndarray) -> np.ndarray:
        """float32 [n, d_sae earlier]: cosines of these later features with every earlier one."""
        return products(self.rows[0].decoder[features], self.rows[1].decoder)

    def pushes(self, features: np.ndarray) -> np.ndarray | None:
        """float32 [n, d_sae earlier]: push by every earlier feature; None where the pair has none."""
        if why_no_push(self.later, self.earlier) is not None:
            return None
        reading = reading_rows(self.later, self.rows[0], features)
        found: np.ndarray = products(reading, self.rows[1].decoder) * self.rows[1].vectors["norms"]
        return found


def sources(atlas: Atlas) -> list[Source]:
    """The pairs whose later dictionary is of the residual stream and whose earlier one writes plain vectors there."""
    graph = StoredGraph(atlas.store, atlas.manifest)
    found = []
    for pair in graph.matched:
        later, earlier = (atlas.dictionaries[pair[end]] for end in ("later", "earlier"))
        # Through an output norm what a feature writes depends on everything else there.
        if later.site != RES or earlier.mapped == NORMED:
            continue
        if atlas.path is not None:  # faster than the same from the store
            table = edge_table(read_table(matches_file(atlas.path, pair["key"])), pair["gap"])
        else:
            table = graph.whole(pair)
        columns = {n: table[n].to_numpy() for n in ("later", "earlier")}
        rank, forward = (table[name].fill_null(NONE).to_numpy() for name in ("rank", "forward_rank"))
        similarity = table["similarity"].to_numpy().astype(np.float64)
        there = "correlation" in table.column_names
        correlation = table["correlation"].to_numpy() if there else np.full(len(table), np.nan)
        rows = atlas.rows(later.id), atlas.rows(earlier.id)
        ends = columns["later"], columns["earlier"]
        found.append(Source(pair["key"], later, earlier, rows, *ends, rank, forward, similarity, correlation))
    return found


def ranks_among(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """int32 [n, m]: how many of each row's values are above the one at each chosen column.

    values: float [n, columns]; chosen: int [m].
    """
    order = np.sort(values, axis=1)
    found = np.empty((len(values), len(chosen)), dtype=np.int32)
    for row, sorted_ in enumerate(order):
        found[row] = values.shape[1] - np.searchsorted(sorted_, values[row, chosen], side="right")
    return found

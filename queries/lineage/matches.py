"""A feature's stored matches in each other dictionary, best first: by cosine, by push, or by correlation.

By cosine they are ranked already, and the store answers by that rank. By another figure all that are stored are
fetched, at most a few dozen a feature, and ranked here: positive ones, equal ones by id.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.schema import EDGE_FIGURES, EDGE_OF_SITE, FEATURE

if TYPE_CHECKING:
    from atlas.atlas import Atlas

Row = dict[str, Any]

COSINE, PUSH, CORRELATION, COFIRE = "cosine", "push", "correlation", "cofire"
BY = (COSINE, PUSH, CORRELATION)
_EVIDENCE = "feature-atlas evidence edges --text FILE -a {}"
_MADE_BY = {PUSH: "feature-atlas ingest -a {}", CORRELATION: _EVIDENCE, COFIRE: _EVIDENCE}
_ANY = "|".join(EDGE_OF_SITE.values())
_MATCH = "r.similarity AS similarity, r.rank AS rank, r.forward_rank AS forward_rank"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matches:
    """The best matches of features, at most `k` in each dictionary; raises QueryError where `by` orders none."""

    atlas: Atlas
    columns: str  # of the other feature, `g`, as a statement returns them; its id and dictionary among them
    k: int
    by: str = COSINE
    min_cofire: float | None = None  # smallest share of the later's active positions at which the earlier fires too
    _without: set[tuple[str, str]] = field(default_factory=set)  # pairs of dictionaries already told of

    def __post_init__(self) -> None:
        check_by(self.atlas, self.by)
        if self.min_cofire is not None and not _made(self.atlas, COFIRE):
            raise QueryError(_missing(self.atlas, COFIRE))

    def earlier(self, features: Sequence[str]) -> list[list[Row]]:
        """Of each feature the earlier ones: `columns`, similarity, rank, forward_rank, the figure they are ordered by,
        and `first`: whether it is the best in its dictionary."""
        return self._asked(features, f"-[r:{_ANY}]->", "rank")

    def later(self, features: Sequence[str]) -> list[list[Row]]:
        """The same of the later ones."""
        return self._asked(features, f"<-[r:{_ANY}]-", "forward_rank")

    def _asked(self, features: Sequence[str], edge: str, rank: str) -> list[list[Row]]:
        if not features:
            return []
        figure = "" if self.by == COSINE else f", r.{self.by} AS {self.by}"
        bounds: dict[str, tuple[str, float]] = {f"r.{rank} < $k": ("k", self.k)} if self.by == COSINE else {}
        if self.min_cofire is not None:
            bounds["r.cofire >= $min_cofire"] = ("min_cofire", float(self.min_cofire))
        where = f"WHERE {' AND '.join(bounds)} " if bounds else ""
        cypher = f"MATCH (f:{FEATURE} {{id: $id}}){edge}(g:{FEATURE}) {where}RETURN {self.columns}, {_MATCH}{figure}"
        given: list[Row] = [{"id": feature} | dict(bounds.values()) for feature in features]
        found = self.atlas.read_each(cypher, given)
        if self.by == COSINE:
            return [[row | {"first": row[rank] == 0} for row in rows] for rows in found]
        return [self._best(feature, rows) for feature, rows in zip(features, found, strict=True)]

    def _best(self, feature: str, rows: list[Row]) -> list[Row]:
        """The rows with the k largest figures in each dictionary."""
        grouped: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row[self.by] is not None:
                grouped[row["dictionary"]].append(row)
            elif self.by == PUSH:  # a pair's edges have a push all or none; a correlation may lack support
                self._tell(feature.rpartition("/")[0], row["dictionary"])
        best = []
        for group in grouped.values():
            group.sort(key=lambda row: (-row[self.by], row["id"]))
            best += [row | {"first": place == 0} for place, row in enumerate(group[: self.k]) if row[self.by] > 0]
        return best

    def _tell(self, one: str, other: str) -> None:
        pair = (min(one, other), max(one, other))
        if pair not in self._without:
            self._without.add(pair)
            _log.warning("edges between %s and %s have no push and are left out", *pair)


def check_by(atlas: Atlas, by: str) -> None:
    """Raise QueryError where matches cannot be ordered so, with the command that makes the figure."""
    if by not in BY:
        raise QueryError(f"matches are ordered by one of {', '.join(BY)}, not {by!r}")
    if by != COSINE and not _made(atlas, by):
        raise QueryError(_missing(atlas, by))


def _missing(atlas: Atlas, figure: str) -> str:
    made = _MADE_BY[figure].format(atlas.path or "FOLDER")
    return f"the edges of this atlas have no {figure} yet; make it with: {made}"


def _made(atlas: Atlas, figure: str) -> bool:
    """Whether any edge has the figure."""
    if figure not in EDGE_FIGURES:
        return False
    cypher = f"MATCH (:{FEATURE})-[r:{_ANY}]->(:{FEATURE}) WHERE r.{figure} IS NOT NULL RETURN r.{figure} AS x LIMIT 1"
    try:
        return bool(atlas.read(cypher))
    except QueryError:  # an embedded graph of an earlier version has no such column
        return False

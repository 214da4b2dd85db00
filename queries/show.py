"""Everything that an atlas knows of one feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.schema import EDGE_OF_SITE, FEATURE, NODES

if TYPE_CHECKING:
    from atlas.atlas import Atlas

_PROPERTIES = next(table for table in NODES if table.label == FEATURE).properties
_ANY = "|".join(EDGE_OF_SITE.values())
_MATCH = """RETURN g.id AS id, g.site AS site, g.layer AS layer, r.similarity AS similarity, r.rank AS rank,
  r.forward_rank AS forward_rank, g.lifecycle AS lifecycle, coalesce(g.label, g.fires_on, g.promotes) AS label
"""
_RETURN = ", ".join(f"f.`{name}` AS `{name}`" for name in _PROPERTIES)
RECORD = f"MATCH (f:{FEATURE} {{id: $id}}) RETURN {_RETURN}"
EARLIER = f"""MATCH (f:{FEATURE} {{id: $id}})-[r:{_ANY}]->(g:{FEATURE}) WHERE r.rank < $most
{_MATCH}ORDER BY g.depth DESC, rank, id"""
LATER = f"""MATCH (f:{FEATURE} {{id: $id}})<-[r:{_ANY}]-(g:{FEATURE}) WHERE r.forward_rank < $most
{_MATCH}ORDER BY g.depth, forward_rank, id"""

MATCH_COLUMNS = ("id", "site", "layer", "similarity", "rank", "forward_rank", "lifecycle", "label")
COLUMNS = ("part", *_PROPERTIES, "similarity", "rank", "forward_rank", "context")


@dataclass(frozen=True)
class Portrait:
    """One feature with its neighbours."""

    feature: dict[str, Any]  # its properties, as atlas.schema names them
    earlier: list[dict[str, Any]]  # its best matches by site, MATCH_COLUMNS
    later: list[dict[str, Any]]  # later features that it matches best, MATCH_COLUMNS
    contexts: list[str]  # texts at which it was most active, best first

    def rows(self) -> list[dict[str, Any]]:
        """All of it as flat rows of COLUMNS; `part` is feature, earlier, later or context."""
        rows = [{"part": "feature", **self.feature}]
        rows += [{"part": "earlier", **row} for row in self.earlier]
        rows += [{"part": "later", **row} for row in self.later]
        return rows + [{"part": "context", "context": text} for text in self.contexts]


def portrait(atlas: Atlas, feature: str, *, most: int = 3) -> Portrait:
    """What the atlas knows of a feature, with at most `most` matches in each dictionary.

    Raises UnknownFeature; QueryError where `most` is below 1.
    """
    atlas.locate(feature)
    if most < 1:
        raise QueryError("the number of matches to show must be at least 1")
    record = atlas.read(RECORD, id=feature)[0]
    earlier = atlas.read(EARLIER, id=feature, most=most)
    later = atlas.read(LATER, id=feature, most=most)
    return Portrait(record, earlier, later, atlas.contexts(feature))

"""Everything that an atlas knows of one feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlas.errors import QueryError
from atlas.rows import Rows
from atlas.schema import EDGE_OF_SITE, FEATURE, NODES

if TYPE_CHECKING:
    from atlas.atlas import Atlas

_PROPERTIES = next(table for table in NODES if table.label == FEATURE).properties
_ANY = "|".join(EDGE_OF_SITE.values())
_MATCH = """RETURN g.id AS id, g.site AS site, g.layer AS layer, r.similarity AS similarity, r.rank AS rank,
  r.forward_rank AS forward_rank, g.lifecycle AS lifecycle, g.label AS label
"""
_RETURN = ", ".join(f"f.`{name}` AS `{name}`" for name in _PROPERTIES)
RECORD = f"MATCH (f:{FEATURE} {{id: $id}}) RETURN {_RETURN}"
EARLIER = f"""MATCH (f:{FEATURE} {{id: $id}})-[r:{_ANY}]->(g:{FEATURE}) WHERE r.rank < $most
{_MATCH}ORDER BY g.depth DESC, rank, id"""
LATER = f"""MATCH (f:{FEATURE} {{id: $id}})<-[r:{_ANY}]-(g:{FEATURE}) WHERE r.forward_rank < $most
{_MATCH}ORDER BY g.depth, forward_rank, id"""

MATCH_COLUMNS = ("id", "site", "layer", "similarity", "rank", "forward_rank", "lifecycle", "label")
COLUMNS = ("part", *_PROPERTIES, "similarity", "rank", "forward_rank", "context")


def show(atlas: Atlas, feature: str, *, most: int = 3) -> Rows:
    """What the atlas knows of a feature, as flat rows that begin with their `part`.

    - feature: one row, its properties as atlas.schema names them
    - earlier, later: its best matches, at most `most` in each dictionary, with MATCH_COLUMNS
    - context: the texts at which it was most active, best first, in the column `context`
    Raises UnknownFeature; QueryError where `most` is below 1.

    Example:
        feature, *rows = show(atlas, "smollm2-135m-instruct/9-res-2k/2018")
        print(feature["label"], [row["id"] for row in rows if row["part"] == "earlier"])
    """
    feature = atlas.full_id(feature)
    # Raises what the user can act on; the graph would answer an unknown id with no rows.
    atlas.locate(feature)
    if most < 1:
        raise QueryError("the number of matches to show must be at least 1")
    rows = [{"part": "feature", **row} for row in atlas.read(RECORD, id=feature)]
    rows += [{"part": "earlier", **row} for row in atlas.read(EARLIER, id=feature, most=most)]
    rows += [{"part": "later", **row} for row in atlas.read(LATER, id=feature, most=most)]
    rows += [{"part": "context", "context": text} for text in atlas.contexts(feature)]
    return Rows(rows, COLUMNS)

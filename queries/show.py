"""Everything that an atlas knows of one feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.rows import Rows
from atlas.schema import EDGE_OF_SITE, FEATURE, NODES
from queries.lineage.matches import COSINE, Matches

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from atlas.folder.detail import Detail
    from atlas.folder.dictionary import Dictionary

_PROPERTIES = next(table for table in NODES if table.label == FEATURE).properties
_ANY = "|".join(EDGE_OF_SITE.values())
_MATCH = """g.id AS id, g.site AS site, g.layer AS layer, r.similarity AS similarity, r.rank AS rank,
  r.forward_rank AS forward_rank, g.lifecycle AS lifecycle, g.label AS label"""
_RETURN = ", ".join(f"f.`{name}` AS `{name}`" for name in _PROPERTIES)
RECORD = f"MATCH (f:{FEATURE} {{id: $id}}) RETURN {_RETURN}"
EARLIER = f"""MATCH (f:{FEATURE} {{id: $id}})-[r:{_ANY}]->(g:{FEATURE}) WHERE r.rank < $most
RETURN {_MATCH} ORDER BY g.depth DESC, rank, id"""
LATER = f"""MATCH (f:{FEATURE} {{id: $id}})<-[r:{_ANY}]-(g:{FEATURE}) WHERE r.forward_rank < $most
RETURN {_MATCH} ORDER BY g.depth, forward_rank, id"""

MATCH_COLUMNS = ("id", "site", "layer", "similarity", "rank", "forward_rank", "lifecycle", "label")
_OTHER = ("id", "site", "layer", "lifecycle", "label", "depth", "dictionary")  # of a matched feature
COLUMNS = ("part", *_PROPERTIES, "suppresses", "neuronpedia", "similarity", "rank", "forward_rank", "context")


def show(atlas: Atlas, feature: str, *, most: int = 3, by: str = COSINE, detail: Detail | None = None) -> Rows:
    """What the atlas knows of a feature, as flat rows that begin with their `part`.

    - feature: one row, its properties as atlas.schema names them; `suppresses`, tokens as in `promotes`; `neuronpedia`,
      its page there or null
    - earlier, later: its best matches, at most `most` in each dictionary, with MATCH_COLUMNS; best `by` cosine, push or
      correlation, which is then a column too
    - context: the texts at which it was most active, best first, in the column `context`
    `detail` is what `atlas.detail` says of it, where that was asked already.
    Raises UnknownFeature; QueryError where `most` is below 1 or the edges have no such figure.

    Example:
        feature, *rows = show(atlas, "smollm2-135m-instruct/9-res-2k/2018")
        print(feature["label"], [row["id"] for row in rows if row["part"] == "earlier"])
    """
    feature = atlas.full_id(feature)
    # Raises what the user can act on; the graph would answer an unknown id with no rows.
    record, index = atlas.locate(feature)
    if most < 1:
        raise QueryError("the number of matches to show must be at least 1")
    detail = detail or atlas.detail(feature)
    there = {"suppresses": ", ".join(detail.suppresses) or None, "neuronpedia": neuronpedia_page(record, index)}
    rows = [{"part": "feature", **row, **there} for row in atlas.read(RECORD, id=feature)]
    if by == COSINE:
        earlier, later = (atlas.read(cypher, id=feature, most=most) for cypher in (EARLIER, LATER))
    else:
        earlier, later = _ordered(atlas, feature, most, by)
    rows += [{"part": "earlier", **row} for row in earlier] + [{"part": "later", **row} for row in later]
    rows += [{"part": "context", "context": context.text} for context in detail.contexts]
    return Rows(rows, COLUMNS if by == COSINE else (*COLUMNS, by))


def neuronpedia_page(record: Dictionary, index: int) -> str | None:
    """Where Neuronpedia shows the feature; None for dictionaries whose metadata name no place there."""
    return f"https://www.neuronpedia.org/{record.neuronpedia_id}/{index}" if record.neuronpedia_id else None


def _ordered(atlas: Atlas, feature: str, most: int, by: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Its earlier and later matches, the nearest dictionary first, in each the best by that figure first."""
    matches = Matches(atlas, ", ".join(f"g.{name} AS {name}" for name in _OTHER), most, by)
    found = []
    for rows, sign in ((matches.earlier([feature])[0], -1), (matches.later([feature])[0], 1)):
        rows.sort(key=lambda row: (sign * row["depth"], row["dictionary"], -row[by], row["id"]))
        found.append([{name: row[name] for name in (*MATCH_COLUMNS, by)} for row in rows])
    return found[0], found[1]

"""How Neo4j Browser shows an atlas: a style sheet (GraSS) by label and edge type, and queries to save there.

Browser styles by label and type alone, so sites and cosines show in captions and colours of edges, not of nodes.
"""

from __future__ import annotations

from pathlib import Path

from atlas.schema import DICTIONARY, EDGE_OF_SITE, FEATURE, FIRES_WITH, MATCHED, MODEL, RUN

FILE = "feature-atlas.grass"
# Distinguishable with any colour vision, and told apart by captions as well.
_NODES = {
    FEATURE: ("#0072b2", "#005685", "#ffffff", "{layer}/{site} {label}"),
    DICTIONARY: ("#e69f00", "#b37b00", "#000000", "{id}"),
    MODEL: ("#009e73", "#00714f", "#ffffff", "{name}"),
    RUN: ("#999999", "#777777", "#000000", "{started}"),
}
_EDGES = {
    EDGE_OF_SITE["res"]: ("#0072b2", 3),
    EDGE_OF_SITE["mlp"]: ("#d55e00", 2),
    EDGE_OF_SITE["att"]: ("#cc79a7", 2),
    FIRES_WITH: ("#009e73", 1),
    MATCHED: ("#999999", 1),
}
QUERIES = {
    "lineage back": "MATCH p = (f:Feature {id: $id})-[:FROM_RES*1..30 {rank: 0}]->(:Feature) RETURN p",
    "what writes to it": "MATCH p = (f:Feature {id: $id})-[:FROM_MLP|FROM_ATT {rank: 0}]->(:Feature) RETURN p",
    "where it goes": "MATCH p = (f:Feature {id: $id})<-[:FROM_RES*1..30 {forward_rank: 0}]-(:Feature) RETURN p",
    "features that fire on a word": (
        "MATCH (f:Feature) WHERE f.fires_on CONTAINS $word RETURN f ORDER BY f.layer, f.index LIMIT 100"
    ),
    "which dictionaries are matched": "MATCH p = (:Dictionary)-[:MATCHED]->(:Dictionary) RETURN p",
}


def write_grass(folder: Path) -> list[Path]:
    """Write the style sheet and one file for each query to an existing folder; returns their paths."""
    lines = [
        "node { diameter: 50px; color: #999999; border-color: #777777; border-width: 2px; "
        "text-color-internal: #000000; font-size: 10px; }",
        "relationship { color: #999999; shaft-width: 1px; font-size: 8px; padding: 3px; "
        'text-color-external: #000000; text-color-internal: #ffffff; caption: "{similarity}"; }',
    ]
    for label, (colour, border, text, caption) in _NODES.items():
        own = f'color: {colour}; border-color: {border}; text-color-internal: {text}; caption: "{caption}";'
        lines.append(f"node.{label} {{ {own} }}")
    for type_, (colour, width) in _EDGES.items():
        caption = "floor {floor}" if type_ == MATCHED else "{similarity}"
        lines.append(f'relationship.{type_} {{ color: {colour}; shaft-width: {width}px; caption: "{caption}"; }}')
    written = [folder / FILE]
    written[0].write_text("\n".join(lines) + "\n")
    for name, cypher in QUERIES.items():
        # Browser calls a saved query by the comment in its first line.
        written.append(folder / f"{name.replace(' ', '-')}.cypher")
        written[-1].write_text(f"// feature-atlas: {name}\n{cypher};\n")
    return written

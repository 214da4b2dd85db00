"""A graph's features and the edges between them as GraphML, e.g. for Gephi, yEd or networkx.

An edge leads from the later feature to the earlier, as in the graph. Besides the properties of atlas.schema it has its
`type`, and its cosine (of FIRES_WITH its correlation) as `weight` too, which is what layouts look for. What is null is
left out. One dictionary or pair is in memory at a time, and the lines of its rows are made column by column.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

from atlas.export.tables import Advance
from atlas.export.text import for_xml
from atlas.graph.store import Graph
from atlas.graph.tables import conform, with_ids
from atlas.schema import BOOLEAN, EDGE_OF_SITE, EDGES, FEATURE, FIRES_WITH, FLOAT, INTEGER, MATCHED, STRING, properties

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "graph.graphml"
_TYPES = {STRING: "string", INTEGER: "long", FLOAT: "double", BOOLEAN: "boolean"}
_NODE = {name: type_ for name, type_ in properties(FEATURE).items() if name != "id"}
_EDGE = {"type": STRING, "weight": FLOAT} | properties(next(iter(EDGE_OF_SITE.values())))
_LINES = 1 << 16  # rows whose lines are put together at once


def write_graphml(graph: Graph, folder: Path, advance: Advance) -> tuple[int, int]:
    """Write `graph.graphml` to an existing folder; returns the numbers of nodes and edges.

    `advance` is called with the number of features and edges just written.
    """
    nodes = edges = 0
    with open(folder / FILE, "w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n')
        for kind, keys in (("node", _NODE), ("edge", _EDGE)):
            for name, type_ in keys.items():
                attributes = f'id="{kind}-{name}" for="{kind}" attr.name="{name}" attr.type="{_TYPES[type_]}"'
                file.write(f"<key {attributes}/>\n")
        file.write('<graph id="atlas" edgedefault="directed">\n')
        for table in graph.nodes(FEATURE):
            nodes += _write(file, conform(FEATURE, table), "node", advance)
        for edge in EDGES:
            for batch in graph.edges(edge.type) if edge.type != MATCHED else ():
                table = with_ids(batch)
                edges += _write(file, _weighted(table, edge.type), "edge", advance)
        file.write("</graph>\n</graphml>\n")
    return nodes, edges


def _weighted(table: pa.Table, type_: str) -> pa.Table:
    import pyarrow as pa

    types = pa.repeat(pa.scalar(type_), len(table))
    # Layouts want weights above 0; what fires together need not point the same way.
    weight = table["correlation" if type_ == FIRES_WITH else "similarity"]
    return table.append_column("type", types).append_column("weight", weight)


def _write(file: IO[str], table: pa.Table, kind: str, advance: Advance) -> int:
    for start in range(0, len(table), _LINES):
        part = table.slice(start, _LINES)
        file.write("".join(_lines(part, kind).to_pylist()))
        advance(len(part))
    return len(table)


def _lines(table: pa.Table, kind: str) -> pa.ChunkedArray:
    """string: the element of each row."""
    import pyarrow.compute as pc

    if kind == "node":
        pieces = ['<node id="', for_xml(table["id"]), '">']
    else:
        pieces = ['<edge source="', for_xml(table["later"]), '" target="', for_xml(table["earlier"]), '">']
    for name, type_ in (_NODE if kind == "node" else _EDGE).items():
        column = table[name]
        text = for_xml(column) if type_ == STRING else column.cast("string")
        data = pc.binary_join_element_wise(f'<data key="{kind}-{name}">', text, "</data>", "")
        pieces.append(pc.fill_null(data, ""))
    return pc.binary_join_element_wise(*pieces, f"</{kind}>\n", "")

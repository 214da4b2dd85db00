"""Flow graphs in every form: a tree and pictures for people; json, mermaid, dot and GraphML for programs.

In every form an edge points from the later feature to the earlier one, as in the graph.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from xml.etree import ElementTree

from atlas.cli.output import fit, printable
from atlas.ids import RES
from queries.lineage.attribution import attribution
from queries.lineage.graph import Lineage
from queries.lineage.tree import WIDTH, short, tree, words


def draw(graph: Lineage, format_: str = "tree", width: int = WIDTH) -> str:
    """The graph in one of FORMATS, ending with a newline; a tree at most so many columns wide."""
    return tree(graph, width) if format_ == "tree" else FORMATS[format_](graph)


def painted(graph: Lineage) -> bytes:
    """The graph as PNG; raises QueryError where the extra `png` is not installed."""
    from queries.drawing.png import png

    return png(graph.figure())


def as_svg(graph: Lineage) -> str:
    """A picture as a file of its own."""
    from queries.drawing.svg import svg

    return svg(graph.figure(), alone=True) + "\n"


def as_html(graph: Lineage) -> str:
    """The picture with its table, one file that needs nothing else."""
    from queries.drawing.alone import html

    return html(graph.figure())


def as_json(graph: Lineage) -> str:
    """`Lineage.to_dict()` as JSON."""
    return json.dumps(graph.to_dict(), indent=1, ensure_ascii=False) + "\n"


def mermaid(graph: Lineage) -> str:
    """A Mermaid flow chart, the earliest feature on top."""
    numbers = {node.id: f"n{i}" for i, node in enumerate(graph.nodes)}
    lines = ["flowchart BT"]
    for node in graph.nodes:
        label = words(node)
        text = _entities(short(node.id)) + (f"<br>{_entities(fit(label, 40))}" if label else "")
        lines.append(f'  {numbers[node.id]}["{text}"]')
    for edge in graph.edges:
        lines.append(f"  {numbers[edge.source]} -->|{edge.shown}| {numbers[edge.target]}")
    lines.append(f"  style {numbers[graph.seed]} stroke-width:4px")
    return "\n".join(lines) + "\n"


def dot(graph: Lineage) -> str:
    """A Graphviz digraph, the earliest feature on top."""
    lines = ["digraph lineage {", "  rankdir=BT;", '  node [fontname="sans-serif"];']
    for node in graph.nodes:
        label = "\\n".join(_escape(part) for part in (short(node.id), fit(words(node), 40)) if part)
        shape = "box" if node.site == RES else "ellipse"
        width = ", penwidth=3" if node.id == graph.seed else ""
        lines.append(f'  "{_escape(node.id)}" [label="{label}", shape={shape}{width}];')
    for edge in graph.edges:
        lines.append(f'  "{_escape(edge.source)}" -> "{_escape(edge.target)}" [label="{edge.shown}"];')
    return "\n".join([*lines, "}"]) + "\n"


def graphml(graph: Lineage) -> str:
    """GraphML with every field of the json form; what is null is left out."""
    values = graph.to_dict()
    root = ElementTree.Element("graphml", xmlns="http://graphml.graphdrawing.org/xmlns")
    for kind in ("node", "edge"):
        for name, type_ in _GRAPHML[kind].items():
            key = {"id": f"{kind}-{name}", "for": kind, "attr.name": name, "attr.type": type_}
            ElementTree.SubElement(root, "key", key)
    inner = ElementTree.SubElement(root, "graph", id=graph.seed, edgedefault="directed")
    for node in values["nodes"]:
        _data(ElementTree.SubElement(inner, "node", id=node["id"]), "node", {**node, "seed": node["id"] == graph.seed})
    for edge in values["edges"]:
        _data(ElementTree.SubElement(inner, "edge", source=edge["source"], target=edge["target"]), "edge", edge)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


FORMATS: dict[str, Callable[[Lineage], str]] = {
    "tree": tree,
    "json": as_json,
    "mermaid": mermaid,
    "dot": dot,
    "graphml": graphml,
    "attribution": attribution,
    "svg": as_svg,
    "html": as_html,
}
_GRAPHML = {
    "node": {
        "layer": "int",
        "site": "string",
        "depth": "int",
        "label": "string",
        "s_res": "double",
        "s_mlp": "double",
        "s_att": "double",
        "origin": "string",
        "lifecycle": "string",
        "dictionary": "string",
        "fires_on": "string",
        "promotes": "string",
        **dict.fromkeys(("activation", "pre_activation", "bias", "other", "error", "unread"), "double"),
        "seed": "boolean",
    },
    "edge": {
        "type": "string",
        "similarity": "double",
        "rank": "int",
        "forward_rank": "int",
        "push": "double",
        "correlation": "double",
        "share": "double",
        "predicted": "double",
        "measured": "double",
        "left": "double",
    },
}


def _data(element: ElementTree.Element, kind: str, values: dict[str, object]) -> None:
    for name, type_ in _GRAPHML[kind].items():
        value = values.get(name)
        if value is not None:
            # GraphML writes true and false in lower case.
            text = str(value).lower() if type_ == "boolean" else printable(str(value))
            ElementTree.SubElement(element, "data", key=f"{kind}-{name}").text = text


def _entities(text: str) -> str:
    """Text inside a quoted Mermaid label: what it or HTML would interpret becomes a numeric entity."""
    return re.sub(r"[^\w\s/.,:;()+=!?'“”‘’…-]", lambda match: f"#{ord(match[0])};", text)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')

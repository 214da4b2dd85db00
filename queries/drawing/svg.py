"""A figure as SVG: presentation attributes alone, so that it reads where styles and scripts are taken out.

The same figure gives the same bytes. Nothing in it has an id, so that many stand on one page.
"""

from __future__ import annotations

from queries.drawing.counts import counted
from queries.drawing.dots import Link, dots
from queries.drawing.edges import edges
from queries.drawing.figure import Figure
from queries.drawing.frame import MARGIN, framed
from queries.drawing.layout import HEAD, SMALL, Layout, lay_out
from queries.drawing.legend import legend
from queries.drawing.palette import BAND, QUIET
from queries.drawing.words import number

MOST = 2000  # features that are drawn one by one


def svg(figure: Figure, *, link: Link | None = None, alone: bool = False) -> str:
    """The picture, without a newline at its end.

    link: makes every feature a link. alone: for a file of its own, with a namespace and the colours of dark pages.
    A figure of more than MOST features is drawn as counts by layer and site (queries.drawing.counts).
    """
    if len(figure.dots) > MOST:
        return counted(figure, MOST, alone=alone)
    layout = lay_out(figure)
    foot, height, right = legend(figure, layout.height + 20.0, layout.width)
    width = max(layout.width, right)
    body = [_backdrop(layout, width), *edges(figure, layout), *dots(figure, layout, link), *foot]
    title = figure.title or figure.seed or "flow graph"
    return framed(
        [*body, *foot], max(layout.width, width), height, title, len(figure.dots), alone=alone, links=bool(link)
    )


def _backdrop(layout: Layout, width: float) -> str:
    """Bands of layers with their names, and the lanes' names."""
    parts = []
    for place, (layer, top, bottom) in enumerate(layout.bands):
        if place % 2 == 0:
            area = f'y="{number(top)}" width="{number(width)}" height="{number(bottom - top)}"'
            parts.append(f'<rect class="fa-band" x="0" {area} fill="{BAND}"/>')
        place_of = f'x="{MARGIN:g}" y="{number(top + 18)}"'
        parts.append(f'<text class="fa-quiet" {place_of} font-weight="bold" fill="{QUIET}">L{layer}</text>')
    for site, x in layout.lanes.items():
        parts.append(
            f'<text class="fa-quiet" x="{number(x)}" y="{HEAD - 6:g}" font-size="{SMALL:g}" '
            f'text-anchor="middle" fill="{QUIET}">{site}</text>'
        )
    return "".join(parts)

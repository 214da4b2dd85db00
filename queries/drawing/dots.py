"""A figure's features: glyph, label beside it, and a halo where a feature fires at the token of a text."""

from __future__ import annotations

from collections.abc import Callable

from queries.drawing.figure import Dot, Figure
from queries.drawing.layout import SMALL, Layout, Spot
from queries.drawing.palette import HALO, INK, QUIET, glyph
from queries.drawing.words import number, safe

Link = Callable[[str], str]  # a feature's id → where its glyph leads


def dots(figure: Figure, layout: Layout, link: Link | None) -> list[str]:
    parts = []
    strongest = max((dot.activation or 0.0 for dot in figure.dots), default=0.0)
    for place, dot in enumerate(figure.dots):
        spot = layout.spots[dot.id]
        inner = _halo(dot, spot, strongest) + glyph(dot, spot.x, spot.y, dot.id == figure.seed) + _label(spot)
        tip = safe(f"{dot.id} {dot.lifecycle or ''} {dot.label or ''}" + (" (outside the cut)" if dot.outside else ""))
        inner = f"<title>{tip}</title>{inner}"
        kind = "fa-dot" + (" fa-spine" if dot.id in layout.spine else "") + (" fa-outside" if dot.outside else "")
        attributes = f'class="{kind}" data-n="{place}" data-id="{safe(dot.id)}"'
        if link is None:
            parts.append(f"<g {attributes}>{inner}</g>")
        else:
            parts.append(f'<a {attributes} href="{safe(link(dot.id))}">{inner}</a>')
    return parts


def _halo(dot: Dot, spot: Spot, strongest: float) -> str:
    """Behind a feature that fires at the token: the more, the fuller."""
    if not dot.activation or dot.activation <= 0 or strongest <= 0:
        return ""
    strength = 0.25 + 0.75 * dot.activation / strongest
    return f'<circle cx="{number(spot.x)}" cy="{number(spot.y)}" r="9" fill="{HALO}" fill-opacity="{strength:.2f}"/>'


def _label(spot: Spot) -> str:
    words = safe(spot.words)
    # Set apart from what follows: else right-to-left words would take the name into their own order.
    apart = "" if words.isascii() else ' unicode-bidi="isolate"'
    text = f'<tspan class="fa-ink" fill="{INK}"{apart}>{words}</tspan> ' if words else ""
    anchor = "end" if spot.left else "start"
    return (
        f'<text class="fa-label" x="{number(spot.text)}" y="{number(spot.y + 4)}" text-anchor="{anchor}">{text}'
        f'<tspan class="fa-quiet" fill="{QUIET}" font-size="{SMALL:g}">{safe(spot.aside)}</tspan></text>'
    )

"""A drawing as PNG: the SVG, painted."""

from __future__ import annotations

from atlas.errors import QueryError
from queries.drawing.figure import Figure
from queries.drawing.frame import FONT
from queries.drawing.svg import svg

_SPACE = "http://www.w3.org/2000/svg"
_SCALE = 2  # pixels of the image to one of the drawing: sharp in print and on dense screens


def png(figure: Figure) -> bytes:
    """The picture's bytes. Raises QueryError where the extra `png` is not installed."""
    try:
        import resvg_py
    except ImportError:
        raise QueryError("png needs a library that is not installed: pip install 'feature-atlas[png]'") from None
    letter, nothing = (
        bytes(resvg_py.svg_to_bytes(svg_string=f'<svg xmlns="{_SPACE}" width="9" height="9" {FONT}>{inside}</svg>'))
        for inside in ('<text y="8">a</text>', "")
    )
    # Without a font it would paint the picture and leave out every word.
    if letter == nothing:
        raise QueryError("no font was found to paint words with: install one (fonts-dejavu-core), or take --format svg")
    return bytes(resvg_py.svg_to_bytes(svg_string=svg(figure, alone=True), zoom=_SCALE))

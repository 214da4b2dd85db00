"""What a picture says of itself: its signs, its thresholds, its model and the state of its atlas."""

from __future__ import annotations

from collections.abc import Iterator

from atlas.ids import RES
from queries.drawing.figure import Figure
from queries.drawing.frame import MARGIN
from queries.drawing.palette import EDGE, HALO, INK, PAPER, QUIET, SITES, TONES, shape, tone_of
from queries.drawing.words import number, safe, wide

ROW = 17.0  # pixels from one line to the next
Item = tuple[str, str]  # a drawing around the origin, 22 pixels wide at most, and what it means


def legend(figure: Figure, top: float, width: float) -> tuple[list[str], float, float]:
    """The lines beneath a picture `width` wide: their SVG, where they end, and how wide they are."""
    parts, x, y = [], MARGIN, top
    right = 0.0
    for drawing, meaning in [*_glyphs(figure), *_tones(figure), *_strokes(figure)]:
        needed = 26.0 + wide(meaning, 9.5) + 14.0
        if x > MARGIN and x + needed > width:
            x, y = MARGIN, y + ROW
        parts.append(f'<g transform="translate({number(x + 11)} {number(y - 3.5)})">{drawing}</g>')
        parts.append(_text(x + 26.0, y, meaning))
        x += needed
        right = max(right, x)
    for line in _wrapped(figure.about, width - 2 * MARGIN):
        y += ROW
        parts.append(_text(MARGIN, y, line))
        right = max(right, MARGIN + wide(line, 9.5) + MARGIN)
    return parts, y + 12.0, right


def _wrapped(lines: tuple[str, ...], most: float) -> Iterator[str]:
    """The lines, those that are too long for the picture broken between words."""
    for line in lines:
        held = ""
        for word in line.split(" "):
            longer = f"{held} {word}" if held else word
            if held and wide(longer, 9.5) > most:
                yield held
                longer = word
            held = longer
        yield held


def _text(x: float, y: float, text: str) -> str:
    place = f'x="{number(x)}" y="{number(y)}"'
    return f'<text class="fa-quiet" {place} font-size="9.5" fill="{QUIET}">{safe(text)}</text>'


def _glyphs(figure: Figure) -> Iterator[Item]:
    sites = {dot.site for dot in figure.dots}
    for site, name in SITES.items():
        if site in sites:
            colour = QUIET if site == RES else TONES[site]
            yield shape(site, 0, 0, f'class="fa-{"quiet" if site == RES else site}" fill="{colour}"'), name
    if any(dot.id == figure.seed for dot in figure.dots):
        yield f'<circle class="fa-seed" r="7" fill="none" stroke="{INK}" stroke-width="2"/>', "the feature asked about"
    if any(dot.outside for dot in figure.dots):
        paint = f'class="fa-hollow fa-start" fill="{PAPER}" stroke="{TONES["start"]}" stroke-width="1.5"'
        yield shape(RES, 0, 0, paint), "just outside the cut"
    if any(dot.activation for dot in figure.dots):
        yield f'<circle r="9" fill="{HALO}" fill-opacity="0.8"/>', "fires at the token"


def _tones(figure: Figure) -> Iterator[Item]:
    there = {tone_of(dot) for dot in figure.dots if dot.site == RES and dot.lifecycle}
    for tone, colour in TONES.items():
        if tone in there:
            yield shape(RES, 0, 0, f'class="fa-{tone}" fill="{colour}"'), tone


def _strokes(figure: Figure) -> Iterator[Item]:
    """What widths and dashes mean, as far as they are there."""
    if not figure.lines:
        return
    wedge = f'<path class="fa-wedge" d="M-11 -0.5L11 -2.2V2.2L-11 0.5Z" fill="{EDGE}"/>'
    yield wedge, f"thicker: larger {figure.measure}"
    layers = {dot.id: (dot.layer, dot.site) for dot in figure.dots}

    def jumps(line_source: str, line_target: str) -> bool:
        (later, site), (earlier, other) = layers[line_source], layers[line_target]
        return site == other == RES and later - earlier > 1

    if any(
        (line.rank != 0 and line.share is None) or jumps(line.source, line.target)
        for line in figure.lines
        if not line.outside
    ):
        yield _stroke('stroke-width="2.5" stroke-dasharray="6 4"'), "not the best match, or layers missing between"
    if figure.evidence:
        yield _stroke('stroke-width="2.5"'), "full: fire together; faint: seldom; e: effect of removing"
        weak = 'stroke-width="1.2" stroke-dasharray="1 4" stroke-linecap="round"'
        yield _stroke(weak), "alike, but never active together"


def _stroke(look: str) -> str:
    return f'<path class="fa-edge" d="M-11 0H11" fill="none" stroke="{EDGE}" {look}/>'

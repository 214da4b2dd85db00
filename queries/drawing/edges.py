"""A figure's edges: width by cosine, or what they were chosen by; dashes where it is no best match or jumps layers;
evidence where it is known."""

from __future__ import annotations

from atlas.ids import ATT, MLP, RES
from queries.drawing.figure import Dot, Figure, Line
from queries.drawing.layout import Layout, Spot
from queries.drawing.palette import EDGE, QUIET, TONES
from queries.drawing.words import number, safe, wide

Place = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom

NUMBERED = 150  # with more edges their cosines are left to the table
NEVER = 0.01  # of the later feature's active positions: fewer together is as good as never


def edges(figure: Figure, layout: Layout) -> list[str]:
    """Every edge, those of modules lowest and the strongest on top; cosines are written where there is room."""
    places = {dot.id: place for place, dot in enumerate(figure.dots)}
    dots = {dot.id: dot for dot in figure.dots}
    taken = [_around(spot) for spot in layout.spots.values()] if len(figure.lines) <= NUMBERED else None

    def order(line: Line) -> tuple[bool, float, str, str]:
        return dots[line.target].site == RES, line.weight, line.source, line.target

    parts, written = [], []
    for line in sorted(figure.lines, key=order):
        later, earlier = dots[line.source], dots[line.target]
        path, where = _path(later, earlier, layout)
        which = f"{places[line.source]}-{places[line.target]}"
        tip = f"{later.id} ← {earlier.id}: {told(line)}" if taken is not None else told(line)
        parts.append(_line(line, later, earlier, path, which, tip))
        if taken is not None:
            written.append(_written(line, which, where, taken))
    return parts + written


def _line(line: Line, later: Dot, earlier: Dot, path: str, place: str, tip: str) -> str:
    """One edge: its width is its cosine, its dashes say what it is not."""
    weak = line.cofire is not None and line.cofire < NEVER
    tone = earlier.site if earlier.site in (ATT, MLP) else None
    paint = f'stroke="{TONES[tone]}" stroke-opacity="0.6"' if tone else f'stroke="{EDGE}"'
    flags = {f"fa-from-{tone}": tone, "fa-weak": weak, "fa-outside": line.outside}
    kind = " ".join(["fa-edge", *(name for name, there in flags.items() if there)])
    look = f'stroke-width="{number(0.8 + 3.4 * min(max(line.weight, 0.0), 1.0))}"'
    if weak:
        look = 'stroke-width="1.2" stroke-dasharray="1 4" stroke-linecap="round"'
    elif line.outside:
        look = 'stroke-width="1" stroke-dasharray="2 3"'
    elif (line.rank != 0 and line.share is None) or _gap(later, earlier):
        look += ' stroke-dasharray="6 4"'
    if line.cofire is not None and not weak:
        look += f' opacity="{0.4 + 0.6 * min(line.cofire, 1.0):.2f}"'
    data = f'data-e="{place}" data-s="{line.similarity:.3f}"'
    return f'<path class="{kind}" {data} d="{path}" fill="none" {paint} {look}><title>{safe(tip)}</title></path>'


def told(line: Line) -> str:
    """What is known of an edge, in words."""
    parts = [f"cosine {line.similarity:.2f}"]
    if line.rank is None:
        parts.append("not among the best matches of the later one")
    elif line.rank > 0:
        parts.append(f"match number {line.rank + 1} of the later one")
    if line.outside:
        parts.append("below the cut")
    if line.cofire is not None:
        parts.append("alike but never active together" if line.cofire < NEVER else f"active together {line.cofire:.0%}")
    if line.effect is not None:
        parts.append(f"effect {line.effect:.2f}")
    if line.share is not None:
        parts.append(f"share of the pre-activation {line.share:.2f}")
    if line.push is not None:
        parts.append(f"push {line.push:.2f}")
    return ", ".join(parts)


def _gap(later: Dot, earlier: Dot) -> bool:
    return later.site == earlier.site == RES and later.layer - earlier.layer > 1


def _path(later: Dot, earlier: Dot, layout: Layout) -> tuple[str, list[Place]]:
    """An edge's way from the earlier feature up to the later one, and where its cosine may be written."""
    a, b = layout.spots[earlier.id], layout.spots[later.id]
    if a.left:  # from a module: along its own row, then up into the stream
        turn = b.x - 22.0
        way = f"M{number(a.x + 7)} {number(a.y)}H{number(turn)}C{number(b.x - 8)} {number(a.y)} "
        way += f"{number(b.x - 9)} {number(b.y + 9)} {number(b.x - 4)} {number(b.y + 5)}"
        return way, [(a.x + 9.0, a.y - 2.5), (turn - 22.0, a.y - 2.5)]
    middle = (a.y + b.y) / 2
    between = layout.crowded[later.depth] - layout.crowded[earlier.depth] > 1
    start, end = f"M{number(a.x)} {number(a.y - 6)}", f"{number(b.x)} {number(b.y + 6)}"
    if a.x == b.x and not between:
        return f"{start}L{end}", [(a.x + 5.0, middle + 3.0), (a.x + 5.0, a.y - 10.0)]
    # Around what stands in between.
    aside = 16.0 if between else 0.0
    way = f"{start}C{number(a.x - aside)} {number(middle)} {number(b.x - aside)} {number(middle)} {end}"
    # Near the end that is farther out, where edges lie apart.
    upper, lower = (b.x + 4.0, b.y + 17.0), (a.x + 5.0, a.y - 10.0)
    return way, [upper, (b.x - 22.0, b.y + 17.0), lower] if b.x > a.x else [lower, (a.x - 22.0, a.y - 10.0), upper]


def _written(line: Line, which: str, where: list[Place], taken: list[Box]) -> str:
    """The cosine, at the first place where nothing stands; else it is left to the table and the edge's title."""
    text = f"{line.weight:.2f}"
    text += "" if line.cofire is None else f" · {line.cofire:.0%}"
    text += "" if line.effect is None else f" · e {line.effect:.2f}"
    for x, y in where:
        room = (x, y - 6.5, x + wide(text, 8.0), y + 1.0)
        if not any(_meet(room, other) for other in taken):
            taken.append(room)
            place = f'x="{number(x)}" y="{number(y)}"'
            return (
                f'<text class="fa-quiet fa-cosine" data-e="{which}" {place} font-size="8" fill="{QUIET}">{text}</text>'
            )
    return ""


def _around(spot: Spot) -> Box:
    """The room of a glyph with its label."""
    left, top, right, bottom = spot.box
    return min(left, spot.x - 6.0), top, max(right, spot.x + 6.0), bottom


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

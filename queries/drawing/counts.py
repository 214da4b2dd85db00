"""A figure too large to be drawn feature by feature: counts by layer and site, and the threshold that would fit."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from math import ceil

from atlas.ids import SITES
from queries.drawing.figure import Figure
from queries.drawing.frame import MARGIN, framed
from queries.drawing.palette import BAND, INK, QUIET, TONES
from queries.drawing.words import number

_BAR, _ROW, _TOP = 150.0, 20.0, 76.0


def counted(figure: Figure, most: int, *, alone: bool = False) -> str:
    """The picture: a bar for each layer and site, and which thresholds would leave at most `most` features."""
    dots = [dot for dot in figure.dots if not dot.outside]
    counts = Counter((dot.layer, dot.site) for dot in dots)
    layers = sorted({layer for layer, _ in counts}, reverse=True)
    largest = max(counts.values())
    parts = [
        _text(MARGIN, 38, f"{len(dots):,} features and {len(figure.lines):,} edges: too many to draw one by one."),
        _text(MARGIN, 54, advice(figure, most)),
    ]
    sites = [site for site in ("att", "mlp", "res") if site in SITES]
    for place, site in enumerate(sites):
        parts.append(_text(_left(place), _TOP - 6, site))
    for row, layer in enumerate(layers):
        y = _TOP + row * _ROW
        if row % 2 == 0:
            area = f'y="{number(y)}" width="{number(_left(3))}" height="{_ROW:g}"'
            parts.append(f'<rect class="fa-band" x="0" {area} fill="{BAND}"/>')
        parts.append(_text(MARGIN, y + 14, f"L{layer}"))
        for place, site in enumerate(sites):
            if count := counts[layer, site]:
                tone = site if site in TONES else "persists"
                long = max(_BAR * count / largest, 1.0)
                area = f'x="{number(_left(place))}" y="{number(y + 4)}" width="{number(long)}" height="12"'
                parts.append(f'<rect class="fa-{tone}" {area} fill="{TONES[tone]}"/>')
                parts.append(_text(_left(place) + long + 4, y + 14, f"{count:,}"))
    height = _TOP + len(layers) * _ROW + 18
    for line in figure.about:
        parts.append(_text(MARGIN, height, line))
        height += 16
    return framed(parts, _left(3), height, figure.title or figure.seed or "flow graph", len(dots), alone=alone)


def advice(figure: Figure, most: int) -> str:
    """Which threshold would leave a picture of at most `most` features."""
    fit = fitting(figure, most)
    if fit is None:
        return f"No threshold leaves at most {most:,}: take fewer steps (--back, --forward) or a smaller --k."
    return f"--min-res {fit:.2f} --min-module {fit:.2f} leaves at most {most:,}."


def fitting(figure: Figure, most: int) -> float | None:
    """The smallest threshold, in hundredths, with which at most `most` features are joined with the seed."""
    joined: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for line in figure.lines:
        joined[line.source].append((line.target, line.similarity))
        joined[line.target].append((line.source, line.similarity))

    def reached(threshold: float) -> int:
        seen = {figure.seed or figure.dots[0].id}
        frontier = list(seen)
        while frontier:
            frontier = [o for name in frontier for o, similarity in joined[name] if similarity >= threshold]
            frontier = [name for name in dict.fromkeys(frontier) if name not in seen]
            seen.update(frontier)
        return len(seen)

    steps = range(ceil(100 * min((line.similarity for line in figure.lines), default=0.0)), 101)
    # A higher threshold never leaves more: the first that fits is found by halving.
    place = bisect_left(steps, True, key=lambda step: reached(step / 100) <= most)
    return steps[place] / 100 if place < len(steps) else None


def _left(place: int) -> float:
    return MARGIN + 46.0 + place * (_BAR + 60.0)


def _text(x: float, y: float, text: str) -> str:
    tone, colour = ("ink", INK) if x == MARGIN and y < _TOP - 7 else ("quiet", QUIET)
    return f'<text class="fa-{tone}" x="{number(x)}" y="{number(y)}" fill="{colour}">{text}</text>'

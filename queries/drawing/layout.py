"""Where everything stands. Depth goes up; a layer has three lanes, att | mlp | res.

1. The spine: from the seed the best residual matches, both ways. It stands in the first column of the lane res.
2. Other residual features take columns beside it, ordered by barycentre sweeps so that few edges cross.
3. Features of modules stand left of the stream, each on a row of its own, so that its edge runs free of every label.
4. Columns are as wide as their widest label, rows as high as what stands in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from atlas.cli.output import printable
from atlas.ids import ATT, MLP, RES
from queries.drawing.figure import Dot, Figure, short_names
from queries.drawing.frame import MARGIN
from queries.drawing.words import fitted, wide

AXIS = 34.0  # pixels for the layers' names
LEVEL, STEP, GAP = 20.0, 16.0, 14.0  # from a residual row to what is beneath it, between modules, between layers
HEAD = 44.0  # above the first layer: title and lanes' names
SMALL = 9.5  # font size of what is said after the words
SWEEPS = 6


@dataclass(frozen=True)
class Spot:
    """Where a feature stands, and its label: words, then what is said more quietly."""

    x: float
    y: float
    words: str
    aside: str
    text: float  # x where the label begins, or ends where `left`
    left: bool  # the label is left of the glyph
    width: float  # of the label, at most

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the label's room."""
        left = self.text - self.width if self.left else self.text
        return left, self.y - 7.0, left + self.width, self.y + 6.5


@dataclass(frozen=True)
class Layout:
    """A figure laid out; y grows downwards, as in SVG."""

    spots: Mapping[str, Spot]
    bands: tuple[tuple[int, float, float], ...]  # layer, top, bottom; the last layer first
    lanes: Mapping[str, float]  # x of each lane's name
    spine: frozenset[str]
    crowded: Mapping[int, int]  # by depth: its row of residual features, as a number from below
    width: float
    height: float  # down to the last layer's end; legend and lines about it come beneath


def lay_out(figure: Figure) -> Layout:
    """The places of a figure's features; the same figure has the same places."""
    spine = _spine(figure)
    rows: dict[int, list[Dot]] = defaultdict(list)
    for dot in figure.dots:
        if dot.site == RES:
            rows[dot.depth].append(dot)
    columns = _columns(figure, rows, spine)
    texts = _texts(figure, 1 + max(columns.values(), default=0))
    heights, bands, floor = _heights(figure)
    lanes, spots = _modules(figure, texts, heights)
    start = MARGIN + AXIS + sum(lanes.values()) + (30.0 if any(lanes.values()) else 12.0)
    xs = _column_places(columns, texts, start)
    for dot in figure.dots:
        if dot.site == RES:
            words, aside, width = texts[dot.id]
            x = xs[columns[dot.id]]
            spots[dot.id] = Spot(x, heights[dot.id], words, aside, x + 13.0, False, width)
    right = max((spot.x if spot.left else spot.text + spot.width for spot in spots.values()), default=start)
    names = {ATT: MARGIN + AXIS + lanes[ATT] - 6, MLP: MARGIN + AXIS + lanes[ATT] + lanes[MLP] - 6, RES: start}
    names = {site: x for site, x in names.items() if site == RES or lanes[site]}
    ordered = {depth: place for place, depth in enumerate(sorted(rows))}
    return Layout(spots, bands, names, spine, ordered, max(right + MARGIN, 560.0), floor)


def _spine(figure: Figure) -> frozenset[str]:
    """The seed and the residual features that the best matches lead to from it, in both directions."""
    sites = {dot.id: dot.site for dot in figure.dots}
    earlier: dict[str, list[tuple[bool, float, str]]] = defaultdict(list)
    later: dict[str, list[tuple[bool, float, str]]] = defaultdict(list)
    for line in figure.lines:
        # What is outside the cut goes on only where nothing inside does.
        if sites[line.target] == RES:
            earlier[line.source].append((line.outside, -line.weight, line.target))
        if sites[line.source] == RES:
            later[line.target].append((line.outside, -line.weight, line.source))
    seed = figure.seed if figure.seed in sites else min(sites, default=None)
    if seed is None:
        return frozenset()
    spine = {seed} if sites[seed] == RES else set()
    for ways in (earlier, later):
        at = seed
        while ways[at]:
            at = min(ways[at])[2]
            spine.add(at)
    return frozenset(spine)


def _columns(figure: Figure, rows: Mapping[int, list[Dot]], spine: frozenset[str]) -> dict[str, int]:
    """The column of each residual feature: 0 for the spine, others near what they are matched with."""
    depths = {dot.id: dot.depth for row in rows.values() for dot in row}
    joined: dict[str, list[str]] = defaultdict(list)
    for line in figure.lines:
        if line.source in depths and line.target in depths:
            joined[line.source].append(line.target)
            joined[line.target].append(line.source)
    columns = {
        dot.id: place if dot.id not in spine else 0
        for row in rows.values()
        for place, dot in enumerate(sorted(row, key=lambda dot: (dot.id not in spine, dot.id)), 0 if len(row) else 1)
    }
    ordered = sorted(rows)
    for sweep in range(SWEEPS):
        upwards = sweep % 2 == 0
        for depth in ordered if upwards else reversed(ordered):
            keys = []
            for dot in rows[depth]:
                if dot.id in spine:
                    columns[dot.id] = 0
                    continue
                known = [columns[o] for o in joined[dot.id] if (depths[o] < depth) == upwards] or [columns[dot.id]]
                keys.append((sum(known) / len(known), columns[dot.id], dot.id))
            last = 0
            for wish, _, id_ in sorted(keys):
                last = columns[id_] = max(last + 1, round(wish))
    # Columns that nobody is left in take no room.
    used = {column: place for place, column in enumerate(sorted({0, *columns.values()}))}
    return {id_: used[column] for id_, column in columns.items()}


def _texts(figure: Figure, columns: int) -> dict[str, tuple[str, str, float]]:
    """Each feature's words, what is said after them, and how wide both are."""
    names = short_names(figure.dots)
    # The more columns, the less room for each.
    most, module = (330.0, 220.0) if columns <= 2 else (210.0, 170.0) if columns <= 4 else (130.0, 150.0)
    texts = {}
    for dot in figure.dots:
        aside = names[dot.id]
        if dot.lifecycle and dot.site == RES and columns <= 4:
            aside += f" {dot.lifecycle}" + (f" ({dot.origin})" if dot.origin in (MLP, ATT) else "")
        if dot.activation is not None:
            aside += f" fires {dot.activation:.3g}" if dot.activation > 0 else " silent"
        aside = printable(aside)
        taken = wide(aside, SMALL)
        words = fitted(printable(dot.label or ""), max((most if dot.site == RES else module) - taken - 5.0, 40.0))
        texts[dot.id] = (words, aside, taken + (wide(words) + 5.0 if words else 0.0))
    return texts


def _heights(figure: Figure) -> tuple[dict[str, float], tuple[tuple[int, float, float], ...], float]:
    """The y of every feature, the layers' bands, and where the lowest ends."""
    layers: dict[int, dict[int, list[Dot]]] = defaultdict(lambda: defaultdict(list))
    for dot in figure.dots:
        layers[dot.layer][dot.depth].append(dot)
    y = HEAD
    heights: dict[str, float] = {}
    bands = []
    for layer in sorted(layers, reverse=True):
        top = y
        y += GAP
        for depth in sorted(layers[layer], reverse=True):
            dots = layers[layer][depth]
            stream = [dot for dot in dots if dot.site == RES]
            for dot in stream:
                heights[dot.id] = y
            modules = sorted((dot for dot in dots if dot.site != RES), key=lambda dot: dot.id)
            y += (LEVEL if modules else STEP) if stream else 0.0
            for dot in modules:
                heights[dot.id] = y
                y += STEP
        y = max(y, top + GAP + LEVEL)
        bands.append((layer, top, y))
    return heights, tuple(bands), y


def _modules(
    figure: Figure, texts: Mapping[str, tuple[str, str, float]], heights: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, Spot]]:
    """The widths of both lanes, and the places of what stands in them: glyph at the lane's end, label before it."""
    lanes = {
        site: max((texts[dot.id][2] + 26.0 for dot in figure.dots if dot.site == site), default=0.0)
        for site in (ATT, MLP)
    }
    ends = {ATT: MARGIN + AXIS + lanes[ATT] - 6.0, MLP: MARGIN + AXIS + lanes[ATT] + lanes[MLP] - 6.0}
    spots = {}
    for dot in figure.dots:
        if dot.site != RES:
            words, aside, width = texts[dot.id]
            x = ends[dot.site]
            spots[dot.id] = Spot(x, heights[dot.id], words, aside, x - 10.0, True, width)
    return lanes, spots


def _column_places(
    columns: Mapping[str, int], texts: Mapping[str, tuple[str, str, float]], start: float
) -> dict[int, float]:
    """The x of every column of residual features."""
    widths: dict[int, float] = defaultdict(float)
    for id_, column in columns.items():
        widths[column] = max(widths[column], texts[id_][2])
    places, x = {}, start
    for column in range(1 + max(columns.values(), default=0)):
        places[column] = x
        x += widths[column] + 36.0
    return places

"""How often a feature is how active, as SVG: a bar for each bin of its histogram, the axis in activation."""

from __future__ import annotations

from atlas.folder.detail import Histogram
from queries.drawing.palette import QUIET, TONES
from queries.drawing.words import number, safe

_WIDTH, _HEIGHT, _FOOT = 320.0, 80.0, 16.0
_LEAST = 1.0  # pixels: a bin with one position among many must be seen


def histogram_picture(histogram: Histogram) -> str:
    """The picture: heights are numbers of positions, the tallest the picture's height."""
    tallest, bar, end = max(histogram.counts), _WIDTH / len(histogram.counts), histogram.end
    parts = []
    for bin_, count in enumerate(histogram.counts):
        if not count:
            continue
        height = max(_HEIGHT * count / tallest, _LEAST)
        area = f'x="{number(bin_ * bar)}" y="{number(_HEIGHT - height)}" width="{number(max(bar - 1, 1))}"'
        about = safe(f"{bin_ * histogram.width:g} to {(bin_ + 1) * histogram.width:g}: {count:,}")
        fill = f'class="fa-persists" fill="{TONES["persists"]}"'
        parts.append(f'<rect {fill} {area} height="{number(height)}"><title>{about}</title></rect>')
    parts.append(f'<path class="fa-edge" d="M0 {_HEIGHT:g}H{_WIDTH:g}" stroke="{QUIET}"/>')
    for x, anchor, value in ((0.0, "start", 0.0), (_WIDTH / 2, "middle", end / 2), (_WIDTH, "end", end)):
        place = f'x="{x:g}" y="{_HEIGHT + _FOOT - 3:g}" text-anchor="{anchor}"'
        parts.append(f'<text class="fa-quiet" {place} fill="{QUIET}">{value:g}</text>')
    name = safe(f"positions by activation: {sum(histogram.counts):,}, up to {end:g}")
    size = f'viewBox="0 0 {_WIDTH:g} {_HEIGHT + _FOOT:g}" width="{_WIDTH:g}" height="{_HEIGHT + _FOOT:g}"'
    return f'<svg class="fa-figure" role="img" aria-label="{name}" {size} font-size="11">{"".join(parts)}</svg>'

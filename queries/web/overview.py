"""The atlas at a glance, as SVG: a row for each layer, a bar for each site, the stream's by life cycle.

And, where it was counted, the share of the stream's best matches there that are above their floor, beside the same in a
source that cannot be one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atlas.ids import ATT, MLP, RES
from queries.drawing.palette import BAND, QUIET, TONES
from queries.drawing.words import number, safe

CYCLES = ("start", "persists", "transforms", "appears", "unexplained")
_ROW, _TOP, _AXIS = 22.0, 24.0, 46.0
_WIDTHS = {ATT: 130.0, MLP: 130.0, RES: 360.0}
_GAP, _WIDER = 56.0, 128.0  # behind a bar: for how many there are; for the shares above the floor too


def overview(rows: Sequence[Mapping[str, Any]], above: Sequence[Mapping[str, Any]] = ()) -> str:
    """The picture of an atlas's dictionaries (rows of atlas.cli.info.dictionary_rows), the last layer on top.

    above: rows of `evidence floor`.
    """
    shares = _shares(rows, above)
    gap = _WIDER if shares else _GAP
    layers: dict[int, dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        layers[row["layer"]][row["site"]].append(row)
    largest = max(
        (sum(row["features"] for row in here) for sites in layers.values() for here in sites.values()), default=1
    )
    width = _AXIS + sum(_WIDTHS.values()) + 3 * gap
    height = _TOP + _ROW * len(layers) + 30.0
    parts = []
    for place, layer in enumerate(sorted(layers, reverse=True)):
        y = _TOP + place * _ROW
        if place % 2 == 0:
            parts.append(f'<rect class="fa-band" y="{number(y)}" width="{width:g}" height="{_ROW:g}" fill="{BAND}"/>')
        parts.append(_text(8, y + 15, f"L{layer}"))
        x = _AXIS
        for site, wide in _WIDTHS.items():
            parts += _bar(layers[layer][site], site, x, y, wide / largest, shares.get((layer, site), ""))
            x += wide + gap
    x = _AXIS
    for site, wide in _WIDTHS.items():
        parts.append(_text(x, 15, site))
        x += wide + gap
    parts += _legend(height - 8.0)
    name = safe(f"{len(rows)} dictionaries by layer and site")
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg class="fa-figure" role="img" aria-label="{name}" {size} font-size="11">{"".join(parts)}</svg>'


def _shares(rows: Sequence[Mapping[str, Any]], above: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], str]:
    """By layer and site how many of the stream's best matches there are above the floor, and what chance gives.

    A stream's matches stand at the later end, a module's where it is: both are the layer that they say something of.
    """
    layers = {row["id"]: row["layer"] for row in rows}
    found: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in above:
        if row["later"] in layers:
            found[layers[row["later"]], row["site"]].append(row)
    return {place: " · " + _share(here, "above") + _share(here, "share", " / ") for place, here in found.items()}


def _share(rows: Sequence[Mapping[str, Any]], name: str, before: str = "") -> str:
    known = [row[name] for row in rows if row[name] is not None]
    return f"{before}{sum(known) / len(known):.0%}" if known else ""


def _bar(rows: Sequence[Mapping[str, Any]], site: str, x: float, y: float, scale: float, shares: str) -> Iterator[str]:
    """One site's features in one layer: living ones by life cycle, then the dead, then how many there are."""
    if not rows:
        return
    counts = {cycle: sum(row.get(cycle) or 0 for row in rows) for cycle in CYCLES} if site == RES else {}
    total = sum(row["features"] for row in rows)
    dead = sum(row["dead"] for row in rows)
    rest = total - dead - sum(counts.values())
    at = x
    for tone, count in [*counts.items(), (site if site != RES else "unexplained", rest)]:
        if count > 0:
            area = f'x="{number(at)}" y="{number(y + 4)}" width="{count * scale:.2f}" height="14"'
            about = safe(f"{count:,} {tone if tone in counts else 'living'}")
            yield f'<rect class="fa-{tone}" {area} fill="{TONES[tone]}"><title>{about}</title></rect>'
            at += count * scale
    if dead:
        area = f'x="{number(at)}" y="{number(y + 4)}" width="{max(dead * scale, 0.5):.2f}" height="14"'
        look = f'class="fa-dead" fill="none" stroke="{QUIET}" stroke-width="0.8"'
        yield f"<rect {area} {look}><title>{dead:,} dead</title></rect>"
        at += dead * scale
    yield _text(at + 5, y + 15, f"{total:,}{shares}")


def _legend(y: float) -> Iterator[str]:
    x = _AXIS
    for cycle in CYCLES:
        area = f'x="{number(x)}" y="{number(y - 9)}" width="10" height="10"'
        yield f'<rect class="fa-{cycle}" {area} fill="{TONES[cycle]}"/>'
        yield _text(x + 14, y, cycle)
        x += 92.0
    yield f'<rect x="{number(x)}" y="{number(y - 9)}" width="10" height="10" fill="none" stroke="{QUIET}"/>'
    yield _text(x + 14, y, "dead (no direction)")


def _text(x: float, y: float, text: str) -> str:
    return f'<text class="fa-quiet" x="{number(x)}" y="{number(y)}" fill="{QUIET}">{safe(text)}</text>'

"""Colours and glyphs: a glyph by site, a colour by life cycle, a ring around the feature asked about.

The colours are Okabe and Ito's and Tol's, which colour-blind readers tell apart; never colour alone: life cycles stand
in words beside each feature, sites have glyphs, lines have dashes.
"""

from __future__ import annotations

from atlas.ids import ATT, MLP, RES
from queries.drawing.figure import Dot
from queries.drawing.words import number

INK, QUIET, PAPER, BAND, EDGE, HALO = "#1b2430", "#566172", "#ffffff", "#f4f6f9", "#7d8898", "#f0c419"
# By life cycle, of residual features; by site, of modules.
TONES = {
    "start": "#3d4756",
    "persists": "#0072b2",
    "transforms": "#d55e00",
    "appears": "#00845f",
    "unexplained": "#83888f",
    ATT: "#aa4499",
    MLP: "#8a6a00",
}
SITES = {ATT: "attention", MLP: "MLP", RES: "residual stream"}

_R = 5.0  # pixels: radius of a glyph
_DARK = {
    "start": "#c3ccd8",
    "persists": "#56b4e9",
    "transforms": "#f2903c",
    "appears": "#35c496",
    "unexplained": "#969ca5",
    ATT: "#de8ccb",
    MLP: "#dcb945",
}


def dark_rules() -> str:
    """CSS for a picture on a dark page: what it says wins over the attributes that the picture carries."""
    rules = [
        ".fa-paper{fill:#12171e}.fa-band{fill:#1a222c}.fa-ink{fill:#e6ebf2}.fa-quiet{fill:#a3afbe}",
        ".fa-edge{stroke:#8793a5}.fa-seed{stroke:#e6ebf2}.fa-hollow{fill:#12171e}.fa-edge.fa-weak{stroke:#5d6877}",
        *(f".fa-from-{site}{{stroke:{_DARK[site]}}}" for site in (ATT, MLP)),
        *(
            f".fa-{name}{{fill:{tone}}}.fa-hollow.fa-{name}{{fill:#12171e;stroke:{tone}}}"
            for name, tone in _DARK.items()
        ),
    ]
    return "".join(rules)


def tone_of(dot: Dot) -> str:
    """What a feature is coloured by: its life cycle in the stream, its site elsewhere."""
    return dot.site if dot.site != RES else dot.lifecycle if dot.lifecycle in TONES else "unexplained"


def shape(site: str, x: float, y: float, paint: str) -> str:
    """The glyph of a site."""
    if site == RES:
        return f'<circle {paint} cx="{number(x)}" cy="{number(y)}" r="{_R:g}"/>'
    if site == ATT:
        return f'<path {paint} d="M{number(x)} {number(y - 5)}l5.5 9.5h-11z"/>'
    return f'<rect {paint} x="{number(x - 4.5)}" y="{number(y - 4.5)}" width="9" height="9"/>'


def glyph(dot: Dot, x: float, y: float, seed: bool) -> str:
    """A feature's glyph at a place; hollow where the feature is outside the cut."""
    tone = tone_of(dot)
    paint = f'class="fa-{tone}" fill="{TONES[tone]}"'
    if dot.outside:
        paint = f'class="fa-hollow fa-{tone}" fill="{PAPER}" stroke="{TONES[tone]}" stroke-width="1.5"'
    ring = ""
    if seed:
        around = f'cx="{number(x)}" cy="{number(y)}" r="9"'
        ring = f'<circle class="fa-seed" {around} fill="none" stroke="{INK}" stroke-width="2"/>'
    return shape(dot.site, x, y, paint) + ring

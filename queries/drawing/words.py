"""Text in a picture: how wide it is without asking a font, cut to fit, and escaped.

Widths are those of DejaVu Sans, wider than what most browsers use, so that what fits here fits there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from unicodedata import combining, east_asian_width

from atlas.cli.output import printable

SIZE = 11.0  # pixels of the text beside a glyph
_PLAIN = re.compile(r"[A-Za-z0-9_#/.,:;()…←%-]+(?: [A-Za-z0-9_#/.,:;()…←%-]+)*")
_NARROW, _SLIM, _BROAD = set("ijl.,:;'|! "), set('frtI()[]{}/\\-"`'), set("mwMW@%—…")
# Shares of the font's size.
_ASCII = {
    c: 0.34 if c in _NARROW else 0.47 if c in _SLIM else 1.0 if c in _BROAD else 0.76 if c.isupper() else 0.65
    for c in map(chr, range(32, 127))
}


def wide(text: str, size: float = SIZE) -> float:
    """Pixels that a text takes, rather more than less."""
    if text.isascii():
        return size * sum(map(_ASCII.__getitem__, text))
    return size * sum(_ASCII.get(c) or _other(c) for c in text)


def fitted(text: str, most: float, size: float = SIZE) -> str:
    """The text cut to so many pixels; empty where not even a few letters fit."""
    if wide(text, size) <= most:
        return text
    room = most / size - 1.0  # for the ellipsis
    for place, character in enumerate(text):
        room -= _ASCII.get(character) or _other(character)
        if room < 0:
            return text[:place].rstrip() + "…" if place > 1 else ""
    return text


def safe(text: str) -> str:
    """Text as XML and HTML take it: on one line, nothing that acts, quotes included."""
    # Most are ids and plain words, and a large drawing has ten thousand.
    if _PLAIN.fullmatch(text):
        return text
    return escape(printable(text), quote=True)


def escaped(text: str) -> str:
    """Text of several lines for HTML: line ends stay, what acts does not."""
    return "<br>".join(safe(line) for line in text.split("\n"))


def number(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


@lru_cache(4096)
def _other(character: str) -> float:
    if combining(character):
        return 0.0
    return 1.1 if east_asian_width(character) in "WF" else 1.0 if ord(character) < 0x2190 else 1.4

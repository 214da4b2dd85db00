"""A drawing as one HTML file: it opens without a network, under a policy that lets nothing be loaded or evaluated."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from queries.drawing.dots import Link
from queries.drawing.figure import Figure, Line
from queries.drawing.palette import dark_rules
from queries.drawing.svg import svg
from queries.drawing.words import safe

HELP = "Hover or Tab to a feature; arrows walk along its matches, p or Enter pins, Home goes back, Esc clears."


def html(figure: Figure) -> str:
    """The file: picture, threshold, pins and the table of edges; without scripts the picture and the table."""
    style = static("alone.css") + static("drawing.css") + dark_style()
    script = static("drawing.js")
    allowed = f"style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    least = min((line.similarity for line in figure.lines), default=0.0)
    title = safe(figure.title or "flow graph")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{style}</style></head><body><main data-drawing><h1>{title}</h1>"
        f"{threshold(least)}"
        f'<div class="scroll" role="region" aria-label="picture" tabindex="0">{svg(figure)}</div>'
        f'<p class="quiet">{HELP}</p><p data-status role="status"></p>'
        f"<section data-pins hidden><h2>Pinned</h2><ul></ul></section>"
        f"{table(figure)}</main>"
        f'<script type="module">{script}</script></body></html>\n'
    )


def threshold(least: float) -> str:
    """The slider, from the smallest cosine there is; hidden until a script serves it."""
    limits = f'min="{int(100 * least) / 100:.2f}" max="1" step="0.01" value="{int(100 * least) / 100:.2f}"'
    return (
        f'<p hidden><label>smallest cosine shown <input type="range" data-threshold {limits}></label> '
        "<output data-threshold></output></p>"
    )


def table(figure: Figure, *, link: Link | None = None) -> str:
    """The edges as a table, the latest first; `link`: where each feature leads."""
    places = {dot.id: place for place, dot in enumerate(figure.dots)}
    labels = {dot.id: dot.label or "" for dot in figure.dots}
    extra = [
        name
        for name in ("cofire", "effect", "share", "push")
        if any(getattr(line, name) is not None for line in figure.lines)
    ]
    head = "".join(f"<th>{name}</th>" for name in ("later", "earlier", "cosine", "rank", *extra))
    ordered = sorted(figure.lines, key=lambda line: (-places[line.source], -places[line.target]))

    def named(id_: str) -> str:
        return safe(id_) if link is None else f'<a href="{safe(link(id_))}">{safe(id_)}</a>'

    def row(line: Line) -> str:
        ends = "".join(f"<td>{named(id_)}<br>{safe(labels[id_])}</td>" for id_ in (line.source, line.target))
        values = (line.similarity, line.rank, *(getattr(line, name) for name in extra))
        cells = "".join(f'<td class="number">{_shown(value)}</td>' for value in values)
        place = f"{places[line.source]}-{places[line.target]}"
        return f'<tr data-e="{place}" data-s="{line.similarity:.3f}">{ends}{cells}</tr>'

    body = "".join(map(row, ordered))
    return f"<table><caption>Edges</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@cache
def static(name: str) -> str:
    """One of the files beside this module, as text."""
    return (files("queries.drawing") / "static" / name).read_text(encoding="utf-8")


def dark_style() -> str:
    """What a picture within a page needs on a dark screen."""
    return f"@media (prefers-color-scheme:dark){{{dark_rules()}}}"


def _shown(value: float | int | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

"""A document as blocks, written as Markdown and as one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.cli.output import printable

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.6rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; } figcaption { font-size: 0.9rem; color: #444; }
pre { background: #f4f4f4; padding: 0.8rem; overflow-x: auto; font-size: 0.85rem; white-space: pre-wrap; }
@media (prefers-color-scheme: dark) { figure img { background: #fff; } }
"""


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the document's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Listed:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text as it stands."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

    columns: Sequence[str]
    rows: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """An SVG file with its caption and the file of its numbers, both relative to the report's folder."""

    path: str
    caption: str
    numbers: str


Block = Heading | Text | Listed | Code | Table | Figure


def markdown(blocks: Sequence[Block]) -> str:
    """The document as Markdown; what came from models and labels is shown, never acted on."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def page(blocks: Sequence[Block], folder: Path) -> str:
    """The document as one HTML file: figures inside, no script, and a policy under which nothing can be loaded.

    folder: where the figures' paths start.
    """
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(_html(block, folder) for block in blocks)
        + "\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Listed(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Code(text):
            text = _lines(text)
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
            return f"{fence}text\n{text}\n{fence}"
        case Table(columns, rows):
            lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
            return "\n".join(lines + [f"| {' | '.join(_plain(_cell(row.get(c))) for c in columns)} |" for row in rows])
        case Figure(path, caption, numbers):
            return f"![{_plain(caption)}]({path})\n\n{_plain(caption)} (numbers: [{numbers}]({numbers}))"


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Listed(items):
            return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"
        case Code(text):
            return f"<pre>{html.escape(_lines(text))}</pre>"
        case Table(columns, rows):
            head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
            body = "".join(f"<tr>{''.join(_td(row.get(name)) for name in columns)}</tr>" for row in rows)
            return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        case Figure(path, caption, numbers):
            image = base64.b64encode((folder / path).read_bytes()).decode()
            text = html.escape(f"{caption} (numbers: {numbers})")
            source = f"data:image/svg+xml;base64,{image}"
            return f'<figure><img alt="{html.escape(caption)}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _td(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td class="number">{_cell(value)}</td>' if number else f"<td>{html.escape(_cell(value))}</td>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    return printable(str(value))


def _lines(text: str) -> str:
    """The text without what a terminal or a reader would act on, its lines kept."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _plain(text: str) -> str:
    """Text that Markdown takes for text: on one line, its marks escaped."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable(text))

"""What a notebook is given: text, and a picture or a table that reads where scripts and styles are taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from atlas.cli.output import printable


def bundle(text: str, picture: str, include: Any = None, exclude: Any = None) -> dict[str, str]:
    """The mime bundle of IPython's display: plain text and HTML, as far as they are asked for."""
    made = {"text/plain": text, "text/html": picture}
    return {
        kind: value for kind, value in made.items() if (not include or kind in include) and kind not in (exclude or ())
    }


def table(rows: Sequence[Mapping[str, Any]], caption: str = "", columns: Sequence[str] | None = None) -> str:
    """Rows as an HTML table without styles; what is None is empty. `columns`: all that the rows have, if not given."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    head = "".join(f"<th>{_safe(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(name))}</td>" for name in columns) + "</tr>" for row in rows)
    title = f"<caption>{_safe(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return "" if value is None else _safe(f"{value:.3g}" if isinstance(value, float) else str(value))


def _safe(text: str) -> str:
    return escape(printable(text), quote=True)

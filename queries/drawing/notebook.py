"""What a notebook is given: text, and a picture or a table that reads where scripts and styles are taken out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from queries.drawing.words import safe


def bundle(text: str, picture: str, include: Any = None, exclude: Any = None) -> dict[str, str]:
    """The mime bundle of IPython's display: plain text and HTML, as far as they are asked for."""
    made = {"text/plain": text, "text/html": picture}
    return {
        kind: value for kind, value in made.items() if (not include or kind in include) and kind not in (exclude or ())
    }


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> str:
    """Rows as an HTML table without styles; what is None is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{safe(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(name))}</td>" for name in columns) + "</tr>" for row in rows)
    title = f"<caption>{safe(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    return "" if value is None else safe(f"{value:.3g}" if isinstance(value, float) else str(value))

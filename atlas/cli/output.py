"""Rows on stdout: as a table that fits the terminal, as json, as jsonl, as csv."""

from __future__ import annotations

import codecs
import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

# What drawings become where the terminal has no such characters.
_PLAIN = str.maketrans({"│": "|", "─": "-", "┼": "+", "├": "|", "└": "`", "…": "...", "·": "."})
FORMATS = ("table", "json", "jsonl", "csv")
_WIDEST = 4096  # a table that goes into a pipe is not cut to a terminal


def use_any_terminal() -> None:
    """Let stdout and stderr take every character: where their encoding has none, its `\\u` escape, as JSON has it."""
    codecs.register_error("feature-atlas", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="feature-atlas")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(each if each.isascii() else json.dumps(each)[1:-1] for each in part), error.end


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], format_: str = "table") -> None:
    """Print rows in one of FORMATS; `columns` gives the order and stands where there are no rows."""
    sys.stdout.write(render(rows, columns, format_, _width()))


def render(rows: Sequence[dict[str, Any]], columns: Sequence[str], format_: str, width: int = _WIDEST) -> str:
    """The text of `print_rows`, its table at most `width` characters wide."""
    if format_ == "json":
        return (
            json.dumps([{c: row.get(c) for c in columns} for row in rows], indent=1, ensure_ascii=False, default=str)
            + "\n"
        )
    if format_ == "jsonl":
        lines = (json.dumps({c: row.get(c) for c in columns}, ensure_ascii=False, default=str) for row in rows)
        return "".join(line + "\n" for line in lines)
    if format_ == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell_csv(row.get(c)) for c in columns] for row in rows)
        return text.getvalue()
    return _table(rows, columns, width)


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST


def _cell_csv(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(str(value).split())


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str], width: int) -> str:
    # A column that says nothing takes room from those that do.
    columns = [c for c in columns if not rows or any(row.get(c) is not None for row in rows)] or list(columns)
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    right = [all(isinstance(row.get(c), int | float | None) for row in rows) and bool(rows) for c in columns]
    sizes = [max(len(c), *(len(line[i]) for line in cells), 0) for i, c in enumerate(columns)]
    # The widest column gives way until the table fits.
    while sum(sizes) + 2 * (len(sizes) - 1) > width and max(sizes) > 8:
        excess = sum(sizes) + 2 * (len(sizes) - 1) - width
        widest = sizes.index(max(sizes))
        sizes[widest] = max(8, sizes[widest] - excess)

    def line(values: Sequence[str]) -> str:
        parts = [_fit(v, sizes[i], right[i]) for i, v in enumerate(values)]
        return "  ".join(parts).rstrip() + "\n"

    return line(list(columns)) + line(["─" * size for size in sizes]) + "".join(line(values) for values in cells)


def _fit(text: str, size: int, right: bool) -> str:
    if len(text) > size:
        text = text[: size - 1] + "…"
    return text.rjust(size) if right else text.ljust(size)

"""Rows on stdout: as a table that fits the terminal, as json, as jsonl, as csv; text that no terminal or sheet acts on.

Labels come from elsewhere. Control characters in them would move the cursor, change colours or reverse the line, so a
table shows spaces in their place; json escapes them by itself. A spreadsheet takes a cell of a csv that begins with one
of = + - @ for a formula: text that does gets an apostrophe before it, as spreadsheets themselves write it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

from atlas.errors import OutputError
from atlas.ids import Names

FORMATS = ("table", "json", "jsonl", "csv")
PICTURES = ("svg", "html", "png")  # what a graph is drawn as, besides text
_WIDEST = 4096  # a table that goes into a pipe is not cut to a terminal
_NARROWEST = 8  # columns of a terminal that a column of words keeps
_NARROWEST_NAME = 5  # and the name of a column of numbers
# Escape sequences as a whole; control characters, marks that turn the direction of writing, lone surrogates, and what
# ends a line for some readers only.
_UNPRINTABLE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|"
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]+"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def print_rows(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    format_: str = "table",
    *,
    most: int | None = None,
    names: Names | None = None,
) -> None:
    """Print rows in one of FORMATS; `columns` gives the order and stands where there are no rows.

    Of more than `most` rows the rest is left out, which is said on stderr. A table that is too wide for the terminal
    has short ids where `names` says that the atlas holds one model alone: every command takes them. On a terminal ids
    of features that Neuronpedia shows are links there.
    """
    sys.stdout.write(render(rows[:most], columns, format_, _width(), names))
    if most is not None and len(rows) > most:
        sys.stderr.write(f"cut after {most} rows; --limit N gives more\n")


def print_kept(rows: Sequence[dict[str, Any]], columns: Sequence[str], format_: str, keep: Callable[[], None]) -> None:
    """Print a table that took long, then keep it for the page; where that fails it is said, and the table is there."""
    print_rows(rows, columns, format_)
    try:
        keep()
    except OSError as error:
        sys.stderr.write(f"not kept for the page: {error}\n")


def render(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    format_: str,
    width: int = _WIDEST,
    names: Names | None = None,
) -> str:
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
    linked = names.page if names is not None and names.places and sys.stdout.isatty() else None
    whole = _table(rows, columns, _WIDEST)
    if max(map(columns_wide, whole.splitlines())) > width and names is not None and names.model:
        rows = [_shortened(row, f"{names.model}/") for row in rows]
    return _table(rows, columns, width, linked)


def terminal_width(otherwise: int) -> int:
    """Columns of the terminal that stdout is; `otherwise` where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else otherwise


def deliver(content: str | bytes, path: Path | None) -> None:
    """Write a result to a file, or to stdout where there is none; bytes never go to a terminal.

    Raises OutputError where the file cannot be written.
    """
    if path is not None:
        try:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}); give -o a file in a folder") from None
    elif isinstance(content, str):
        sys.stdout.write(content)
    elif sys.stdout.isatty():
        raise OutputError("this is no text for a terminal: give it a file, -o FILE")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


def lines(named: Mapping[str, str]) -> str:
    """Names and what belongs to each, a line each, in two columns."""
    widest = max(map(len, named), default=0)
    return "\n".join(f"{name:<{widest}} {text}" for name, text in named.items())


def _width() -> int:
    return terminal_width(_WIDEST)


def printable(text: str) -> str:
    """The text on one line, without what a terminal, XML or a line's reader would act on."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def bars(counts: Sequence[int]) -> str:
    """Counts as a line of bars, one character each: of eight heights, nothing for none.

    Example:
        >>> bars([0, 1, 4, 8])
        ' ▁▄█'
    """
    most = max(counts, default=1)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // most) if count else 0] for count in counts)


def columns_wide(text: str) -> int:
    """Terminal columns that a text takes: wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def fit(text: str, width: int) -> str:
    """The text cut to so many terminal columns."""
    if columns_wide(text) <= width:
        return text
    used = 0
    for place, character in enumerate(text):
        used += columns_wide(character)
        if used > width - 1:
            return text[:place] + "…"
    return text


def _cell_csv(value: Any) -> Any:
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return printable(str(value))


def _table(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    width: int,
    page: Callable[[str], str | None] | None = None,
) -> str:
    # A column that says nothing takes room from those that do.
    columns = [c for c in columns if not rows or any(row.get(c) is not None for row in rows)] or list(columns)
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    right = [all(isinstance(row.get(c), int | float | None) for row in rows) and bool(rows) for c in columns]
    sizes = [max(columns_wide(c), *(columns_wide(line[i]) for line in cells), 0) for i, c in enumerate(columns)]
    # Words give way until the table fits, the widest first; numbers, and ids that the next command wants, never do.
    words = [i for i in range(len(columns)) if not right[i] and any(" " in line[i] for line in cells)]
    # After them the names of columns, down to what stands below them.
    below = [max([_NARROWEST_NAME, *(columns_wide(line[i]) for line in cells)]) for i in range(len(columns))]
    while sum(sizes) + 2 * (len(sizes) - 1) > width:
        widest = max(words, key=lambda i: sizes[i], default=-1)
        if widest < 0 or sizes[widest] <= _NARROWEST:
            widest = max(set(range(len(columns))) - set(words), key=lambda i: sizes[i] - below[i], default=-1)
            if widest < 0 or sizes[widest] <= below[widest]:
                break
        sizes[widest] -= 1

    def line(values: Sequence[str]) -> str:
        parts = [_padded(fit(v, sizes[i]), sizes[i], right[i], page(v) if page else None) for i, v in enumerate(values)]
        return "  ".join(parts).rstrip() + "\n"

    return line(list(columns)) + line(["─" * size for size in sizes]) + "".join(line(values) for values in cells)


def _shortened(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name: value.removeprefix(prefix) if isinstance(value, str) else value for name, value in row.items()}


def _padded(text: str, size: int, right: bool, link: str | None) -> str:
    space = " " * (size - columns_wide(text))
    # A terminal that knows no links shows the text alone.
    shown = f"\x1b]8;;{link}\x1b\\{text}\x1b]8;;\x1b\\" if link else text
    return space + shown if right else shown + space

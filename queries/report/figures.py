"""Figures of a sweep, each an SVG with its numbers beside it as CSV; colours that colour-blind readers tell apart.

Without matplotlib (extra `plots`) the numbers are written all the same, and the report says that figures are missing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from atlas.cli.output import render
from atlas.folder.manifest import replacing, write_text
from queries.report.page import Figure

# Okabe and Ito's palette without its yellow, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # shapes as well: some readers see, or print, no colour
FIGURES = "figures"
Rows = Sequence[Mapping[str, Any]]


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def figure(folder: Path, name: str, caption: str, rows: Rows, draw: Callable[[Any], None]) -> Figure | None:
    """Write `figures/NAME.csv` and, with matplotlib, `figures/NAME.svg`, which `draw` fills; None without rows.

    draw: given matplotlib's axes. The same rows give the same file, byte by byte.
    """
    if not rows:
        return None
    numbers = f"{FIGURES}/{name}.csv"
    write_text(folder / numbers, render([dict(row) for row in rows], list(rows[0]), "csv"))
    if not can_draw():
        return None
    path = f"{FIGURES}/{name}.svg"
    with replacing(folder / path) as temporary:
        temporary.write_bytes(drawn(draw))
    return Figure(path, caption, numbers)


def drawn(draw: Callable[[Any], None]) -> bytes:
    """A figure as SVG: what `draw` does to matplotlib's axes."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    made = io.BytesIO()
    with pyplot.rc_context({"svg.hashsalt": "feature-atlas", "svg.fonttype": "path", "font.size": 10}):
        picture, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
        try:
            draw(axes)
            picture.savefig(made, format="svg", metadata={"Date": None})
        finally:
            pyplot.close(picture)
    return made.getvalue()


def lines(rows: Rows, x: str, y: str, by: str, labels: tuple[str, str]) -> Callable[[Any], None]:
    """A line with error bars for each value of `by`; y has columns `y_low`, `y_high`, or `low`, `high`."""

    def draw(axes: Any) -> None:
        # In the order in which they first stand in the rows, numbers by size.
        places = list(dict.fromkeys(row[x] for row in rows))
        if all(isinstance(place, int | float) for place in places):
            places.sort()
        names = list(dict.fromkeys(row[by] for row in rows))
        for number, name in enumerate(names):
            points = [row for row in rows if row[by] == name and row[y] is not None]
            points.sort(key=lambda row: places.index(row[x]))
            at = [places.index(row[x]) + 0.06 * (number - (len(names) - 1) / 2) for row in points]
            axes.errorbar(
                at,
                [row[y] for row in points],
                yerr=_errors(points, y),
                label=str(name),
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=("-", "--", ":")[number // len(COLOURS) % 3],
                capsize=2,
            )
        axes.set_xticks(range(len(places)), [str(place) for place in places])
        _finished(axes, *labels)
        axes.legend(fontsize=8, ncols=1 + (len(names) > 5), loc="best")

    return draw


def forest(rows: Rows, x: str, name: str, label: str, zero: bool = False) -> Callable[[Any], None]:
    """A point with its interval a row, one under another; `zero` draws the line of no difference."""

    def draw(axes: Any) -> None:
        known = [row for row in rows if row[x] is not None]
        for place, row in enumerate(known):
            bars = _errors([row], x)
            axes.errorbar([row[x]], [-place], xerr=bars, color=COLOURS[0], marker="o", capsize=3)
        if zero:
            axes.axvline(0, color="#888888", linewidth=1)
        axes.set_yticks([-place for place in range(len(known))], [str(row[name]) for row in known])
        _finished(axes, label, "")

    return draw


def trade(rows: Rows, labels: tuple[str, str]) -> Callable[[Any], None]:
    """Words against nats, an arm a point with both intervals."""

    def draw(axes: Any) -> None:
        for number, row in enumerate(row for row in rows if row["words"] is not None and row["nats"] is not None):
            axes.errorbar(
                [row["nats"]],
                [row["words"]],
                xerr=_errors([row], "nats"),
                yerr=_errors([row], "words"),
                label=row["arm"],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                capsize=2,
                linestyle="",
            )
        _finished(axes, *labels)
        axes.legend(fontsize=8, loc="best")

    return draw


def _errors(points: Rows, y: str) -> list[list[float]]:
    """Distances down and up to the interval's ends; 0 where there is none."""
    low, high = (f"{y}_low", f"{y}_high") if points and f"{y}_low" in points[0] else ("low", "high")
    return [
        [max(0.0, row[y] - row[low]) if row.get(low) is not None else 0.0 for row in points],
        [max(0.0, row[high] - row[y]) if row.get(high) is not None else 0.0 for row in points],
    ]


def _finished(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

"""The evidence's part of a report: every table that is there, and figures of those whose columns are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from queries.report.contents import Rows
from queries.report.figures import figure, lines
from queries.report.page import Block, Heading, Table, Text

_LONGEST = 40  # characters of a value in a file's name
_MOST = 200  # rows of a table in the document; all are in its file
ABOUT = {
    "deactivation": "Does the target stop when a predecessor is removed? The paper (§5.2, Table 1) has 65 % for the "
    "best match and 73 % for the best of all active ones, on targets that have one group alone; its random baseline is "
    "one of the target's own five best, and no other control stands beside. Margin: activation by threshold.",
    "cosine": "Success of removing the best match, by its cosine.",
    "recall": "Of the strong effects that an exhaustive search finds, which a ranking names; and its precision.",
    "map": "Explained variance of the next layer's stream by the map, about the mean. The paper's best (App. F, layers "
    "14 to 15 of Gemma 2 2B) is .79, with no ceiling, skip or shuffled map beside it.",
    "groups": "Predecessor groups by layer. In the paper too (§5.1) most occurrences come from nowhere; it compares "
    "groups by p-values of occurrences, which are not independent, without an effect size.",
    "controls": "How often a feature's best match is active where the feature is, beside a random feature of that "
    "dictionary, random rows that nobody trained (arXiv 2602.14111), and a module that cannot be the source.",
    "floor": "Best matches above the pair's noise floor, beside those in a module that writes only behind the feature.",
    "stability": "Whether two sets of dictionaries at the same places, seeds or widths, give the same answers.",
    "golden": "The graph that the paper prints (Table 5).",
}


def evidence_blocks(evidence: Mapping[str, Rows], folder: Path) -> Iterator[Block]:
    """A heading, a sentence, figures and the table of each."""
    for name, rows in evidence.items():
        yield Heading(f"Evidence: {name}")
        if name in ABOUT:
            yield Text(ABOUT[name])
        for part, caption, chosen, draw in pictures(rows):
            made = figure(folder, f"evidence-{name}{part}", f"{name}: {caption}.", chosen, draw)
            if made is not None:
                yield made
        columns = list(dict.fromkeys(column for row in rows for column in row))
        yield Table(columns, rows[:_MOST])
        if len(rows) > _MOST:
            yield Text(f"{len(rows) - _MOST} further rows are in evidence/{name}.")


def pictures(rows: Rows) -> Iterator[tuple[str, str, Rows, Callable[[Any], None]]]:
    """Figures that the columns of a table call for: a part of a name, a caption, the rows drawn, and the drawing."""
    columns = set(rows[0]) if rows else set()
    # x, y, a line for each, a figure for each, and what is kept of the rest
    for x, y, by, each, only in (
        ("cosine", "success", "layer", "site", {}),
        ("layer", "success", "method", "site", {"margin": "all"}),
        ("layer", "success", "method", "site", {"margin": "above 1.5"}),
        ("layer", "recall", "by", "site", {"margin": "above 1.5", "top": 5}),
        ("target", "explained_variance", "method", None, {}),
        ("layer", "share", "group", "site", {}),
        ("layer", "share", "method", "site", {}),
        ("layer", "same", "question", None, {}),
    ):
        if not {x, y, by, *only} <= columns:
            continue
        points = [row for row in rows if _drawable(row, x, y, by)]
        kept = [row for row in points if all(row.get(name) == value for name, value in only.items())]
        told = ", ".join(f"{name} {value}" for name, value in only.items())
        for value in dict.fromkeys(row.get(each) if each else None for row in kept):
            chosen = [row for row in kept if each is None or row.get(each) == value]
            words = [f"-{word}"[:_LONGEST] for word in (value, *only.values()) if word is not None]
            part = re.sub(r"[^\w.-]", "_", "".join(words))
            caption = f"{y} by {x}" + (f", {each} {value}" if value is not None else "") + (f", {told}" if told else "")
            yield part, caption, chosen, lines(chosen, x, y, by, (x, y))


def _drawable(row: Mapping[str, Any], x: str, y: str, by: str) -> bool:
    """Whether a row can be a point: rows come from files, which anybody may have written."""
    plain = all(value is None or isinstance(value, str | int | float) for value in row.values())
    numbers = [row[name] for name in (f"{y}_low", f"{y}_high") if row.get(name) is not None]
    return plain and {x, by} <= row.keys() and all(isinstance(value, int | float) for value in (row.get(y), *numbers))

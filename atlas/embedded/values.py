"""What engines say, for people."""

from __future__ import annotations

import re

from atlas.schema import EDGE_FIGURES


def first_line(text: object) -> str:
    """An engine's message without the picture of the statement that follows it."""
    return (str(text).strip() or type(text).__name__).splitlines()[0]


def explained(message: str) -> str:
    """An engine's message, with what to do where an atlas of an earlier version lacks a figure of its edges."""
    missing = re.search(r"Cannot find property (\w+)", message)
    if missing is None or missing[1] not in EDGE_FIGURES:
        return message
    return f"edges have no {missing[1]} yet, as the atlas is of an earlier version; run: feature-atlas ingest -a FOLDER"

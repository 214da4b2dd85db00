"""What engines say, for people."""

from __future__ import annotations


def first_line(text: object) -> str:
    """An engine's message without the picture of the statement that follows it."""
    return (str(text).strip() or type(text).__name__).splitlines()[0]

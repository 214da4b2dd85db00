"""Columns of text made safe for a format, without a loop over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# As atlas.cli.output: control characters, marks that turn the direction of writing, what no XML may hold.
_CONTROLS = r"[\x00-\x1f\x7f-\x{9f}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}\x{fffe}\x{ffff}]+"
_ENTITIES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"))


def without_controls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with a space in the place of what a terminal, a sheet or XML would act on."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(column, _CONTROLS, " ")


def for_xml(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as XML's text and attributes need it."""
    import pyarrow.compute as pc

    column = without_controls(column)
    for character, entity in _ENTITIES:
        column = pc.replace_substring(column, character, entity)
    return column

"""Figures of edges written to an atlas: staged with its matches, published as a new state, recorded as measured.

Each pair whose figures change gets a new staged file beside the old one, named by its content; the manifest that names
the new state names the new files. Broken off anywhere, the atlas is in the one state or the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.cli.progress import Progress
from atlas.folder.lock import writing
from atlas.folder.manifest import Manifest, disk_errors
from atlas.folder.matches import measured_name, read_pair, read_table, split, write
from atlas.folder.paths import matches_file
from atlas.graph.publish import publish, store_for_writing
from atlas.graph.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Figures:
    """An atlas's staged pairs while figures are added to them."""

    folder: Path
    manifest: Manifest
    store: Store
    names: dict[str, str] = field(default_factory=dict)  # of files staged anew, by those they stand in for

    def read(self, name: str) -> pa.Table:
        """The rows of a pair's file: matches, and what its features fire with."""
        return read_table(matches_file(self.folder, name))

    def stage(self, name: str, table: pa.Table) -> None:
        """Write a pair's rows with new figures, to be published."""
        there = measured_name(name, table)
        if not matches_file(self.folder, there).exists():
            pair = replace(read_pair(matches_file(self.folder, name)), fires_with=len(split(table)[1]))
            write(matches_file(self.folder, there), pair, table)
        self.names[name] = there

    def publish(self, measured: dict[str, Any], progress: Progress) -> None:
        """Make a state with the new figures the current one.

        measured: what the manifest records of where they come from; replaces what has the same kind.
        """
        names = tuple(self.names.get(name, name) for name in self.manifest.pairs)
        others = tuple(each for each in self.manifest.measured if each["kind"] != measured["kind"])
        publish(self.folder, self.store, replace(self.manifest, pairs=names, measured=(*others, measured)), progress)


@contextmanager
def figures_of(folder: Path) -> Iterator[Figures]:
    """An atlas's figures with the right to change them; raises LockedAtlas where another process has it."""
    Manifest.load(folder)  # before the lock: a folder without an atlas gets none
    with disk_errors(folder), writing(folder):
        manifest = Manifest.load(folder)
        with store_for_writing(folder, manifest) as store:
            yield Figures(folder, manifest, store)


def with_column(table: pa.Table, name: str, column: np.ndarray) -> pa.Table:
    """The table with a column in place of the one of that name, or added; NaN becomes null."""
    import pyarrow as pa

    mask = np.isnan(column) if column.dtype.kind == "f" else None
    kept = table.drop_columns([name]) if name in table.column_names else table
    return kept.append_column(name, pa.array(column, mask=mask))

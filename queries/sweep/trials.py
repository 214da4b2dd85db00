"""The per-trial table: one row a text, kept in Parquet parts that are whole or not there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from atlas.folder.manifest import replacing
from queries.sweep.arms import Cell
from queries.sweep.design import Design

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "trials"


@dataclass(frozen=True)
class Trial:
    """One text: what it is of, and what it is worth; scores are None where it failed or is too short for one."""

    arm: str
    strength: str | None
    prompt: int  # its place in the design
    sample: int
    half: str  # choose or report
    draw: int  # of the arm's control
    text: str | None  # what was added to the prompt
    tokens: list[int] | None
    words: float | None
    activation: float | None
    nats: float | None
    rep3: float | None
    zlib: float | None
    failed: str | None = None  # why there is no text


class Batch:
    """Texts that are made at once: of one cell and one draw."""

    def __init__(self, half: str, cell: Cell, draw: int, number: int, texts: list[tuple[int, int]]) -> None:
        self.cell, self.draw, self.texts = cell, draw, texts  # texts: (prompt, sample)
        name = re.sub(r"[^\w.+-]+", "_", cell.name).strip("_")
        self.plan = f"{name}-{draw}.json"
        # Named by what it holds, so that a sweep that is extended finds it again.
        self.file = f"{half}-{name}-{draw}-{number:03d}.parquet"


def batches_of(design: Design, half: str, cell: Cell, draws: int, size: int) -> list[Batch]:
    """A cell's texts of one half, in batches of `size` at most; draws: plans that samples take turns with."""
    made = []
    for draw in range(draws):
        texts = [text for text in design.texts(half) if text[1] % draws == draw]
        parts = range(0, len(texts), size)
        made += [Batch(half, cell, draw, n, texts[i : i + size]) for n, i in enumerate(parts)]
    return made


def write_part(folder: Path, batch: Batch, trials: Sequence[Trial]) -> None:
    """Write a batch's trials, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([asdict(trial) for trial in trials], schema=schema())
    with replacing(folder / PARTS / batch.file) as temporary:
        pq.write_table(table, temporary)


def read_trials(folder: Path, batches: Sequence[Batch] | None = None) -> list[Trial]:
    """The trials kept so far, in the order of their parts: those of `batches`, or all. Raises PlanError."""
    names = sorted(done(folder)) if batches is None else [batch.file for batch in batches]
    paths = [folder / PARTS / name for name in names]
    return [Trial(**row) for path in paths for row in _rows(path)]


def done(folder: Path) -> set[str]:
    """The names of the parts that are there."""
    return {path.name for path in (folder / PARTS).glob("[cr]*.parquet")}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise PlanError(f"{path} is damaged ({str(error).splitlines()[0]}): delete it and repeat the sweep") from None


def schema() -> pa.Schema:
    """Columns and types of a part."""
    import pyarrow as pa

    types = {"tokens": pa.list_(pa.int64())} | dict.fromkeys(("prompt", "sample", "draw"), pa.int64())
    numbers = dict.fromkeys(("words", "activation", "nats", "rep3", "zlib"), pa.float64())
    return pa.schema([(each.name, (types | numbers).get(each.name, pa.string())) for each in fields(Trial)])

"""Which matches fire together? The job of `evidence edges`: co-firing, lift, correlation and support of every edge.

1. One pass over the text; activations go to disk, sparse (queries.evidence.firing.spool).
2. A pair of dictionaries at a time: figures of its matches (queries.evidence.firing.cofiring), and for every later
   feature its most correlated earlier ones, as many as matches are kept. Those that are no match become FIRES_WITH.
3. The graph is published with them; what an earlier measurement said is replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atlas.atlas import atlas_path, open_atlas
from atlas.cli.progress import Progress
from atlas.errors import QueryError
from atlas.folder.matches import EDGE_KINDS, read_pair, split
from atlas.folder.paths import matches_file
from hooked.direct_path import push
from queries.evidence.figures import figures_of, with_column
from queries.evidence.firing.cofiring import SUPPORT, Alone, Block, alone, together
from queries.evidence.firing.spool import Spool
from queries.evidence.sampling import draw, runnable, starts

if TYPE_CHECKING:
    import pyarrow as pa

    from atlas.atlas import Atlas
    from atlas.folder.matches import Pair

FIGURES = ("cofire", "lift", "correlation")


@dataclass(frozen=True)
class EdgesReport:
    """What was measured."""

    atlas: Path
    positions: int  # tokens that count
    sinks: int  # tokens left out as attention sinks
    edges: int  # matches that have a correlation now
    fires_with: int  # edges FIRES_WITH


def measure_edges(
    atlas: str | os.PathLike[str] | None,
    texts: Sequence[Path],
    *,
    tokens: int = 0,
    seed: int = 0,
    model: str | None = None,
    device: str = "auto",
    ray: str | None = None,
    progress: Progress | None = None,
) -> EdgesReport:
    """Measure every edge of an atlas on a text, and write what was found to its graph.

    Args:
        atlas: its folder; None: `$FEATURE_ATLAS` or `./feature-atlas`.
        tokens: read about so many of the text, in contexts drawn by `seed`; 0: all.
        model: name or folder; None: the one that the dictionaries name.
        device: auto, cpu or cuda:N, for the model.
        ray: address of a Ray cluster that runs the model, whose nodes find the atlas's folder as it is named here;
            empty: one of this machine's own; None: here, without Ray.

    Broken off, the same call goes on where it was and gives the same numbers.

    Example:
        report = measure_edges("demo-atlas", [Path("wiki.txt")], tokens=20_000)
        print(report.edges, report.fires_with)

    Raises NotAnAtlas, LockedAtlas, QueryError, IngestError for a text, ModelError for the model.
    """
    from hooked.load import load_model

    folder, progress = atlas_path(atlas), progress or Progress(quiet=True)
    with figures_of(folder) as figures, open_atlas(folder) as opened:
        records = runnable(opened.dictionaries)
        pairs = {name: read_pair(matches_file(folder, name)) for name in figures.manifest.pairs}
        pairs = {name: pair for name, pair in pairs.items() if {pair.later, pair.earlier} <= records.keys()}
        if not pairs:
            raise QueryError(f"{folder} has no pair of dictionaries that can both be run on a text")
        name = model or next(iter(records.values())).model_name
        loaded, tokenizer = load_model(name, device=device)
        sample = draw(texts, tokenizer, tokens, seed)
        spool = Spool(folder, sample, records)
        if ray is None:
            spool.fill(folder, loaded, starts(tokenizer, records), progress)
        else:
            spool.fill_on_ray(ray, opened, name, starts(tokenizer, records), progress)
        edges = fires_with = 0
        with progress.steps("co-firing", len(pairs), "pairs") as advance:
            for file, pair in pairs.items():
                table = _measured(opened, spool, pair, figures.read(file))
                figures.stage(file, table)
                known, others = split(table)
                edges, fires_with = edges + len(known) - known["correlation"].null_count, fires_with + len(others)
                advance(1)
        positions = spool.counted()
        sinks = len(sample.tokens) - positions
        figures.publish(
            sample.record(EDGE_KINDS[0], name) | {"tokens": positions, "sinks": sinks, "support": SUPPORT}, progress
        )
        # Last: until the graph has the figures, a repeat makes them from what is on disk.
        spool.drop()
    return EdgesReport(folder, positions, sinks, edges, fires_with)


def _measured(atlas: Atlas, spool: Spool, pair: Pair, staged: pa.Table) -> pa.Table:
    """The rows of a pair's file with figures of the text, and what its features fire with in place of what they did."""
    import pyarrow as pa

    matches, _ = split(staged)
    ends = pair.later, pair.earlier
    sizes = [spool.records[id_].d_sae for id_ in ends]
    # Over the positions that both count, which differ where only one was trained behind a start token.
    later, earlier = (alone((parts[end] for parts in spool.parts(*ends)), size) for end, size in enumerate(sizes))
    b, a = (matches[end].to_numpy() for end in ("later", "earlier"))
    columns = {name: np.full(len(b), np.nan) for name in FIGURES}
    others: list[dict[str, np.ndarray]] = []
    for block in together(partial(spool.parts, *ends), later, earlier):
        inside = (b >= block.first) & (b < block.first + len(block.cofire))
        for name in FIGURES:
            columns[name][inside] = getattr(block, name)[b[inside] - block.first, a[inside]]
        others.append(_correlated(block, pair.k, b[inside], a[inside]))
    columns["support"] = later.fires[b].astype(np.int64)
    for name, values in columns.items():
        matches = with_column(matches, name, values)
    new = {name: np.concatenate([part[name] for part in others]) for name in others[0]}
    return pa.concat_tables(
        [matches, _fires_with(atlas, pair, later, new).select(matches.column_names).cast(matches.schema)]
    )


def _correlated(block: Block, k: int, b: np.ndarray, a: np.ndarray) -> dict[str, np.ndarray]:
    """For every later feature of a block its k most correlated earlier ones, without the matches (b, a)."""
    correlation = np.nan_to_num(block.correlation, nan=-1.0)
    k = min(k, correlation.shape[1])
    top = np.argpartition(-correlation, k - 1, axis=1)[:, :k]
    best = np.zeros(correlation.shape, dtype=bool)
    np.put_along_axis(best, top, True, axis=1)
    best &= correlation > 0
    best[b - block.first, a] = False
    rows, earlier = np.nonzero(best)
    figures = {name: getattr(block, name)[rows, earlier] for name in FIGURES}
    return {"later": rows + block.first, "earlier": earlier} | figures


def _fires_with(atlas: Atlas, pair: Pair, later: Alone, found: Mapping[str, np.ndarray]) -> pa.Table:
    """Rows of a staged file for edges FIRES_WITH."""
    import pyarrow as pa

    b, a = found["later"], found["earlier"]
    rows = [atlas.rows(id_) for id_ in (pair.later, pair.earlier)]
    records = [atlas.dictionaries[id_] for id_ in (pair.later, pair.earlier)]
    similarity = np.empty(len(b), dtype=np.float32)
    for first in range(0, len(b), 65_536):
        part = slice(first, first + 65_536)
        similarity[part] = np.einsum("ij,ij->i", rows[0].decoder[b[part]], rows[1].decoder[a[part]])
    table = pa.table({"later": b, "earlier": a, "similarity": similarity})
    for name in ("rank", "forward_rank"):
        table = table.append_column(name, pa.nulls(len(b), pa.int32()))
    pushes = push((records[0], rows[0]), (records[1], rows[1]), b, a)
    table = with_column(table, "push", np.full(len(b), np.nan) if pushes is None else pushes)
    table = with_column(table, "effect", np.full(len(b), np.nan))
    for name in FIGURES:
        table = with_column(table, name, found[name])
    return with_column(table, "support", later.fires[b].astype(np.int64))

"""The judge's ratings on disk: a row a trial, and what the judge was and how it did on planted texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atlas.folder.manifest import replacing, write_text
from queries.sweep.judge.judging import Column, Order
from queries.sweep.judge.replies import Replies

JUDGED, JUDGE = "judged.parquet", "judge.json"
_KEY = ("arm", "strength", "prompt", "sample")


def write_judged(folder: Path, rows: Column, replies: Replies, orders: Sequence[Order], others: Sequence[str]) -> None:
    """Write ratings and the judge's record to a sweep's folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values: list[dict[str, Any]] = [{**dict(zip(_KEY, key, strict=True)), **row} for key, row in rows.items()]
    types = {"arm": pa.string(), "strength": pa.string(), "prompt": pa.int64(), "sample": pa.int64()}
    names = [*_KEY, *(name for name in (values[0] if values else {}) if name not in _KEY)]
    table = pa.Table.from_pylist(values, schema=pa.schema([(name, types.get(name, pa.float64())) for name in names]))
    with replacing(folder / JUDGED) as temporary:
        pq.write_table(table, temporary)
    record = {"url": replies.url, "model": replies.model, "subjects": list(others), "missing": missing(rows)}
    record |= {"ratings": sum(map(len, rows.values())), "planted": [asdict(order) for order in orders]}
    write_text(folder / JUDGE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_judged(folder: Path) -> tuple[Column | None, dict[str, Any] | None]:
    """Ratings and the judge's record of a sweep's folder; None where no judge was asked."""
    import pyarrow.parquet as pq

    if not (folder / JUDGED).exists():
        return None, None
    rows: Column = {}
    for row in pq.read_table(folder / JUDGED).to_pylist():
        rows[row["arm"], row["strength"], row["prompt"], row["sample"]] = {
            name: value for name, value in row.items() if name not in _KEY
        }
    return rows, json.loads((folder / JUDGE).read_text(encoding="utf-8"))


def missing(rows: Mapping[Any, Mapping[str, float | None]]) -> int:
    """Ratings that the judge did not give, those that follow from others (`total`, `axbench`) not counted."""
    return sum(
        value is None for row in rows.values() for name, value in row.items() if name not in ("total", "axbench")
    )

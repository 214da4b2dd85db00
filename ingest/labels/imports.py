"""Labels made elsewhere: Neuronpedia's bulk exports, and Parquet files of this project's own form.

Neuronpedia: `*.jsonl` or `*.jsonl.gz`, rows with modelId, layer (`12-gemmascope-res-16k`), index (a number as text) and
description; rows of its feature files carry maxActApprox. Rows join on the feature's id, which is Neuronpedia's own.
Parquet: columns `dictionary`, `index` and any of label, promotes, fires_on, frequency, max_activation.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import FIGURES, TEXTS

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_LISTS = ("promotes", "fires_on")


def columns_from_files(sources: Sequence[str], records: dict[str, Dictionary]) -> dict[str, dict[str, pa.Array]]:
    """Label columns of the atlas's dictionaries from files or folders.

    Raises IngestError where a source is missing or damaged, or where none of it is about a dictionary of the atlas.
    """
    values: dict[str, dict[str, list[Any]]] = {}
    seen = set()
    for path in (path for source in sources for path in _files(Path(source))):
        for row in _rows(path):
            id_, index = row["dictionary"], row["index"]
            seen.add(id_)
            if id_ not in records or not 0 <= index < records[id_].d_sae:
                continue
            columns = values.setdefault(id_, {})
            for name in (*TEXTS, *FIGURES):
                value = row.get(name)
                if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
                    column = columns.setdefault(name, [None] * records[id_].d_sae)
                    column[index] = value if column[index] is None else column[index]
    if not values:
        raise IngestError(
            f"{', '.join(sources)}: labels of {', '.join(sorted(seen)[:4]) or 'nothing'}, "
            f"but the atlas holds {', '.join(list(records)[:4])}; labels join on the dictionary's id"
        )
    return {id_: {n: _array(n, column) for n, column in columns.items()} for id_, columns in values.items()}


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise IngestError(f"{source} does not exist; name a file or a folder of {', '.join(_SUFFIXES)} files")
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.name.endswith(_SUFFIXES))
    if not files or not files[0].name.endswith(_SUFFIXES):
        raise IngestError(f"{source} holds no labels; expected {', '.join(_SUFFIXES)} files")
    return files


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            if missing := {"dictionary", "index"} - set(table.column_names):
                raise IngestError(f"{path} has no column {min(missing)}; it has {', '.join(table.column_names)}")
            yield from table.to_pylist()
            return
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield _neuronpedia(json.loads(line))
    except (OSError, EOFError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise IngestError(f"{path} is not a label file this version reads ({error})") from None


def _neuronpedia(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "dictionary": f"{row['modelId']}/{row['layer']}",
        "index": int(row["index"]),
        "label": row.get("description"),
        "max_activation": row.get("maxActApprox"),
    }


def _array(name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if name in _LISTS:
        return pa.array([v.split(", ") if isinstance(v, str) else v for v in values], pa.list_(pa.string()))
    return pa.array(values, pa.string() if name in TEXTS else pa.float64())

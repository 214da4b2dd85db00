"""Labels made elsewhere: Neuronpedia's bulk exports, and Parquet files of this project's own form.

Neuronpedia: `*.jsonl` or `*.jsonl.gz`, rows with modelId, layer (`12-gemmascope-res-16k`), index (a number as text) and
description; rows of its feature files carry maxActApprox. Rows join on the feature's id, which is Neuronpedia's own.
Parquet: columns `dictionary`, `index` and any of label, promotes, fires_on (a list of words, or one text with commas),
frequency (0 to 1), max_activation (0 or more).

What is plainly meant is taken, as numbers that pandas turned into floats or text; a value that can mean nothing is an
error that names its row. What fits no feature of the atlas, or names one twice, is counted and said.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import IngestError
from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import FIGURES, TEXTS, WORDS

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_COLUMNS = (*TEXTS, *FIGURES)
_log = logging.getLogger(__name__)


def columns_from_files(sources: Sequence[str], records: dict[str, Dictionary]) -> dict[str, dict[str, pa.Array]]:
    """Label columns of the atlas's dictionaries from files or folders; of two rows on one feature the first counts.

    Raises IngestError where a source is missing or damaged, where a value can mean nothing, or where none of it is
    about a feature of the atlas.
    """
    values: dict[str, dict[str, list[Any]]] = {}
    seen: set[str] = set()
    left: Counter[str] = Counter()
    for path in (path for source in sources for path in label_files(source)):
        for number, row in enumerate(_rows(path), 1):
            try:
                id_, index = row.get("dictionary"), _index(row.get("index"))
                found = {name: value for name in _COLUMNS if (value := _value(name, row.get(name))) is not None}
            except (TypeError, ValueError) as error:
                raise IngestError(f"{path}, row {number}: {error}") from None
            if id_ is None or index is None:
                left["name no feature"] += 1
                continue
            # Before it is looked up: where nothing fits, the error names what the file is about.
            seen.add(str(id_))
            record = records.get(str(id_))
            if record is None or not 0 <= index < record.d_sae:
                left["name a feature that the atlas does not hold"] += 1
                continue
            columns = values.setdefault(record.id, {})
            for name, value in found.items():
                column = columns.setdefault(name, [None] * record.d_sae)
                if column[index] is None:
                    column[index] = value
                else:
                    left[f"give a second {name} to a feature; the first counts"] += 1
    if not values:
        raise IngestError(
            f"{', '.join(sources)}: labels of {', '.join(sorted(seen)[:4]) or 'nothing'}, "
            f"but the atlas holds {', '.join(list(records)[:4])}; labels join on the dictionary's id"
        )
    for what, count in left.items():
        _log.warning("%s: %d rows %s", ", ".join(sources), count, what)
    return {id_: {n: _array(n, column) for n, column in columns.items()} for id_, columns in values.items()}


def _index(value: Any) -> int | None:
    """A row index; None where a merge left none. Raises ValueError for what is no whole number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"index {value!r} is not a number")
    number = float(value)
    if not number.is_integer():
        raise ValueError(f"index {value!r} is not a whole number")
    # Not by way of a float, which is exact up to 2⁵³ only.
    return int(value) if isinstance(value, int | str) and str(value).strip().lstrip("-").isdigit() else int(number)


def _value(name: str, value: Any) -> Any:
    """What a column holds, as labels keep it; None for nothing. Raises ValueError where it can mean nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if name in WORDS:
        words = value.split(", ") if isinstance(value, str) else value if isinstance(value, list) else [value]
        return [str(word) for word in words if word is not None and str(word)] or None
    if name in FIGURES:
        number = float(value)
        if not 0 <= number <= (1 if name == "frequency" else math.inf) or math.isinf(number):
            raise ValueError(f"{name} {value!r} is not {'a share from 0 to 1' if name == 'frequency' else '0 or more'}")
        return number
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def label_files(name: str) -> list[Path]:
    """The files that a source names; raises IngestError where there are none."""
    source = Path(name)
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
            file = pq.ParquetFile(path)
            names = file.schema_arrow.names
            if missing := {"dictionary", "index"} - set(names):
                raise IngestError(f"{path} has no column {min(missing)}; it has {', '.join(names)}")
            if not set(_COLUMNS) & set(names):
                raise IngestError(f"{path} has none of the columns {', '.join(_COLUMNS)}; it has {', '.join(names)}")
            for batch in file.iter_batches():
                yield from batch.to_pylist()
            return
        opener = gzip.open if path.name.endswith(".gz") else open
        # With or without a byte order mark, which JSON's parser would take for a mistake.
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            first = lines.readline()
            if first.lstrip().startswith("["):  # one array, however it is broken into lines
                yield from map(_neuronpedia, json.loads(first + lines.read()))
                return
            for line in chain([first], lines):
                if line.strip():
                    yield _neuronpedia(json.loads(line))
    except (OSError, EOFError, pa.ArrowException, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IngestError(f"{path} is not a label file this version reads ({_line(error)})") from None


def _neuronpedia(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "dictionary": f"{row['modelId']}/{row['layer']}",
        "index": row["index"],
        "label": row.get("description"),
        "max_activation": row.get("maxActApprox"),
    }


def _line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"a row without {error.args[0]}"
    return (str(error) or type(error).__name__).splitlines()[0]


def _array(name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if name in WORDS:
        return pa.array(values, pa.list_(pa.string()))
    return pa.array(values, pa.string() if name in TEXTS else pa.float64())

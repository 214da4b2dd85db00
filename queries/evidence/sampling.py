"""What is measured: contexts of a text, drawn by a seed, and the dictionaries that can be run on them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import QueryError
from atlas.folder.dictionary import Dictionary

PER_TEXT = 5  # tokens of a context at which features are looked at (paper §5.1, §5.2)
MOST = 20_000_000  # tokens of a text among which contexts are drawn
WIDTH = 255  # tokens of a context, without the start token (hooked.reading)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Contexts of a text; they stand for "texts" wherever intervals resample those."""

    tokens: np.ndarray  # int64 [n_tokens], context after context
    names: tuple[str, ...]  # of the files
    sha256: tuple[str, ...]  # of the files
    seed: int

    @property
    def contexts(self) -> int:
        """How many there are; only the last may be short of WIDTH tokens."""
        return -(-len(self.tokens) // WIDTH)

    def record(self, kind: str, model: str) -> dict[str, Any]:
        """What an atlas records of a measurement on it."""
        files = {"name": ", ".join(self.names), "sha256": ", ".join(self.sha256)}
        return {"kind": kind, **files, "model": model, "seed": self.seed}


def draw(texts: Sequence[Path], tokenizer: Any, tokens: int, seed: int) -> Sample:
    """The contexts that make up at least `tokens` tokens of the files (0: all), drawn by `seed`, in the text's order.

    Where `tokens` bounds them they are drawn among the first MOST tokens.

    Raises IngestError where a file cannot be read or holds no text, QueryError where none is named.
    """
    from hooked.text import read_text

    if not texts:
        raise QueryError("say on which text to measure, with --text FILE")
    # Bounded where the sample is: a file of many gigabytes need not be read to its end.
    ids = read_text(texts, tokenizer, max(MOST, tokens) if tokens else 0).ids
    whole = len(ids) // WIDTH
    wanted = -(-tokens // WIDTH) if tokens else whole
    if wanted < whole:
        chosen = np.sort(np.random.default_rng(seed).choice(whole, wanted, replace=False))
        ids = ids[: whole * WIDTH].reshape(whole, WIDTH)[chosen].ravel()
    return Sample(ids, tuple(path.name for path in texts), tuple(map(_sha256, texts)), seed)


def chosen_places(counted: np.ndarray, text: int, positions: int, seed: int) -> list[int]:
    """PER_TEXT places of a context, ascending, among those that count; fewer where `positions` are all that is wanted.

    counted: bool [n], text: number of the context.
    """
    there = np.random.default_rng([seed, text]).permutation(np.flatnonzero(counted))
    found: list[int] = np.sort(there[: max(0, min(PER_TEXT, positions - text * PER_TEXT))]).tolist()
    return found


def runnable(records: Mapping[str, Dictionary]) -> dict[str, Dictionary]:
    """Those whose activations can be computed; the others are said. Raises QueryError where there is none, or where
    they belong to several models."""
    from hooked.encoder import not_run

    found = {}
    for id_, record in records.items():
        if (reason := not_run(record)) is None:
            found[id_] = record
        else:
            _log.warning("%s; it is left out", reason)
    if not found:
        raise QueryError("no dictionary of this atlas can be run on a text")
    models = sorted({record.model_name for record in found.values()})
    if len(models) > 1:
        raise QueryError(f"evidence is measured on one model, and the atlas holds several: {', '.join(models)}")
    return found


def of_set(records: Mapping[str, Dictionary], name: str | None) -> dict[str, Dictionary]:
    """Of several dictionaries at one place those of a set: `res-2k`, or a part of its name, `2k`; all where it is None.

    Two seeds or widths are so asked the same questions one after the other. Where both are counted together it is said.
    Raises QueryError where no dictionary is of that set.
    """
    places: dict[tuple[str, int], list[Dictionary]] = {}
    for record in records.values():
        places.setdefault((record.model, record.depth), []).append(record)
    several = sorted({d.set for here in places.values() if len(here) > 1 for d in here})
    if name is None:
        if several:
            _log.warning(
                "several dictionaries at one place are counted together; --set takes one set (%s)", ", ".join(several)
            )
        return dict(records)
    asked = {d.id for d in records.values() if name == d.set or name in d.set.split("-")}
    if not asked:
        raise QueryError(
            f"no dictionary is of a set {name}; there are {', '.join(sorted({d.set for d in records.values()}))}"
        )
    alone = {here[0].id for here in places.values() if not any(d.id in asked for d in here) and len(here) == 1}
    return {id_: record for id_, record in records.items() if id_ in asked | alone}


def starts(tokenizer: Any, records: Mapping[str, Dictionary]) -> dict[int | None, dict[str, Dictionary]]:
    """The dictionaries by the token that their contexts begin with (None: none): a pass over the text for each."""
    from hooked.text import start_token

    groups: dict[int | None, dict[str, Dictionary]] = {}
    for id_, record in records.items():
        groups.setdefault(start_token(tokenizer) if record.prepend_bos else None, {})[id_] = record
    return groups


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

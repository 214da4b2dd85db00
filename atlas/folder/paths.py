"""Every path in an atlas folder.

feature-atlas.json      the manifest; naming a state of the graph here is what makes it the current one
dictionaries/ID/…       rows, record and labels of each dictionary (atlas.folder.dictionary, atlas.folder.labels)
matches/*.parquet       staged matches of each pair (atlas.folder.matches)
evidence/…              activations on a text, until figures are made of them (queries.evidence.firing.spool)
results/*.json          tables that evidence and advise measured (atlas.folder.results)
words/STATE/…           words of features, indexed (atlas.folder.word_index)
nearest/*.faiss         rows indexed for the nearest, where that was asked for (queries.nearest_index)
graph/…                 the embedded graph, where the store is embedded (atlas.embedded.file)
lock, lock.json         the writer's lock and who holds it (atlas.folder.lock)
"""

from __future__ import annotations

from pathlib import Path

_DICTIONARIES, _MATCHES, _GRAPH, _LOCK, _HOLDER = "dictionaries", "matches", "graph", "lock", "lock.json"
_EVIDENCE, _WORDS, _NEAREST, _RESULTS = "evidence", "words", "nearest", "results"
RECORD, DECODER, ENCODER, VECTORS, LABELS = (  # of one dictionary; the record is written last: it says "complete"
    "dictionary.json",
    "decoder.npy",
    "encoder.npy",
    "vectors.npz",
    "labels.parquet",
)


def manifest_file(folder: Path) -> Path:
    """The manifest."""
    return folder / "feature-atlas.json"


def dictionary_folder(folder: Path, dictionary: str) -> Path:
    """Where the rows of one dictionary are."""
    return folder / _DICTIONARIES / dictionary


def labels_of_state(place: Path, state: str) -> Path:
    """Where a dictionary's labels wait for the state of the graph that they belong to; `place` is its folder."""
    return place / f"labels.{state}.parquet"


def matches_folder(folder: Path) -> Path:
    """Where staged matches are."""
    return folder / _MATCHES


def matches_file(folder: Path, name: str) -> Path:
    """The staged matches of one pair."""
    return folder / _MATCHES / name


def evidence_folder(folder: Path) -> Path:
    """Where activations are kept while evidence is measured."""
    return folder / _EVIDENCE


def results_folder(folder: Path) -> Path:
    """Where measured tables are kept for whoever shows them."""
    return folder / _RESULTS


def words_folder(folder: Path) -> Path:
    """Where indexes of words are, one a state."""
    return folder / _WORDS


def nearest_folder(folder: Path) -> Path:
    """Where indexes of rows are."""
    return folder / _NEAREST


def nearest_file(folder: Path, rows_sha256: str) -> Path:
    """The index of a dictionary's rows."""
    return folder / _NEAREST / f"{rows_sha256}.faiss"


def graph_folder(folder: Path) -> Path:
    """Where the embedded graph is."""
    return folder / _GRAPH


def lock_file(folder: Path) -> Path:
    """What the system locks for the writer."""
    return folder / _LOCK


def holder_file(folder: Path) -> Path:
    """Who holds the lock."""
    return folder / _HOLDER


def begun_places(folder: Path) -> tuple[Path, ...]:
    """What an ingest makes before there is a manifest."""
    return folder / _DICTIONARIES, folder / _MATCHES, folder / _GRAPH


def is_own(path: Path) -> bool:
    """Whether something in a folder without a manifest is what work on an atlas left there before it was finished."""
    own = (_LOCK, _HOLDER, _DICTIONARIES, _MATCHES, _GRAPH, _WORDS, _NEAREST)
    return path.name in own or path.name.endswith(".tmp")

"""An open atlas: its dictionaries' rows, its graph, its labels. Reading only; `ingest` writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from atlas.dictionary import Dictionary, Rows
from atlas.errors import CorruptAtlas, NotAnAtlas, UnknownFeature
from atlas.features import split_feature_id
from atlas.labels import Labels
from atlas.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np

    from atlas.store import Answer, Store

DEFAULT_FOLDER = "feature-atlas"
MAX_BYTES = 64 << 20  # of a user's rows


def atlas_path(path: str | os.PathLike[str] | None) -> Path:
    """The folder meant: `path`, else `$FEATURE_ATLAS`, else `./feature-atlas`."""
    return Path(path or os.environ.get("FEATURE_ATLAS") or DEFAULT_FOLDER)


def open_atlas(path: str | os.PathLike[str] | None = None) -> Atlas:
    """Open an atlas for reading.

    Raises NotAnAtlas, CorruptAtlas or NewerAtlas where the folder holds none that can be read.
    """
    folder = atlas_path(path)
    while True:
        manifest = Manifest.load(folder)
        if manifest.state is None:
            raise NotAnAtlas(f"{folder} holds no complete atlas yet; run its ingest again")
        atlas = Atlas(folder, manifest)
        try:
            atlas.store.open()
            return atlas
        except CorruptAtlas:
            # An ingest may have ended between the two reads and dropped the state that this manifest named.
            if Manifest.load(folder).state == manifest.state:
                raise


def dictionary_folder(folder: Path, dictionary: str) -> Path:
    """Where an atlas keeps the rows of one of its dictionaries."""
    return folder / "dictionaries" / dictionary


def load_dictionaries(folder: Path, names: Iterable[str]) -> dict[str, Dictionary]:
    """Records of these dictionaries of an atlas, by id, in the order of their depth; raises CorruptAtlas."""
    loaded = [Dictionary.load(dictionary_folder(folder, name)) for name in dict.fromkeys(names)]
    return {d.id: d for d in sorted(loaded, key=lambda d: (d.model, d.depth, d.id))}


class Atlas:
    """One complete state of an atlas; later states, written meanwhile, do not show through. Use it in a `with`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._rows: dict[str, Rows] = {}
        self._labels: dict[str, Labels] = {}

    @cached_property
    def dictionaries(self) -> dict[str, Dictionary]:
        """Records by id, in the order of their depth."""
        return load_dictionaries(self.path, self.manifest.dictionaries)

    @cached_property
    def store(self) -> Store:
        """The graph."""
        from atlas.ladybug import LadybugStore

        return LadybugStore(self.path / "graph", self.manifest.state, self.manifest.fingerprint)

    def query(self, cypher: str, *, limit: int = 0, timeout: float = 30.0, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a read-only Cypher statement; keyword arguments are its parameters.

        limit: most rows (0: all). timeout: seconds. Raises QueryRefused, QueryTimeout, QueryTooLarge or QueryError.
        """
        return self.answer(cypher, parameters, limit=limit, timeout=timeout).rows

    def answer(self, cypher: str, parameters: dict[str, Any], *, limit: int = 0, timeout: float = 30.0) -> Answer:
        """As `query`, with the columns and whether rows were cut off."""
        return self.store.query(cypher, parameters, limit=limit, timeout=timeout, max_bytes=MAX_BYTES)

    def read(self, cypher: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of one of the project's own statements, without the guard's cost."""
        return self.store.read(cypher, parameters)

    def locate(self, feature: str) -> tuple[Dictionary, int]:
        """Dictionary and row index of a feature; raises UnknownFeature with what there is."""
        name, index = split_feature_id(feature)
        dictionary = self.dictionaries.get(name)
        if dictionary is None:
            raise UnknownFeature(f"no dictionary {name!r} in {self.path}; it holds {_some(list(self.dictionaries))}")
        if index >= dictionary.d_sae:
            raise UnknownFeature(f"{name} has features 0 to {dictionary.d_sae - 1}, not {index}")
        return dictionary, index

    def rows(self, dictionary: str) -> Rows:
        """The memory-mapped rows of a dictionary; raises CorruptAtlas where they are damaged."""
        if dictionary not in self._rows:
            record = self.dictionaries[dictionary]
            self._rows[dictionary] = Rows.open(dictionary_folder(self.path, dictionary), record)
        return self._rows[dictionary]

    def directions(self, features: Sequence[str]) -> np.ndarray:
        """Unit decoder rows in residual space, float32 [n, d_model], in the order given.

        Raises UnknownFeature; a dead feature has no direction and raises it too. All must be of one width.
        """
        import numpy as np

        places = [self.locate(feature) for feature in features]
        widths = {dictionary.d_model for dictionary, _ in places}
        if len(widths) > 1:
            raise UnknownFeature(
                f"these features are of models of different widths ({sorted(widths)}); ask for each apart"
            )
        directions = np.empty((len(places), widths.pop() if widths else 0), dtype=np.float32)
        for i, (dictionary, index) in enumerate(places):
            directions[i] = self.rows(dictionary.id).decoder[index]
            if not directions[i].any():
                raise UnknownFeature(
                    f"{features[i]} is dead: its decoder row is zero or not finite, so it has no direction"
                )
        return directions

    def labels(self, dictionary: str) -> Labels:
        """The labels of a dictionary's features; empty where none were made."""
        if dictionary not in self._labels:
            self._labels[dictionary] = Labels.load(dictionary_folder(self.path, dictionary))
        return self._labels[dictionary]

    def contexts(self, feature: str) -> list[str]:
        """The texts at which the feature was most active, best first; empty where `label --text` was not run."""
        dictionary, index = self.locate(feature)
        return self.labels(dictionary.id).contexts(index)

    def close(self) -> None:
        """Let go of the graph; idempotent."""
        if "store" in self.__dict__:
            self.store.close()
            del self.__dict__["store"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

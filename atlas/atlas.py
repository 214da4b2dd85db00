"""An open atlas: its dictionaries' rows, its graph, its labels. Reading only; `ingest` writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from atlas.address import ServerAddress, is_server
from atlas.errors import AddressError, ClosedAtlas, CorruptAtlas, NotAnAtlas, QueryError, UnknownFeature
from atlas.folder.detail import Detail, detail_of
from atlas.folder.dictionary import Dictionary, Rows
from atlas.folder.manifest import Manifest, begun, unfinished
from atlas.folder.paths import dictionary_folder, graph_folder
from atlas.folder.rows_cache import open_rows
from atlas.graph.parameters import plain_parameters
from atlas.ids import Names, split_feature_id
from atlas.rows import Rows as AnswerRows

if TYPE_CHECKING:
    import numpy as np

    from atlas.folder.word_index import WordIndex
    from atlas.graph.store import Answer, Store

DEFAULT_FOLDER = "feature-atlas"
MAX_BYTES = 64 << 20  # of a user's rows
_URL = re.compile(r"https?://[^/]+/")


def atlas_address(path: str | os.PathLike[str] | None) -> str:
    """The atlas meant: `path`, else `$FEATURE_ATLAS`, else `./feature-atlas`."""
    return os.fspath(path or os.environ.get("FEATURE_ATLAS") or DEFAULT_FOLDER)


def atlas_path(path: str | os.PathLike[str] | None) -> Path:
    """The folder of the atlas meant; raises AddressError where that is a server, which has no folder."""
    address = atlas_address(path)
    if is_server(address):
        raise AddressError(
            f"{ServerAddress.parse(address)} is a server, and this needs a folder; bind one to it: "
            f"feature-atlas init DIR --store {ServerAddress.parse(address)}"
        )
    return Path(address)


def open_atlas(path: str | os.PathLike[str] | None = None) -> Atlas:
    """Open an atlas for reading: a folder, or a server's address (`neo4j://host:7687`, see atlas.address).

    Raises NotAnAtlas, CorruptAtlas or NewerAtlas where there is none that can be read, AddressError or StoreError where
    a server cannot be reached.

    Example:
        with open_atlas("my-atlas") as atlas:
            print(*atlas.dictionaries)
    """
    if is_server(address := atlas_address(path)):
        return _open_server(ServerAddress.parse(address))
    folder = Path(address)
    while True:
        manifest = Manifest.load(folder)
        if manifest.state is None:
            if begun(folder) and not manifest.dictionaries:
                raise NotAnAtlas(unfinished(folder))
            if manifest.dictionaries and manifest.store is None:
                raise NotAnAtlas(
                    f"{folder} was made by an earlier version, or lost its graph, which is built anew, in seconds to "
                    f"minutes, by: feature-atlas ingest -a {folder}"
                )
            bound = f" and is bound to {manifest.store}" if manifest.store else ""
            raise NotAnAtlas(f"{folder} holds no complete atlas yet{bound}; fill it with: feature-atlas ingest")
        store = store_of(folder, manifest)
        try:
            store.open()
            return Atlas(folder, manifest, store)
        except BaseException as error:
            store.close()
            # An ingest may have ended between the two reads and dropped the state that this manifest named.
            if not isinstance(error, CorruptAtlas) or Manifest.load(folder).state == manifest.state:
                raise


def _open_server(address: ServerAddress) -> Atlas:
    from atlas.graph.records import manifest_of
    from atlas.server.store import Neo4jStore

    store = Neo4jStore(address)
    try:
        store.open()
        # A graph does not know under which address it was reached.
        return Atlas(None, replace(manifest_of(store), store=str(address)), store)
    except BaseException:
        store.close()
        raise


def store_of(folder: Path, manifest: Manifest) -> Store:
    """The store that a manifest names, in the manifest's state; nothing is opened yet."""
    if manifest.store is not None:
        from atlas.server.store import Neo4jStore

        return Neo4jStore(ServerAddress.parse(manifest.store), manifest.id or None, manifest.state)
    from atlas.embedded.store import LadybugStore

    return LadybugStore(graph_folder(folder), manifest.state, manifest.fingerprint)


def load_dictionaries(folder: Path, names: Iterable[str]) -> dict[str, Dictionary]:
    """Records of these dictionaries of an atlas, by id, in the order of their depth; raises CorruptAtlas."""
    loaded = [Dictionary.load(dictionary_folder(folder, name)) for name in dict.fromkeys(names)]
    return {d.id: d for d in sorted(loaded, key=lambda d: (d.model, d.depth, d.id))}


class Atlas:
    """One complete state of an atlas; later states, written meanwhile, do not show through. Use it in a `with`."""

    def __init__(self, path: Path | None, manifest: Manifest, store: Store) -> None:
        """`path`: its folder; None where the graph on its server is all there is."""
        self.path = path
        self.manifest = manifest
        self.store = store
        self._rows: dict[str, Rows] = {}
        self._closed = False

    @property
    def dictionaries(self) -> dict[str, Dictionary]:
        """Records by id, in the order of their depth; raises ClosedAtlas after `close`."""
        self._check_open()
        return self._records

    @cached_property
    def _records(self) -> dict[str, Dictionary]:
        if self.path is not None:
            return load_dictionaries(self.path, self.manifest.dictionaries)
        from atlas.graph.records import records_of

        return records_of(self.store)

    @property
    def names(self) -> Names:
        """How ids are written for people: short where there is one model, with their places at Neuronpedia."""
        places = {id_: d.neuronpedia_id for id_, d in self.dictionaries.items() if d.neuronpedia_id}
        return Names(self.only_model, places)

    @property
    def only_model(self) -> str | None:
        """The one model that it holds, by the first part of its ids; None where there are several, or none."""
        models = {record.model for record in self.dictionaries.values()}
        return min(models) if len(models) == 1 else None

    @property
    def address(self) -> str:
        """What names it: its folder, or its server."""
        return str(self.path or self.manifest.store)

    def query(
        self,
        cypher: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        limit: int = 0,
        timeout: float = 30.0,
        **named: Any,
    ) -> AnswerRows:
        """Rows of a read-only Cypher statement; its parameters as a dict, as keyword arguments, or both.

        Parameters are text, numbers, booleans, None, lists and dicts; NumPy's, PyTorch's and pandas' numbers, arrays
        and columns, sets and other iterables are taken too. limit: most rows (0: all). timeout: seconds. Raises
        QueryRefused, QueryTimeout, QueryTooLarge or QueryError.
        The rows are a list of dicts; `.to_pandas()` makes a frame of them where pandas is installed.

        Example:
            rows = atlas.query("MATCH (f:Feature {layer: $l}) RETURN f.id AS id, f.label AS label", l=9, limit=5)
            rows = atlas.query("MATCH (f:Feature {layer: $l}) RETURN f.id AS id, f.label AS label", {"l": 9}, limit=5)
            labels = {row["id"]: row["label"] for row in rows}
        """
        if not isinstance(parameters, Mapping | None):
            raise QueryError(f"parameters are a dict or keyword arguments, not {type(parameters).__name__}")
        given = dict(parameters or {})
        if twice := sorted(given.keys() & named.keys()):
            raise QueryError(f"the parameter ${twice[0]} is given twice")
        answer = self.answer(cypher, given | named, limit=limit, timeout=timeout)
        return AnswerRows(answer.rows, answer.columns)

    def answer(self, cypher: str, parameters: Mapping[str, Any], *, limit: int = 0, timeout: float = 30.0) -> Answer:
        """As `query`, with the columns and whether rows were cut off.

        Example:
            answer = atlas.answer("MATCH (f:Feature) RETURN f.id AS id", {}, limit=5)
            print(answer.columns, answer.more)
        """
        self._check_open()
        return self.store.query(cypher, plain_parameters(parameters), limit=limit, timeout=timeout, max_bytes=MAX_BYTES)

    def read(self, cypher: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of one of the project's own statements, without the guard's cost."""
        self._check_open()
        return self.store.read(cypher, parameters)

    def read_each(self, cypher: str, parameters: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
        """The same for each of several values of its parameters, in their order."""
        self._check_open()
        return self.store.read_each(cypher, parameters)

    def full_id(self, feature: str) -> str:
        """The whole id of a feature that is given short (`9-res-2k/14`, of the one model) or as Neuronpedia's URL.

        Example:
            print(atlas.full_id("9-res-2k/2018"))
        """
        given = _URL.sub("", feature).partition("?")[0].strip("/") if _URL.match(feature) else feature
        name = given.rpartition("/")[0]
        # An id that is whole as it stands wins; a short one counts only where a single model leaves no doubt.
        if name not in self.dictionaries and f"{self.only_model}/{name}" in self.dictionaries:
            return f"{self.only_model}/{given}"
        return given

    def dictionary(self, name: str) -> Dictionary:
        """The record of a dictionary, its id whole or without the one model; raises UnknownFeature with the ids."""
        for id_ in (name, f"{self.only_model}/{name}"):
            if id_ in self.dictionaries:
                return self.dictionaries[id_]
        raise UnknownFeature(f"no dictionary {name!r} in {self.address}; it holds {_some(list(self.dictionaries))}")

    def locate(self, feature: str) -> tuple[Dictionary, int]:
        """Dictionary and row index of a feature; raises UnknownFeature with what there is.

        Example:
            dictionary, index = atlas.locate("smollm2-135m-instruct/9-res-2k/2018")
            print(dictionary.site, dictionary.layer, index)
        """
        try:
            name, index = split_feature_id(self.full_id(feature))
        except UnknownFeature:
            raise self._no_id(feature) from None
        dictionary = self.dictionary(name)
        if index >= dictionary.d_sae:
            raise UnknownFeature(f"{name} has features 0 to {dictionary.d_sae - 1}, not {index}")
        return dictionary, index

    def _no_id(self, text: str) -> UnknownFeature:
        """What to say of a text that is no feature's id: what it may have been meant to be."""
        name, _, index = text.rpartition("/")
        known = [id_.removeprefix(f"{self.only_model}/") for id_ in self.dictionaries]
        if name and index.isascii() and index.isdigit():
            return UnknownFeature(f"no dictionary {name!r} in {self.address}; it holds {_some(known)}")
        if text in known or text in self.dictionaries:
            last = self.dictionary(text).d_sae - 1
            return UnknownFeature(
                f"{text} is a dictionary, not a feature id; its features are {text}/0 to {text}/{last}"
            )
        return UnknownFeature(
            f"{text!r} is not a feature id; one looks like {(known or ['12-res-16k'])[0]}/14, and "
            f"features are found by words with: feature-atlas search {text}"
        )

    def rows(self, dictionary: str) -> Rows:
        """The memory-mapped rows of a dictionary, fetched from its source where the atlas has no folder.

        Raises CorruptAtlas where they are damaged, IngestError where they cannot be fetched.

        Example:
            rows = atlas.rows("smollm2-135m-instruct/9-res-2k")
            alive = rows.decoder[rows.alive]
        """
        record = self.dictionaries[dictionary]
        if dictionary not in self._rows:
            self._rows[dictionary] = open_rows(self.path, record)
        return self._rows[dictionary]

    def directions(self, features: Sequence[str] | str) -> np.ndarray:
        """Unit decoder rows in residual space, float32 [n, d_model], in the order given; of one id [1, d_model].

        Raises UnknownFeature; a dead feature has no direction and raises it too. All must be of one width.

        Example:
            ids = ["smollm2-135m-instruct/8-res-2k/1996", "smollm2-135m-instruct/9-res-2k/2018"]
            earlier, later = atlas.directions(ids)
            cosine = float(earlier @ later)
        """
        import numpy as np

        # A text is a sequence of letters, none of which is meant.
        features = [features] if isinstance(features, str) else features
        places = [self.locate(feature) for feature in features]
        widths = {dictionary.d_model for dictionary, _ in places}
        if len(widths) > 1:
            raise UnknownFeature(
                f"these features are of models of different widths ({sorted(widths)}); ask for each apart"
            )
        directions = np.empty((len(places), widths.pop() if widths else 0), dtype=np.float32)
        for i, (dictionary, index) in enumerate(places):
            rows = self.rows(dictionary.id)
            # Only the rows that are used: a look at all of them would read the whole file.
            rows.check(dictionary, [index])
            directions[i] = rows.decoder[index]
            # Rows that were not finite in their source are zero here too.
            if not directions[i].any():
                raise UnknownFeature(
                    f"{features[i]} is dead: its decoder row is zero or not finite, so it has no direction"
                )
        return directions

    def contexts(self, feature: str) -> list[str]:
        """The texts at which the feature was most active, best first; empty where `label --text` was not run.

        Example:
            for text in atlas.contexts("smollm2-135m-instruct/9-res-2k/2018"):
                print(text)
        """
        return [context.text for context in self.detail(feature).contexts]

    def detail(self, feature: str) -> Detail:
        """What is kept of the feature beside the graph: contexts token by token, histogram, tokens that it suppresses.

        Empty where `label` was not run. Raises UnknownFeature; CorruptAtlas where its file is damaged.

        Example:
            for context in atlas.detail("smollm2-135m-instruct/9-res-2k/2018").contexts:
                print([token for token, activation in context.tokens if activation])
        """
        dictionary, index = self.locate(feature)
        if self.path is None:
            return Detail()
        return detail_of(dictionary_folder(self.path, dictionary.id), index, self.manifest.state)

    @cached_property
    def words(self) -> WordIndex | None:
        """The index of its features' words; None where the folder has none, or there is no folder."""
        from atlas.folder.word_index import WordIndex

        return WordIndex.open(self.path, self.manifest.state) if self.path is not None else None

    def close(self) -> None:
        """Let go of the graph; idempotent. Every use after it raises ClosedAtlas."""
        self._closed = True
        self.store.close()

    def _check_open(self) -> None:
        # The stores would open themselves anew, and nobody would close them again.
        if self._closed:
            raise ClosedAtlas(f"this atlas ({self.address}) is closed; open it again with open_atlas(…)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

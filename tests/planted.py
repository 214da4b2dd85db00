"""A planted atlas: random dictionaries whose features persist, are written by modules, or come from nowhere.

Similarities, ranks, scores and life cycles are worked out here in plain numpy, independently of `ingest`, so that
what the graph answers can be checked against the arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from atlas import schema
from atlas.embedded.store import LadybugStore
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import FORMAT, Manifest
from atlas.graph.store import Batch
from atlas.graph.tables import table_of
from atlas.ids import ATT, MLP, RES, depth, dictionary_id, feature_id

MIN_RES, MIN_MODULE = 0.5, 0.25
WORDS = ("war", "army", "peace", "king", "sheep", "wool", "rain", "drought", "film", "god", "saint", "cat", "catalogue")


@dataclass(frozen=True)
class PairArrays:
    """Edges of one matched pair, one element an edge; −1 stands for a null rank."""

    later: Dictionary
    earlier: Dictionary
    gap: int
    floor: float
    b: np.ndarray  # row in `later`
    a: np.ndarray  # row in `earlier`
    similarity: np.ndarray
    rank: np.ndarray
    forward_rank: np.ndarray
    push: np.ndarray  # NaN stands for null
    others: tuple[np.ndarray, np.ndarray, np.ndarray]  # rows in `later` and `earlier`, cosine: edges FIRES_WITH

    @property
    def key(self) -> str:
        return f"{self.later.id}--{self.earlier.id}".replace("/", "_")

    @property
    def type(self) -> str:
        return schema.EDGE_OF_SITE[self.earlier.site]


class Planted:
    """A planted graph: `dictionaries`, `columns` of features by dictionary, `matched`; an `atlas.graph.store.Graph`."""

    def __init__(
        self, layers: Sequence[int] = range(6), size: int = 24, width: int = 128, k: int = 3, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.k = k
        self.state = f"state-{seed}"
        self.dictionaries: list[Dictionary] = []
        self.columns: dict[str, dict[str, Any]] = {}
        self.matched: list[PairArrays] = []
        earlier: tuple[Dictionary, np.ndarray] | None = None
        for layer in layers:
            att, mlp = (_unit(rng.normal(size=(size, width))) for _ in range(2))
            res = _residual(rng, earlier[1] if earlier else None, att, mlp)
            for rows in (att, mlp, res):
                rows[-1] = 0  # the last feature of every dictionary is dead
            here = [(_record(layer, site, size, width), rows) for site, rows in ((ATT, att), (MLP, mlp), (RES, res))]
            for record, rows in here:
                self.dictionaries.append(record)
                self.columns[record.id] = _columns(rng, record, rows)
            for before in ([earlier] if earlier else []) + here[:2]:
                self._match(here[2], before)
            earlier = here[2]
        for record in self.dictionaries:
            _classify(self.columns[record.id], record, first=layers[0])

    def _match(self, later: tuple[Dictionary, np.ndarray], earlier: tuple[Dictionary, np.ndarray]) -> None:
        (b, rows_b), (a, rows_a) = later, earlier
        cosine = rows_b @ rows_a.T
        rank, forward = _ranks(cosine, self.k), _ranks(cosine.T, self.k).T
        i, j = np.nonzero(((rank >= 0) | (forward >= 0)) & (cosine > 0))
        gap = b.layer - a.layer
        floor = round(0.3 + 0.01 * len(self.matched) % 0.2, 3)  # another for every pair
        # From no encoder: some negative, some null, in an order of their own. A generator of their own too, so that
        # the rows stay what they were.
        push = np.random.default_rng(len(self.matched)).normal(scale=4.0, size=len(i))
        push[::5] = np.nan
        # No matches, some of them of a negative cosine.
        rows, columns = np.nonzero((rank < 0) & (forward < 0) & (cosine != 0))
        step = max(9, len(rows) // (3 * len(rows_b)))  # of a large one about three a row
        rows, columns = rows[::step], columns[::step]
        others = rows, columns, cosine[rows, columns]
        self.matched.append(PairArrays(b, a, gap, floor, i, j, cosine[i, j], rank[i, j], forward[i, j], push, others))
        alive_b, alive_a = np.asarray(rows_b.any(1)), np.asarray(rows_a.any(1))
        self.columns[b.id][f"s_{a.site}"] = [
            float(v) if ok else None for v, ok in zip(cosine.max(1), alive_b, strict=True)
        ]
        if a.site == RES:
            self.columns[a.id]["s_next"] = [
                float(v) if ok else None for v, ok in zip(cosine.max(0), alive_a, strict=True)
            ]

    def features(self) -> dict[str, dict[str, Any]]:
        """Properties of every feature, by id."""
        rows: dict[str, dict[str, Any]] = {}
        for columns in self.columns.values():
            for i, name in enumerate(columns["id"]):
                rows[name] = {key: values[i] for key, values in columns.items()}
        return rows

    def edge_rows(self) -> list[dict[str, Any]]:
        """Every edge between features as a dict: source (later), target, type, properties, floor of the pair."""
        rows = []
        for pair in self.matched:
            for n in range(len(pair.b)):
                rank, forward = int(pair.rank[n]), int(pair.forward_rank[n])
                rows.append(
                    {
                        "source": feature_id(pair.later.id, int(pair.b[n])),
                        "target": feature_id(pair.earlier.id, int(pair.a[n])),
                        "type": pair.type,
                        "similarity": float(pair.similarity[n]),
                        "rank": rank if rank >= 0 else None,
                        "forward_rank": forward if forward >= 0 else None,
                        "gap": pair.gap,
                        "floor": pair.floor,
                        "push": None if np.isnan(pair.push[n]) else float(pair.push[n]),
                    }
                )
        return rows

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """atlas.graph.store.Graph: the nodes of one label."""
        if label == schema.ATLAS:
            values = {"id": "planted", "state": self.state, "format": FORMAT, "k": self.k}
            values["thresholds"] = json.dumps({"res": MIN_RES, "module": MIN_MODULE})
            yield _table(label, {key: [value] for key, value in values.items()})
        elif label == schema.MODEL:
            yield _table(label, {"id": ["planted"], "name": ["planted"], "d_model": [self.dictionaries[0].d_model]})
        elif label == schema.DICTIONARY:
            names = list(_properties(label))
            yield _table(label, {name: [getattr(d, name) for d in self.dictionaries] for name in names})
        elif label == schema.FEATURE:
            for columns in self.columns.values():
                yield _table(label, columns)
        else:
            run = {"id": "run", "k": self.k, "min_res": MIN_RES, "min_module": MIN_MODULE, "versions": "", "edges": 0}
            yield _table(label, {key: [value] for key, value in run.items()})

    def pairs(self) -> pa.Table:
        """atlas.graph.store.Graph: the edges MATCHED."""
        rows = [
            {
                "later": pair.later.id,
                "earlier": pair.earlier.id,
                "key": pair.key,
                "k": self.k,
                "edges": len(pair.b),
                "gap": pair.gap,
                "floor": pair.floor,
                "floor_median": pair.floor - 0.02,
                "fires_with": len(pair.others[0]),
            }
            for pair in self.matched
        ]
        return table_of(schema.MATCHED, rows)

    def edges(self, type_: str) -> Iterator[Batch]:
        """atlas.graph.store.Graph: the edges of one type, a batch a pair."""
        for pair in self.matched:
            if type_ == schema.FIRES_WITH:
                b, a, similarity = pair.others
                columns = {"later": b, "earlier": a, "similarity": similarity, "gap": np.full(len(b), pair.gap)}
                for name in ("rank", "forward_rank"):
                    columns[name] = pa.nulls(len(b), pa.int64())
                columns["push"] = pa.nulls(len(b), pa.float64())
                table = pa.table(columns | _figures(len(b), seed=1000 + pair.gap + len(pair.b)))
                yield Batch(type_, pair.key, pair.later.id, pair.earlier.id, table)
            elif type_ == pair.type:
                columns = {
                    "later": pair.b,
                    "earlier": pair.a,
                    "similarity": pair.similarity,
                    "rank": pa.array(pair.rank, mask=pair.rank < 0),
                    "forward_rank": pa.array(pair.forward_rank, mask=pair.forward_rank < 0),
                    "gap": np.full(len(pair.b), pair.gap),
                    "push": pa.array(pair.push, mask=np.isnan(pair.push)),
                }
                table = pa.table(columns | _figures(len(pair.b), seed=len(pair.b)))
                yield Batch(type_, pair.key, pair.later.id, pair.earlier.id, table)

    def at(self, folder: Path) -> Path:
        """Write the atlas folder: graph, records and manifest, without decoder rows."""
        store = LadybugStore(folder / "graph", None)
        for record in self.dictionaries:
            place = folder / "dictionaries" / record.id
            place.mkdir(parents=True)
            record.save(place)
        fingerprint = store.publish(self)
        names = tuple(record.id for record in self.dictionaries)
        keys = tuple(pair.key for pair in self.matched)
        Manifest("planted", None, names, keys, k=self.k, state=self.state, fingerprint=fingerprint).save(folder)
        return folder


def _figures(size: int, seed: int) -> dict[str, pa.Array]:
    """Figures of a text by name, of no text: some null, some 0."""
    rng = np.random.default_rng(seed)
    support = rng.integers(0, 200, size)
    cofire = np.round(rng.random(size) * (rng.random(size) < 0.8), 3)
    found = {
        "cofire": cofire,
        "lift": cofire * 7,
        "correlation": cofire * 1.5 - 0.5,
        "effect": 1 - 3 * rng.random(size),
    }
    return {name: pa.array(values, mask=support < 20) for name, values in found.items()} | {"support": support}


def _residual(rng: np.random.Generator, before: np.ndarray | None, att: np.ndarray, mlp: np.ndarray) -> np.ndarray:
    """Unit rows [size, width]: persisting, also written by the MLP, made by a module, merged, or new."""
    size, width = mlp.shape
    new = rng.normal(size=(size, width)) / np.sqrt(width)
    if before is None:
        return _unit(new)
    kind = np.asarray(rng.choice(6, size, p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.15]))[:, None]
    old, other = before[rng.integers(0, size - 1, (2, size))]
    noise = new * rng.uniform(0.1, 0.9, size=(size, 1))
    made = [old + noise, old + 0.7 * mlp + noise, mlp + noise, att + noise, old + other]
    return _unit(np.select([kind == number for number in range(5)], made, new))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _ranks(cosine: np.ndarray, k: int) -> np.ndarray:
    """int [rows, columns]: place of each column among the row's k largest, −1 elsewhere."""
    top = np.argpartition(-cosine, k, axis=1)[:, :k]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(cosine, top, 1), axis=1, kind="stable"), 1)
    ranks = np.full(cosine.shape, -1, dtype=np.int64)
    np.put_along_axis(ranks, top, np.broadcast_to(np.arange(k), top.shape), 1)
    return ranks


def _record(layer: int, site: str, size: int, width: int) -> Dictionary:
    set_ = f"{site}-{size}"
    name = dictionary_id("planted", layer, set_)
    hook = {RES: "hook_resid_post", MLP: "hook_mlp_out", ATT: "hook_attn_out"}[site]
    hook = f"blocks.{layer}.{hook}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Dictionary(
        id=name, model="planted", model_name="planted", layer=layer, site=site, depth=depth(site, layer), set=set_,
        hook_name=hook, hook_name_in=hook, hf_hook_name=None, hf_hook_name_in=None, architecture="standard",
        d_sae=size, d_model=width, d_in=width, k=None, apply_b_dec_to_input=False,
        normalize_activations="none", centred_input=False, mapped=None, dead_rows=1, release=None,
        sae_id=None, neuronpedia_id=None, source="planted", sha256=digest, rows_sha256=digest,
    )  # fmt: skip


def _columns(rng: np.random.Generator, record: Dictionary, rows: np.ndarray) -> dict[str, Any]:
    """Feature properties as lists, without scores; two thirds have tokens, a third of all a label of its own."""
    size = record.d_sae
    columns: dict[str, Any] = {name: [None] * size for name in _properties(schema.FEATURE)}
    columns["id"] = _ids(record, range(size))
    columns["index"] = list(range(size))
    for name in ("model", "layer", "site", "depth"):
        columns[name] = [getattr(record, name)] * size
    columns["dictionary"] = [record.id] * size
    columns["dead"] = [not row.any() for row in rows]
    columns["norm"] = [float(np.linalg.norm(row)) for row in rows]
    for i in range(size):
        words = [str(word) for word in rng.choice(WORDS, 4, replace=False)]
        if i % 3:
            columns["fires_on"][i] = ", ".join(words[:2])
            columns["promotes"][i] = ", ".join(word.title() for word in words[2:])
            columns["frequency"][i] = float(rng.uniform(0, 0.1))
            columns["max_activation"][i] = round(float(rng.uniform(0, 40)), 1)
            # Where it has no label of its own, an ingest takes the tokens it fires on.
            columns["label"][i] = f"About {words[0]}s, “{words[1]}”" if i % 3 == 2 else columns["fires_on"][i]
    return columns


def _classify(columns: dict[str, Any], record: Dictionary, first: int) -> None:
    """Origin, life cycle and whether it vanishes, from the scores (paper §3.3)."""
    if record.site != RES:
        return
    for i in range(record.d_sae):
        if columns["dead"][i]:
            continue
        scores = {site: columns[f"s_{site}"][i] or 0.0 for site in (RES, MLP, ATT)}
        reached = {site for site in scores if scores[site] >= (MIN_RES if site == RES else MIN_MODULE)}
        kept, written = RES in reached, bool(reached - {RES})
        cases = {(1, 0): "persists", (1, 1): "transforms", (0, 1): "appears", (0, 0): "unexplained"}
        columns["lifecycle"][i] = "start" if record.layer == first else cases[kept, written]
        columns["origin"][i] = max(reached, key=lambda site: scores[site], default="none")
        following = columns["s_next"][i]
        columns["vanishes"][i] = None if following is None else following < MIN_RES


def _ids(record: Dictionary, indices: Any) -> list[str]:
    return [feature_id(record.id, int(i)) for i in indices]


def _properties(label: str) -> dict[str, str]:
    return schema.properties(label)


def _table(label: str, columns: dict[str, Any]) -> pa.Table:
    """The columns in the schema's order and types; those not given are null."""
    size = len(columns["id"])
    return table_of(label, [{name: values[i] for name, values in columns.items()} for i in range(size)])

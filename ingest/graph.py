"""The graph that a folder's files amount to: nodes with their life cycle and labels, edges from staged matches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.atlas import dictionary_folder
from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import FIGURES, TEXTS, Labels
from atlas.folder.manifest import FORMAT, Manifest
from atlas.folder.matches import Pair, read_pair, read_table
from atlas.folder.rows_cache import open_rows
from atlas.graph.store import Batch
from atlas.ids import ATT, MLP, RES
from atlas.schema import ATLAS, DICTIONARY, FEATURE, MATCHED, MODEL, RUN, properties
from ingest.lifecycle import Scores, life_cycle, vanishes

if TYPE_CHECKING:
    import pyarrow as pa

_FLOOR = "floor"


class AtlasGraph:
    """An `atlas.graph.store.Graph` over a folder's dictionaries and staged matches; one pair in memory at a time."""

    def __init__(
        self,
        folder: Path,
        dictionaries: dict[str, Dictionary],
        manifest: Manifest,
        state: str,
    ) -> None:
        self.folder = folder
        self.dictionaries = dictionaries
        self.manifest = manifest
        self.state = state
        self.previous = manifest.ancestors
        self.pairs: dict[str, Pair] = {name: read_pair(folder / "matches" / name) for name in manifest.pairs}

    @property
    def size(self) -> int:
        """Number of features and edges."""
        features = sum(d.d_sae for d in self.dictionaries.values())
        return features + sum(pair.edges for pair in self.pairs.values()) + len(self.pairs)

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables of that label, with the columns of atlas.schema in their order."""
        if label == MODEL:
            models = {
                d.model: {"id": d.model, "name": d.model_name, "d_model": d.d_model} for d in self.dictionaries.values()
            }
            yield _table(label, list(models.values()))
        elif label == DICTIONARY:
            columns = _columns(label)
            yield _table(label, [{c: getattr(d, c) for c in columns} for d in self.dictionaries.values()])
        elif label == RUN:
            columns = _columns(label)
            yield _table(label, [{c: run[c] for c in columns} for run in self.manifest.runs])
        elif label == ATLAS:
            thresholds = json.dumps({"res": self.manifest.min_res, "module": self.manifest.min_module})
            values = {"id": self.manifest.id, "state": self.state, "format": FORMAT, "k": self.manifest.k}
            yield _table(label, [values | {"thresholds": thresholds}])
        elif label == FEATURE:
            for dictionary in self.dictionaries.values():
                yield self._features(dictionary)

    def edges(self, type_: str) -> Iterator[Batch]:
        """One batch a pair; for MATCHED one in all."""
        if type_ == MATCHED:
            yield self._matched()
            return
        for name, pair in self.pairs.items():
            if pair.type == type_:
                yield Batch(type_, name, self._feature_edges(name, pair))

    def _matched(self) -> Batch:
        import pyarrow as pa

        rows = [
            {
                "later": p.later,
                "earlier": p.earlier,
                "key": name,
                "k": p.k,
                "edges": p.edges,
                "gap": p.gap,
                "floor": p.floor,
                "floor_median": p.floor_median,
            }
            for name, p in self.pairs.items()
        ]
        types: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in ("later", "earlier", "key")]
        types += [(name, pa.int64()) for name in ("k", "edges", "gap")]
        types += [(name, pa.float64()) for name in ("floor", "floor_median")]
        return Batch(MATCHED, ",".join(self.pairs), pa.Table.from_pylist(rows, pa.schema(types)))

    def _feature_edges(self, name: str, pair: Pair) -> pa.Table:
        import pyarrow as pa

        staged = read_table(self.folder / "matches" / name)
        return pa.table(
            {
                "later": self._ids(pair.later).take(staged["later"].combine_chunks()),
                "earlier": self._ids(pair.earlier).take(staged["earlier"].combine_chunks()),
                "similarity": staged["similarity"].cast(pa.float64()),
                "rank": staged["rank"].cast(pa.int64()),
                "forward_rank": staged["forward_rank"].cast(pa.int64()),
                "gap": pa.repeat(pa.scalar(pair.gap, pa.int64()), len(staged)),
            }
        )

    def _ids(self, dictionary: str) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        indices = pa.array(np.arange(self.dictionaries[dictionary].d_sae)).cast(pa.string())
        return pc.binary_join_element_wise(dictionary, indices, "/")

    def _features(self, d: Dictionary) -> pa.Table:
        import pyarrow as pa

        rows = open_rows(self.folder, d)
        labels = Labels.load(dictionary_folder(self.folder, d.id))
        alive = rows.alive
        columns: dict[str, Any] = {
            "id": self._ids(d.id),
            "index": pa.array(np.arange(d.d_sae)),
            "norm": pa.array(rows.vectors["norms"].astype(np.float64)),
            "dead": pa.array(~alive),
        }
        for name in ("dictionary", "model", "layer", "site", "depth"):
            columns[name] = pa.repeat(pa.scalar(d.id if name == "dictionary" else getattr(d, name)), d.d_sae)
        columns |= {name: labels.column(name, d.d_sae) for name in (*TEXTS, *FIGURES)}
        columns |= self._cycle(d, alive)
        return pa.table({name: columns[name] for name in _columns(FEATURE)})

    def _cycle(self, d: Dictionary, alive: np.ndarray) -> dict[str, Any]:
        import pyarrow as pa

        scores: Scores = {site: self._best(d, "later", site) for site in (RES, MLP, ATT)}
        s_next = self._best(d, "earlier", RES) if d.site == RES else None
        lifecycle = origin = gone = None
        if d.site == RES:
            min_module = {site: self._threshold(self.manifest.min_module, d, site) for site in (MLP, ATT)}
            lifecycle, origin = life_cycle(scores, self._threshold(self.manifest.min_res, d, RES), min_module, alive)
            gone = vanishes(s_next, self._threshold(self.manifest.min_res, d, "next"), alive)
        floats = {"s_res": scores[RES], "s_mlp": scores[MLP], "s_att": scores[ATT], "s_next": s_next}
        size = d.d_sae
        result = {
            name: pa.nulls(size, pa.float64()) if v is None else pa.array(v, mask=~alive) for name, v in floats.items()
        }
        result["lifecycle"] = pa.nulls(size, pa.string()) if lifecycle is None else pa.array(lifecycle, pa.string())
        result["origin"] = pa.nulls(size, pa.string()) if origin is None else pa.array(origin, pa.string())
        result["vanishes"] = pa.nulls(size, pa.bool_()) if gone is None else pa.array(gone, pa.bool_())
        return result

    @cached_property
    def _bests(self) -> dict[tuple[str, str, str], np.ndarray]:
        """Best cosine of every feature by (dictionary, its end of the edge, site of the earlier dictionary)."""
        import pyarrow.compute as pc

        bests: dict[tuple[str, str, str], np.ndarray] = {}
        for name, pair in self.pairs.items():
            staged = read_table(self.folder / "matches" / name)
            site = self.dictionaries[pair.earlier].site
            for end, dictionary, rank in (
                ("later", pair.later, "rank"),
                ("earlier", pair.earlier, "forward_rank"),
            ):
                first = staged.filter(pc.equal(staged[rank], 0))
                best = bests.setdefault((dictionary, end, site), np.zeros(self.dictionaries[dictionary].d_sae))
                index = first[end].to_numpy()
                best[index] = np.maximum(best[index], first["similarity"].to_numpy())
        return bests

    def _best(self, d: Dictionary, end: str, site: str) -> np.ndarray | None:
        return self._bests.get((d.id, end, site))

    def _threshold(self, threshold: float | str, d: Dictionary, site: str) -> float:
        """A number as it is; `floor` as the noise floor of the pair in which the score was measured."""
        if threshold != _FLOOR:
            return float(threshold)
        if site == "next":
            floors = [p.floor for p in self.pairs.values() if p.earlier == d.id]
        else:
            floors = [
                p.floor for p in self.pairs.values() if p.later == d.id and self.dictionaries[p.earlier].site == site
            ]
        return max((floor for floor in floors if floor is not None), default=0.0)


def _columns(label: str) -> list[str]:
    return list(properties(label))


def _table(label: str, rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    kinds = {"STRING": pa.string(), "INT64": pa.int64(), "DOUBLE": pa.float64(), "BOOL": pa.bool_()}
    return pa.Table.from_pylist(rows, pa.schema([(name, kinds[kind]) for name, kind in properties(label).items()]))


def run_record(**values: Any) -> dict[str, Any]:
    """A run's flat record, one value for every property of a Run node; mappings as JSON text."""
    return {n: json.dumps(values[n]) if isinstance(values[n], dict) else values[n] for n in _columns(RUN)}

"""The graph that a folder's files amount to: nodes with their life cycle and labels, edges from staged matches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.folder.dictionary import Dictionary
from atlas.folder.labels import FIGURES, TEXTS, Labels
from atlas.folder.manifest import FORMAT, Manifest
from atlas.folder.matches import Pair, edge_table, read_pair, read_table, split
from atlas.folder.paths import dictionary_folder, matches_file
from atlas.folder.rows_cache import open_rows
from atlas.graph.lifecycle import Scores, life_cycle, vanishes
from atlas.graph.store import Batch
from atlas.graph.tables import feature_ids, table_of
from atlas.ids import ATT, MLP, RES, is_mid
from atlas.schema import ATLAS, DICTIONARY, FEATURE, FIRES_WITH, MATCHED, MODEL, RUN, properties

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
        # Only what stands beside the tables is read here: tables come one at a time, when they are asked for.
        self.matched: dict[str, Pair] = {name: read_pair(matches_file(folder, name)) for name in manifest.pairs}

    @property
    def size(self) -> int:
        """Number of features and edges."""
        features = sum(d.d_sae for d in self.dictionaries.values())
        edges = sum(pair.edges + pair.fires_with for pair in self.matched.values())
        return features + edges + len(self.matched)

    def nodes(self, label: str) -> Iterator[pa.Table]:
        """Tables of that label, with the columns of atlas.schema in their order."""
        if label == MODEL:
            models = {
                d.model: {"id": d.model, "name": d.model_name, "d_model": d.d_model} for d in self.dictionaries.values()
            }
            yield table_of(label, list(models.values()))
        elif label == DICTIONARY:
            # A node has a record's fields as they are, so that a record can be made of the node again.
            yield table_of(label, [vars(d) for d in self.dictionaries.values()])
        elif label == RUN:
            yield table_of(label, list(self.manifest.runs))
        elif label == ATLAS:
            thresholds = json.dumps({"res": self.manifest.min_res, "module": self.manifest.min_module})
            values = {"id": self.manifest.id, "state": self.state, "format": FORMAT, "k": self.manifest.k}
            measured = json.dumps(self.manifest.measured) if self.manifest.measured else None
            yield table_of(label, [values | {"thresholds": thresholds, "measured": measured}])
        elif label == FEATURE:
            for dictionary in self.dictionaries.values():
                yield self._features(dictionary)

    def pairs(self) -> pa.Table:
        """The edges MATCHED, one a pair."""
        return table_of(MATCHED, [vars(pair) | {"key": name} for name, pair in self.matched.items()])

    def edges(self, type_: str) -> Iterator[Batch]:
        """One batch a pair."""
        for name, pair in self.matched.items():
            if pair.type == type_ or (type_ == FIRES_WITH and pair.fires_with):
                matches, fires_with = split(edge_table(read_table(matches_file(self.folder, name)), pair.gap))
                yield Batch(type_, name, pair.later, pair.earlier, matches if pair.type == type_ else fires_with)

    def _features(self, d: Dictionary) -> pa.Table:
        import pyarrow as pa

        opened = open_rows(self.folder, d)
        labels = Labels.load(dictionary_folder(self.folder, d.id), self.state)
        rows = pa.array(np.arange(d.d_sae))
        columns: dict[str, Any] = {
            "id": feature_ids(d.id, rows),
            "index": rows,
            "norm": pa.array(opened.vectors["norms"].astype(np.float64)),
            "dead": pa.array(~opened.alive),
        }
        shared = {"dictionary": d.id} | {name: getattr(d, name) for name in ("model", "layer", "site", "depth")}
        columns |= {name: pa.repeat(pa.scalar(value), d.d_sae) for name, value in shared.items()}
        columns |= {name: labels.column(name, d.d_sae) for name in (*TEXTS, *FIGURES)}
        for name, values in self._cycle(d, opened.alive).items():
            columns[name] = pa.nulls(d.d_sae) if values is None else pa.array(values, mask=~opened.alive)
        return pa.table(columns)

    def _cycle(self, d: Dictionary, alive: np.ndarray) -> dict[str, np.ndarray | None]:
        """Scores, and for residual features what follows from them, [d_sae] each; None where nothing was measured."""
        scores: Scores = {site: self._best(d, "later", site) for site in (RES, MLP, ATT)}
        s_next = self._best(d, "earlier", RES) if d.site == RES else None
        lifecycle = origin = gone = None
        if d.site == RES:
            min_module = {site: self._threshold(self.manifest.min_module, d, site) for site in (MLP, ATT)}
            lifecycle, origin = life_cycle(scores, self._threshold(self.manifest.min_res, d, RES), min_module, alive)
            gone = vanishes(s_next, self._threshold(self.manifest.min_res, d, "next"), alive)
        found = {"s_res": scores[RES], "s_mlp": scores[MLP], "s_att": scores[ATT], "s_next": s_next}
        return found | {"lifecycle": lifecycle, "origin": origin, "vanishes": gone}

    @cached_property
    def _bests(self) -> dict[tuple[str, str, str], np.ndarray]:
        """Best cosine of every feature by (dictionary, its end of the edge, site of the earlier dictionary)."""
        import pyarrow.compute as pc

        bests: dict[tuple[str, str, str], np.ndarray] = {}
        for name, pair in self.matched.items():
            staged = read_table(matches_file(self.folder, name))
            site = self.dictionaries[pair.earlier].site
            for end, dictionary, rank in (
                ("later", pair.later, "rank"),
                ("earlier", pair.earlier, "forward_rank"),
            ):
                # Both ends are looked at apart: a pair may count for one of its dictionaries and not for the other.
                if not self._judges(pair, end):
                    continue
                first = staged.filter(pc.equal(staged[rank], 0))
                # Zeros, not nulls: a feature without a match was measured all the same.
                best = bests.setdefault((dictionary, end, site), np.zeros(self.dictionaries[dictionary].d_sae))
                index = first[end].to_numpy()
                # Several dictionaries may stand at one place, each with a pair of its own.
                best[index] = np.maximum(best[index], first["similarity"].to_numpy())
        return bests

    def _judges(self, pair: Pair, end: str) -> bool:
        """Whether a pair counts in the life cycle of the dictionary at that end.

        A stream after a block is judged by streams after blocks, also where one between attention and MLP was taken in
        beside them.
        """
        other = "earlier" if end == "later" else "later"
        own, met = (self.dictionaries[getattr(pair, side)] for side in (end, other))
        if not _mid(met) or _mid(own):
            return True
        rivals = (p for p in self.matched.values() if getattr(p, end) == own.id and p.type == pair.type)
        return all(_mid(self.dictionaries[getattr(p, other)]) for p in rivals)

    def _best(self, d: Dictionary, end: str, site: str) -> np.ndarray | None:
        return self._bests.get((d.id, end, site))

    def _threshold(self, threshold: float | str, d: Dictionary, site: str) -> float:
        """The threshold of a score, never below the noise floor of the pair in which it was measured.

        Below it every feature would "transform" by noise, as happens where rows are short: 0.25 is reached by chance
        among a few thousand rows of less than a hundred numbers.
        """
        if site == "next":
            floors = [p.floor for p in self.matched.values() if p.earlier == d.id and self._judges(p, "earlier")]
        else:
            found = (p for p in self.matched.values() if p.later == d.id and self._judges(p, "later"))
            floors = [p.floor for p in found if self.dictionaries[p.earlier].site == site]
        # The largest, where several pairs gave the score: it is not kept which of them had the best match.
        floor = max((floor for floor in floors if floor is not None), default=0.0)
        return floor if threshold == _FLOOR else max(float(threshold), floor)


def _mid(d: Dictionary) -> bool:
    return is_mid(d.site, d.layer, d.depth)


def run_record(**values: Any) -> dict[str, Any]:
    """A run's flat record, one value for every property of a Run node; mappings as JSON text."""
    return {n: json.dumps(values[n]) if isinstance(values[n], dict) else values[n] for n in properties(RUN)}

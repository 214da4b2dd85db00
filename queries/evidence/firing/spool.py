"""Activations on a text, sparse and on disk: what is left of one pass until the figures are made.

Shards of SHARD contexts, each one file that is written whole. A repeat after an interruption goes on behind the last
of them, with the same batches, so its numbers are those of an unbroken pass. In memory there is one batch at a time;
on disk 8 bytes for each active feature and token.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from atlas.cli.progress import Progress
from atlas.cluster import Shared, cluster
from atlas.folder.dictionary import Dictionary
from atlas.folder.manifest import replacing
from atlas.folder.paths import evidence_folder
from atlas.folder.rows_cache import open_rows
from queries.evidence.sampling import WIDTH, Sample
from queries.workers import worker_atlas, worker_model

if TYPE_CHECKING:
    from atlas.atlas import Atlas

BATCH, SHARD = 8, 64  # contexts that go through the model together, and that one file holds
_VERSION = 1


class Spool:
    """The activations of some dictionaries on a sample."""

    def __init__(self, folder: Path, sample: Sample, records: Mapping[str, Dictionary]) -> None:
        """`folder`: the atlas's. Nothing is read or written yet."""
        self.sample = sample
        self.records = dict(records)
        key = [_VERSION, sample.sha256, sample.seed, len(sample.tokens), *((d.id, d.sha256) for d in records.values())]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        self.place = evidence_folder(folder) / digest

    @property
    def shards(self) -> int:
        """How many files the whole sample takes."""
        return -(-self.sample.contexts // SHARD)

    def fill(
        self, folder: Path, model: Any, groups: Mapping[int | None, Mapping[str, Dictionary]], progress: Progress
    ) -> None:
        """Run the model over what is not on disk yet.

        groups: the dictionaries by the token that contexts begin with (queries.evidence.sampling.starts).
        """
        self.place.mkdir(parents=True, exist_ok=True)
        for number, (start, records) in enumerate(groups.items()):
            done = next((n for n in range(self.shards) if not self._file(number, n).exists()), self.shards)
            left = self.sample.tokens[done * SHARD * WIDTH :]
            with progress.steps("activations", len(left), "tokens") as advance:
                for shard, arrays in enumerate(_shards(folder, model, start, records, left, advance), done):
                    self._keep(number, shard, arrays)

    def fill_on_ray(
        self,
        ray: str,
        atlas: Atlas,
        name: str,
        groups: Mapping[int | None, Mapping[str, Dictionary]],
        progress: Progress,
    ) -> None:
        """The same on the cluster at `ray`, a shard a task; nodes find the atlas and the model of that name as here."""
        self.place.mkdir(parents=True, exist_ok=True)
        tasks, shared = {}, Shared.of(atlas)
        for number, (start, records) in enumerate(groups.items()):
            for shard in range(self.shards):
                if not self._file(number, shard).exists():
                    tokens = self.sample.tokens[shard * SHARD * WIDTH : (shard + 1) * SHARD * WIDTH]
                    tasks[number, shard] = (shared, name, start, tuple(records), tokens)
        with (
            progress.steps("activations", sum(len(task[-1]) for task in tasks.values()), "tokens") as advance,
            cluster(ray) as there,
        ):
            for place, arrays in there.results(shard_of, tasks):
                self._keep(*place, arrays)
                advance(len(tasks[place][-1]))

    def _keep(self, group: int, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        with replacing(self._file(group, shard)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # stubs take them for allow_pickle

    def parts(self, *ids: str) -> Iterator[tuple[sp.csr_array, ...]]:
        """Shard by shard the activations float64 [positions, d_sae] of these dictionaries, at positions that count.

        A position counts where it is no attention sink in any pass that one of them belongs to.
        """
        for shard in range(self.shards):
            found: dict[str, sp.csr_array] = {}
            counted = np.array(True)
            for number in range(2):
                path = self._file(number, shard)
                if not path.exists():
                    continue
                with np.load(path, allow_pickle=False) as arrays:
                    wanted = [id_ for id_ in ids if f"{id_} counts" in arrays.files]
                    if wanted:
                        counted = counted & arrays["counted"]
                    found |= {id_: self._matrix(arrays, id_) for id_ in wanted}
            yield tuple(found[id_][counted] for id_ in ids)

    def counted(self) -> int:
        """Positions that count in every pass."""
        return sum(part.shape[0] for (part, *_) in self.parts(*self.records))

    def drop(self) -> None:
        """Remove the files, and what measurements that were broken off and never repeated have left beside them."""
        shutil.rmtree(self.place.parent, ignore_errors=True)

    def _matrix(self, arrays: Any, id_: str) -> sp.csr_array:
        starts = np.concatenate([[0], np.cumsum(arrays[f"{id_} counts"])])
        shape = (len(starts) - 1, self.records[id_].d_sae)
        return sp.csr_array((arrays[f"{id_} data"].astype(np.float64), arrays[f"{id_} indices"], starts), shape=shape)

    def _file(self, group: int, shard: int) -> Path:
        return self.place / f"{group}-{shard:06}.npz"


def shard_of(
    shared: Shared, name: str, start: int | None, ids: Sequence[str], tokens: np.ndarray, gpu: bool
) -> dict[str, np.ndarray]:
    """A task: the arrays of one shard, whose tokens these are. Raises ClusterError where the atlas there is another."""
    records = {id_: worker_atlas(shared).dictionaries[id_] for id_ in ids}
    folder, (model, _) = Path(shared.address), worker_model(name, gpu)
    (arrays,) = _shards(folder, model, start, records, tokens, lambda _: None)
    return arrays


def _shards(
    folder: Path,
    model: Any,
    start: int | None,
    records: Mapping[str, Dictionary],
    tokens: np.ndarray,
    advance: Callable[[int], Any],
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of each shard of these tokens."""
    import torch

    from hooked.encoder import Encoder
    from hooked.reading import read

    encoders = {id_: Encoder.of(d, open_rows(folder, d)).to(model.device) for id_, d in records.items()}
    kept: dict[str, list[np.ndarray]] = {}
    for number, part in enumerate(read(model, start, records, tokens, BATCH), 1):
        real = part.numbers.ravel() >= 0
        counted = part.counted().cpu()
        kept.setdefault("counted", []).append(counted.numpy().ravel()[real])
        with torch.inference_mode():
            for id_, encoder in encoders.items():
                values = encoder(part.hidden[id_]).values.flatten(0, 1) * counted.flatten()[:, None].to(model.device)
                found = sp.csr_array(values.cpu().numpy()[real])
                for name, array in (("data", found.data), ("indices", found.indices)):
                    kept.setdefault(f"{id_} {name}", []).append(array)
                kept.setdefault(f"{id_} counts", []).append(np.diff(found.indptr))
        advance(int(real.sum()))
        if number * BATCH % SHARD == 0:
            yield _joined(kept)
    if kept:
        yield _joined(kept)


def _joined(kept: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Each name's arrays as one, taken out one after the other: a shard need not be in memory twice."""
    return {name: np.concatenate(kept.pop(name)) for name in list(kept)}

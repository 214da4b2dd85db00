"""Does removing a feature's predecessor stop it? The paper's table (§5.2, Table 1) with the controls that it lacks.

1. Contexts of a text are drawn, and PER_TEXT tokens of each; start tokens and attention sinks are never among them.
2. At each token the active features of every residual dictionary are targets, and predecessors in each dictionary that
   it is matched with are removed there in the ways of queries.evidence.removals.removal.
3. Success is the target's activation becoming 0, change the share of it that goes. Intervals by contexts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from atlas.atlas import Atlas
from atlas.cli.progress import Progress
from atlas.cluster import Shared, cluster
from atlas.errors import QueryError
from atlas.folder.stored_rows import products
from queries.evidence.controls.frozen import Frozen
from queries.evidence.readers import Reader, readers_of
from queries.evidence.removals.copies import Context, first_block
from queries.evidence.removals.outcome import Outcome
from queries.evidence.removals.removal import trials
from queries.evidence.sampling import PER_TEXT, WIDTH, chosen_places, draw, of_set, runnable, starts
from queries.evidence.sources import Source, sources
from queries.workers import worker_atlas, worker_model

POSITIONS = 100  # in all, unless said otherwise
_log = logging.getLogger(__name__)


def deactivation(
    atlas: Atlas,
    texts: Sequence[Path],
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    set_name: str | None = None,
    permutation: bool = False,
    frozen: bool = False,
    model: str | None = None,
    device: str = "auto",
    ray: str | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Remove predecessors at tokens of a text, and record what becomes of the targets.

    Args:
        texts: files; contexts and tokens in them are drawn by `seed`.
        positions: tokens in all, PER_TEXT of each context.
        permutation: also by a one-to-one matching of all features; about a second for 2,048, minutes for 16,384.
        frozen: also rows of a random dictionary that nobody trained, as if they were the earlier one's.
        set_name: of several dictionaries at one place those of this set (`of_set`); None: all together.
        model: name or folder; None: the one that the dictionaries name.
        device: auto, cpu or cuda:N.
        ray: address of a Ray cluster, whose nodes find the atlas where it is here; empty: one of this machine's own;
            None: here, without Ray.

    Example:
        outcome = deactivation(atlas, [Path("wiki.txt")], positions=20)
        print([row for row in outcome.rows() if row["method"] == "top1"])

    Raises QueryError where the atlas has no pair to try, IngestError for a text, ModelError for the model.
    """
    from hooked.load import load_model

    progress = progress or Progress(quiet=True)
    records = of_set(runnable(atlas.dictionaries), set_name)
    pairs = _pairs(atlas, records)
    if not pairs:
        raise QueryError("the atlas has no residual dictionary with an earlier one that both can be run")
    if not all(pair.measured for pair in pairs):
        _log.warning("without `evidence edges` no correlation is known: method pearson is left out where it is missing")
    name = model or next(iter(records.values())).model_name
    loaded, tokenizer = load_model(name, device=device)
    sample = draw(texts, tokenizer, -(-positions // PER_TEXT) * WIDTH, seed)
    outcome = Outcome(seed, sample.record("effects", name) | {"tokens": positions})
    groups = starts(tokenizer, records)
    choices = Choices(tuple(records), positions, seed, permutation, frozen)
    later = {pair.later.id for pair in pairs if pair.later.prepend_bos == pair.earlier.prepend_bos}
    with progress.steps("removals", positions * len(later), "tokens") as advance:
        if ray is None:
            removals = Removals(atlas, loaded, choices, pairs)
            for start, group in groups.items():
                outcome.take(removals.tried(start, tuple(group), sample.tokens, 0, advance))
        else:
            for part in _on_ray(ray, atlas, name, choices, groups, sample.tokens, advance):
                outcome.take(part)
    if not outcome.targets:
        raise QueryError("no residual feature was active at the tokens drawn; take more with --tokens")
    return outcome


@dataclass(frozen=True)
class Choices:
    """What decides the removals at a token."""

    records: tuple[str, ...]  # ids of the dictionaries that take part
    positions: int
    seed: int
    permutation: bool
    frozen: bool


def _pairs(atlas: Atlas, records: Collection[str]) -> list[Source]:
    return [pair for pair in sources(atlas) if pair.later.id in records and pair.earlier.id in records]


class Removals:
    """Everything that removals need beside the text, made once."""

    def __init__(self, atlas: Atlas, model: Any, choices: Choices, pairs: Sequence[Source]) -> None:
        self._model, self._choices = model, choices
        records = {id_: atlas.dictionaries[id_] for id_ in choices.records}
        self._readers = readers_of(atlas, records, model)
        self._wrong = {pair.key: found for pair in pairs if (found := _wrong_layer(pair, self._readers)) is not None}
        drawn = {
            pair.key: Frozen.of(pair, self._readers[pair.earlier.id], choices.seed) for pair in pairs if choices.frozen
        }
        self._random = {key: each for key, each in drawn.items() if each is not None}
        # Both read in one pass: what the one writes and the other reads belongs to one forward pass.
        self._later: dict[str, list[Source]] = {}
        for pair in pairs:
            if pair.later.prepend_bos == pair.earlier.prepend_bos:
                self._later.setdefault(pair.later.id, []).append(pair)

    def tried(
        self, start: int | None, ids: Collection[str], tokens: np.ndarray, first: int, advance: Callable[[int], Any]
    ) -> Outcome:
        """What became of the targets at the drawn tokens of these contexts, read behind `start` by these dictionaries.

        first: number of the first context in the whole text. `advance`: called with 1 for each token and later layer.
        """
        model, choices = self._model, self._choices
        outcome = Outcome(choices.seed, {})
        own = {id_: found for id_, found in self._later.items() if id_ in ids}
        group = {id_: self._readers[id_].record for id_ in ids}
        blocks = {first_block(pair.earlier) for its in own.values() for pair in its}
        guarded: set[int] = set()
        for text, place, context, hidden in _positions(model, start, group, blocks, tokens, choices, first):
            for its in own.values():
                rng = np.random.default_rng([choices.seed, text, place, its[0].later.depth])
                found = trials(
                    *(model, context, place, hidden, its, self._readers, self._wrong, rng),
                    *(choices.permutation, self._random),
                )
                for trial in found:
                    outcome.add(trial, text)
                    # At the first token drawn of a context: it takes the whole model.
                    if text not in guarded and place + 1 < len(context.tokens):
                        outcome.guard(model, context, place, trial, text)
                advance(1)
            guarded.add(text)
        return outcome


def _on_ray(
    ray: str,
    atlas: Atlas,
    name: str,
    choices: Choices,
    groups: Mapping[int | None, Mapping[str, Any]],
    tokens: np.ndarray,
    advance: Callable[[int], Any],
) -> list[Outcome]:
    """The same, a context a task, in the order of the text."""
    shared = Shared.of(atlas)
    tasks = {
        (number, text): (shared, name, choices, start, tuple(group), tokens[text * WIDTH : (text + 1) * WIDTH], text)
        for number, (start, group) in enumerate(groups.items())
        for text in range(-(-len(tokens) // WIDTH))
        if text * PER_TEXT < choices.positions
    }
    made: dict[tuple[int, int], Outcome] = {}
    with cluster(ray) as there:
        for place, (outcome, count) in there.results(tried_of, tasks):
            made[place] = outcome
            advance(count)
    return [made[place] for place in sorted(made)]


def tried_of(
    shared: Shared,
    name: str,
    choices: Choices,
    start: int | None,
    ids: Collection[str],
    tokens: np.ndarray,
    text: int,
    gpu: bool,
) -> tuple[Outcome, int]:
    """A task: one context, and how many tokens and later layers it held. Raises ClusterError for another atlas."""
    done: list[int] = []
    return _removals(shared, name, choices, gpu).tried(start, ids, tokens, text, done.append), len(done)


@cache
def _removals(shared: Shared, name: str, choices: Choices, gpu: bool) -> Removals:
    """This worker process' own."""
    atlas, (model, _) = worker_atlas(shared), worker_model(name, gpu)
    return Removals(atlas, model, choices, _pairs(atlas, choices.records))


def _positions(
    model: Any,
    start: int | None,
    group: Mapping[str, Any],
    blocks: Collection[int],
    tokens: np.ndarray,
    choices: Choices,
    first: int,
) -> Iterator[tuple[int, int, Context, dict[str, Any]]]:
    """The drawn tokens: number of the context, place in it, the context up to the last, what each encoder reads."""
    from hooked.reading import read

    for number, part in enumerate(read(model, start, group, tokens, 1)):
        text = first + number
        if text * PER_TEXT >= choices.positions:
            return
        chosen = chosen_places(part.counted()[0].cpu().numpy(), text, choices.positions, choices.seed)
        before = [] if start is None else [start]
        ids = before + tokens[number * WIDTH : (number + 1) * WIDTH].tolist()
        if not chosen:
            continue
        context = Context.read(model, ids[: chosen[-1] + len(before) + 1], blocks)
        for place in chosen:
            yield text, place + len(before), context, {id_: hidden[0, place] for id_, hidden in part.hidden.items()}


def _wrong_layer(pair: Source, readers: Mapping[str, Reader]) -> tuple[Reader, np.ndarray] | None:
    """The dictionary of the earlier one's site that is farthest from it and its best matches; None for no other."""
    others = [
        reader
        for reader in readers.values()
        if reader.record.site == pair.earlier.site
        and reader.record.d_in == pair.earlier.d_in
        and reader.record.layer not in (pair.earlier.layer, pair.later.layer)
    ]
    if not others:
        return None
    far = max(others, key=lambda reader: (abs(reader.record.layer - pair.earlier.layer), reader.record.id))
    best = np.empty(pair.later.d_sae, dtype=np.int64)
    for first in range(0, len(best), 4096):
        part = slice(first, first + 4096)
        best[part] = products(pair.rows[0].decoder[part], far.rows.decoder).argmax(axis=1)
    return far, best

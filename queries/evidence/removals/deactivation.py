"""Does removing a feature's predecessor stop it? The paper's table (§5.2, Table 1) with the controls that it lacks.

1. Contexts of a text are drawn, and PER_TEXT tokens of each; start tokens and attention sinks are never among them.
2. At each token the active features of every residual dictionary are targets, and predecessors in each dictionary that
   it is matched with are removed there in the ways of queries.evidence.removals.removal.
3. Success is the target's activation becoming 0, change the share of it that goes. Intervals by contexts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atlas.atlas import Atlas
from atlas.cli.progress import Progress
from atlas.errors import QueryError
from atlas.folder.stored_rows import products
from queries.evidence.controls.frozen import Frozen
from queries.evidence.readers import Reader, readers_of
from queries.evidence.removals.copies import Context, first_block
from queries.evidence.removals.outcome import Outcome
from queries.evidence.removals.removal import trials
from queries.evidence.sampling import PER_TEXT, WIDTH, chosen_places, draw, of_set, runnable, starts
from queries.evidence.sources import Source, sources

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

    Example:
        outcome = deactivation(atlas, [Path("wiki.txt")], positions=20)
        print([row for row in outcome.rows() if row["method"] == "top1"])

    Raises QueryError where the atlas has no pair to try, IngestError for a text, ModelError for the model.
    """
    from hooked.load import load_model

    progress = progress or Progress(quiet=True)
    records = of_set(runnable(atlas.dictionaries), set_name)
    pairs = [pair for pair in sources(atlas) if {pair.later.id, pair.earlier.id} <= records.keys()]
    if not pairs:
        raise QueryError("the atlas has no residual dictionary with an earlier one that both can be run")
    if not all(pair.measured for pair in pairs):
        _log.warning("without `evidence edges` no correlation is known: method pearson is left out where it is missing")
    name = model or next(iter(records.values())).model_name
    loaded, tokenizer = load_model(name, device=device)
    sample = draw(texts, tokenizer, -(-positions // PER_TEXT) * WIDTH, seed)
    readers = readers_of(atlas, records, loaded)
    wrong = {pair.key: found for pair in pairs if (found := _wrong_layer(pair, readers)) is not None}
    drawn = {pair.key: Frozen.of(pair, readers[pair.earlier.id], seed) for pair in pairs if frozen}
    random_rows = {key: each for key, each in drawn.items() if each is not None}
    outcome = Outcome(seed, sample.record("effects", name) | {"tokens": positions})
    groups = starts(tokenizer, records)
    # Both read in one pass: what the one writes and the other reads belongs to one forward pass.
    pairs = [pair for pair in pairs if pair.later.prepend_bos == pair.earlier.prepend_bos]
    later = {pair.later.id: [each for each in pairs if each.later.id == pair.later.id] for pair in pairs}
    with progress.steps("removals", positions * len(later), "tokens") as advance:
        for start, group in groups.items():
            own = {id_: found for id_, found in later.items() if id_ in group}
            blocks = {first_block(pair.earlier) for its in own.values() for pair in its}
            guarded: set[int] = set()
            places = _positions(loaded, start, group, blocks, sample.tokens, positions, seed)
            for text, place, context, hidden in places:
                for its in own.values():
                    rng = np.random.default_rng([seed, text, place, its[0].later.depth])
                    found_here = trials(
                        loaded, context, place, hidden, its, readers, wrong, rng, permutation, random_rows
                    )
                    for trial in found_here:
                        outcome.add(trial, text)
                        # At the first token drawn of a context: it takes the whole model.
                        if text not in guarded and place + 1 < len(context.tokens):
                            outcome.guard(loaded, context, place, trial, text)
                    advance(1)
                guarded.add(text)
    if not outcome.targets:
        raise QueryError("no residual feature was active at the tokens drawn; take more with --tokens")
    return outcome


def _positions(
    model: Any,
    start: int | None,
    group: Mapping[str, Any],
    blocks: Collection[int],
    tokens: np.ndarray,
    most: int,
    seed: int,
) -> Iterator[tuple[int, int, Context, dict[str, Any]]]:
    """The drawn tokens: number of the context, place in it, the context up to the last, what each encoder reads."""
    from hooked.reading import read

    for text, part in enumerate(read(model, start, group, tokens, 1)):
        if text * PER_TEXT >= most:
            return
        chosen = chosen_places(part.counted()[0].cpu().numpy(), text, most, seed)
        ids = ([] if start is None else [start]) + tokens[text * WIDTH : (text + 1) * WIDTH].tolist()
        first = 0 if start is None else 1  # place of the text's first token
        if not chosen:
            continue
        context = Context.read(model, ids[: chosen[-1] + first + 1], blocks)
        for place in chosen:
            yield text, place + first, context, {id_: hidden[0, place] for id_, hidden in part.hidden.items()}


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

"""Run a sweep: every cell's texts, kept as they are made, and whatever is there already left alone.

1. Write the design, or see that the folder's is the same.
2. Unsteered texts; from them and the contrast text the streams' norms and means.
3. Every other cell on the prompts that choose, a batch after another: plan, texts, scores, one Parquet part.
4. The chosen cells alone on the prompts that report, with more texts each.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.cli.progress import Progress
from atlas.errors import ModelError, PlanError
from atlas.folder.manifest import write_text
from queries.policy.home import home_of
from queries.records.records import append
from queries.steer.generation import GenerationOptions, continued
from queries.steer.running.draws import Draws
from queries.steer.running.prompts import prompt_of
from queries.steer.steering import NothingSteered
from queries.steer.theme import Theme, theme_pattern
from queries.sweep.arms import ASKED, ONCE, Cell, Plans, cells_of, chain_of, stream_places
from queries.sweep.design import (
    CHOOSE,
    LINEAGE,
    MEANS,
    NOISE,
    PROMPTED,
    RANDOM,
    REPORT,
    RUNS,
    Design,
    command_of,
    versions,
)
from queries.sweep.held_out import Readers
from queries.sweep.marks import marks
from queries.sweep.scores import Key
from queries.sweep.streams import STREAMS, Streams, contrast_passages, measured
from queries.sweep.trials import Batch, Trial, batches_of, done, read_trials, write_part

if TYPE_CHECKING:
    from atlas.atlas import Atlas

BATCH = 48  # texts at once
Elsewhere = Callable[[Sequence[Batch], Streams | None], Iterator[tuple[Batch, list[Trial]]]]
_TRIAL_TOKENS = (2, 8)  # tokens of the two batches that the estimate is made from


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take, measured on one batch."""

    cells: int
    texts: int  # all of them
    left: int  # those that are not there yet
    texts_per_second: float

    @property
    def seconds(self) -> float:
        return self.left / self.texts_per_second

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        took = f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
        return (
            f"{self.cells} arms and strengths, {self.texts:,} texts, {self.left:,} to make: about {took} "
            f"({self.texts_per_second:.1f} texts/s)"
        )


class Sweep:
    """A design on an atlas and a loaded model."""

    def __init__(
        self,
        atlas: Atlas,
        model: Any,
        tokenizer: Any,
        design: Design,
        *,
        batch: int = BATCH,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """A sweep of which nothing is made yet.

        Args:
            batch: texts at once.
            elsewhere: makes batches on other machines (queries.sweep.on_ray); None: all are made here.
        Raises PlanError, UnknownFeature, ModelError where the design does not fit the atlas or the model.
        """
        self.atlas, self.model, self.tokenizer, self.design = atlas, model, tokenizer, design
        self.chain = chain_of(atlas, design)
        self.cells = cells_of(design, self.chain)
        self.theme: Theme = theme_pattern(design.words)
        self.readers = Readers.of(atlas, model, design.held_out)
        self.prompts = [prompt_of(tokenizer, prompt).tokens for prompt in design.prompts]
        self._size = batch
        self._elsewhere = elsewhere
        if MEANS in design.arms and design.contrast is None:
            raise PlanError("the arm `means` needs a contrast text: give --contrast FILE, or leave the arm out")

    def estimate(self, folder: Path, *, report: bool = True) -> Estimate:
        """Texts and seconds, from two small batches that are thrown away; without `report` of the half that chooses."""
        choosing = self._batches(CHOOSE, self.cells)
        # Each kind of arm reports at its best strength and, where that is another, at the lineage's.
        kinds = {cell.arm.kind for cell in self.cells}
        cells = sum(1 if kind in (*ONCE, LINEAGE) else 2 for kind in kinds) if report else 0
        texts = sum(len(batch.texts) for batch in choosing) + cells * len(self.design.texts(REPORT))
        there = done(folder)
        made = sum(len(batch.texts) for batch in choosing if batch.file in there)
        made += sum(trial.half == REPORT for trial in read_trials(folder)) if there else 0
        rate = len(choosing[0].texts) / max(self._seconds(choosing[0]), 1e-9)
        return Estimate(len(self.cells), texts, max(0, texts - made), rate)

    def _seconds(self, batch: Batch) -> float:
        """Seconds of a batch: those of a few tokens, and for each further token what a few more took."""
        few, more = (min(tokens, self.design.max_new_tokens) for tokens in _TRIAL_TOKENS)
        self.trials(batches_of(self.design, CHOOSE, batch.cell, 1, 1)[0], None, 1)  # loads what is loaded once
        took = []
        for tokens in (few, more):
            started = time.perf_counter()
            self.trials(batch, None, tokens)
            took.append(time.perf_counter() - started)
        each = max(0.0, took[1] - took[0]) / max(1, more - few)
        return took[1] + each * (self.design.max_new_tokens - more)

    def choose(self, folder: Path, progress: Progress) -> list[Trial]:
        """Every arm at every strength on the prompts that choose; a killed run goes on from its last whole batch."""
        self.design.begin(folder)
        self._record(folder)
        home = home_of(self.atlas)
        # One line for all of its texts, which it keeps itself.
        append(
            home,
            {
                "kind": "sweep",
                "folder": str(folder.resolve()),
                "model": str(getattr(self.model.config, "_name_or_path", "")),
                "features": sorted(self.chain),
                "policy_sha256": home and home.sha256,
            },
        )
        return self._run(folder, self._batches(CHOOSE, self.cells), progress, "choosing")

    def report(self, folder: Path, keys: Collection[Key], progress: Progress) -> list[Trial]:
        """The chosen arms and strengths on the prompts that report."""
        cells = [cell for cell in self.cells if (cell.arm.name, cell.strength) in keys]
        return self._run(folder, self._batches(REPORT, cells), progress, "reporting")

    def _record(self, folder: Path) -> None:
        """Add this run to those of the folder: the command, when, with what."""
        path = folder / RUNS
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        command = command_of(self.design, self.atlas.address, str(folder))
        run: dict[str, Any] = {
            "command": command,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        run |= {"device": str(self.model.device), "dtype": str(self.model.dtype), "batch": self._size}
        write_text(path, _json([*before, run]))

    def _batches(self, half: str, cells: Sequence[Cell]) -> list[Batch]:
        return [
            batch
            for cell in cells
            for batch in batches_of(
                self.design,
                half,
                cell,
                self.design.controls if cell.arm.kind in (RANDOM, NOISE) else 1,
                self._size,
            )
        ]

    def _run(self, folder: Path, batches: Sequence[Batch], progress: Progress, name: str) -> list[Trial]:
        there = done(folder)
        left = [batch for batch in batches if batch.file not in there]
        with progress.steps(name, sum(len(batch.texts) for batch in batches), "texts") as advance:
            advance(sum(len(batch.texts) for batch in batches if batch.file in there))
            # First what is not steered: from those texts the streams' norms come.
            for steered in (False, True):
                part = [batch for batch in left if (batch.cell.strength is not None) == steered]
                if part:
                    streams = self.streams(folder) if steered else None
                    for batch, trials in self._made(folder, part, streams):
                        write_part(folder, batch, trials)
                        advance(len(batch.texts))
        return read_trials(folder, batches)

    def _made(
        self, folder: Path, batches: Sequence[Batch], streams: Streams | None
    ) -> Iterator[tuple[Batch, list[Trial]]]:
        """The batches' trials, here or on a cluster; their plans are written to the folder."""
        plans: dict[tuple[Cell, int], Any] = {}
        if streams is not None:
            made = Plans(self.atlas, self.design, self.chain, streams)
            for batch in batches:
                key = (batch.cell, batch.draw)
                if key not in plans and (plan := made.plan(*key)) is not None:
                    plans[key] = plan
                    write_text(folder / "plans" / batch.plan, _json(plan.to_dict()))
        if self._elsewhere is not None:
            yield from self._elsewhere(batches, streams)
            return
        for batch in batches:
            yield batch, self.trials(batch, plans.get((batch.cell, batch.draw)), self.design.max_new_tokens)

    def trials(self, batch: Batch, plan: Any, tokens: int) -> list[Trial]:
        """The batch's texts with their scores; where steering broke the model, rows that say so."""
        design = self.design
        options = GenerationOptions(max_new_tokens=tokens, seed=design.seed)
        seeds = [(abs(design.seed), int(design.seed < 0), *text) for text in batch.texts]
        draws = Draws(seeds, tokens, design.temperature, design.top_p)
        asked = ASKED.format(theme=design.theme) if batch.cell.arm.kind == PROMPTED else ""
        prompts = [asked + design.prompts[prompt] for prompt, _ in batch.texts]
        rows = [self._row(batch.cell, batch.draw, *text) for text in batch.texts]
        try:
            with warnings.catch_warnings():
                # Of many texts some hold nothing to suppress, which is no news.
                warnings.simplefilter("ignore", NothingSteered)
                made = continued(self.model, self.tokenizer, prompts, plan, options, draws=draws)
        except ModelError as error:
            if "not finite" not in str(error):
                raise
            return [replace(row, failed=str(error)) for row in rows]
        plain = [self.prompts[prompt] for prompt, _ in batch.texts]
        found = marks(self.model, self.tokenizer, made, plain, self.theme, self.readers)
        return [
            replace(row, text=each.text, tokens=each.tokens, **asdict(mark))
            for row, each, mark in zip(rows, made, found, strict=True)
        ]

    def _row(self, cell: Cell, draw: int, prompt: int, sample: int) -> Trial:
        half = self.design.half(prompt)
        return Trial(cell.arm.name, cell.strength, prompt, sample, half, draw, *[None] * 7)

    def passages(self) -> list[str]:
        """Sentences of the contrast text with the theme's words; [] where there is no such text."""
        return contrast_passages(self._contrast(), self.theme, self.design.seed)[0] if self.design.contrast else []

    def _contrast(self) -> str:
        """The contrast text; raises PlanError where it is not the one of the design."""
        path = Path(str(self.design.contrast))
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != self.design.contrast_sha256:
            raise PlanError(f"the contrast text {path} is gone or has changed since the sweep was designed")
        return data.decode("utf-8-sig", "replace")

    def streams(self, folder: Path) -> Streams:
        """The norms and means, measured once and kept: a second measurement would turn later cells otherwise."""
        if (folder / STREAMS).exists():
            kept = Streams.load(folder / STREAMS)
            if kept.means or MEANS not in self.design.arms:
                return kept
        unsteered = self._batches(CHOOSE, self.cells[:1])  # the first cell, whose texts are there by now
        texts = [self.prompts[t.prompt] + t.tokens for t in read_trials(folder, unsteered) if t.tokens]
        contrast: list[list[list[int]]] = []
        if MEANS in self.design.arms:
            kinds = contrast_passages(self._contrast(), self.theme, self.design.seed)
            contrast = [[prompt_of(self.tokenizer, each).tokens[:128] for each in kind] for kind in kinds]
        streams = measured(self.model, stream_places(self.chain), texts, contrast)
        streams.save(folder / STREAMS)
        return streams


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, default=str) + "\n"

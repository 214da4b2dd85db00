"""Run a folder's sweeps again, into a folder beside them, and say how many texts came out the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.cli.progress import Progress
from atlas.errors import PlanError
from queries.report.contents import contents_of
from queries.sweep.findings import reported, tables_of, write_tables
from queries.sweep.running import Sweep
from queries.sweep.scores import scores_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

AGAIN = "again"
COLUMNS = ("sweep", "texts", "same", "different", "missing")
Load = Callable[[str], tuple[Any, Any]]


def run_again(atlas: Atlas, folder: Path, load: Load, progress: Progress) -> list[dict[str, Any]]:
    """A row a sweep: its texts, and how many are the same, token by token, in DIR/again/SWEEP, where the new ones are.

    load: a model's name -> the model and its tokenizer. A judge is not asked again. Raises PlanError where the atlas is
    another than the sweep was run on.
    """
    rows = []
    for sweep in contents_of(folder).sweeps:
        design = sweep.design
        here = {"id": atlas.manifest.id, "state": atlas.manifest.state}
        if design.atlas and dict(design.atlas) != here:
            raise PlanError(
                f"the sweep {sweep.name} was run on another state of an atlas (id {design.atlas.get('id')}) than the "
                "one given: name that one with -a, or run the sweep anew"
            )
        made = Sweep(atlas, *load(design.model), design)
        output = folder / AGAIN / sweep.name
        trials = made.choose(output, progress)
        trials += made.report(output, reported(scores_of(design, trials)), progress)
        write_tables(output, tables_of(scores_of(design, trials)))
        new = {(t.arm, t.strength, t.prompt, t.sample): t.tokens for t in trials}
        old = {(t.arm, t.strength, t.prompt, t.sample): t.tokens for t in sweep.trials}
        same = sum(key in new and new[key] == tokens for key, tokens in old.items())
        missing = sum(key not in new for key in old)
        rows.append(
            {"sweep": sweep.name, "texts": len(old), "same": same, "different": len(old) - same - missing}
            | {"missing": missing}
        )
    return rows

"""Write a report: report.md and report.html, figures with their numbers, per-trial tables, plans, commands."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from atlas.cli.output import render
from atlas.folder.manifest import write_text
from queries.report.contents import Contents, Sweep, contents_of
from queries.report.evidence_blocks import evidence_blocks
from queries.report.figures import can_draw
from queries.report.page import Block, Code, Heading, Text, markdown, page
from queries.report.sweep_blocks import scores_note, sweep_blocks

MARKDOWN, PAGE = "report.md", "report.html"


def write_report(folder: Path) -> list[Path]:
    """Write the report of everything in `folder` there; the paths of report.md and report.html. Raises PlanError.

    Example:
        from queries.report.report import write_report
        write_report(Path("war"))
    """
    contents = contents_of(folder)
    blocks = _blocks(contents, folder)
    for sweep in contents.sweeps:
        _keep(sweep, folder)
    write_text(folder / MARKDOWN, markdown(blocks))
    write_text(folder / PAGE, page(blocks, folder))
    return [folder / MARKDOWN, folder / PAGE]


def _blocks(contents: Contents, folder: Path) -> list[Block]:
    blocks: list[Block] = [
        Heading("Does it hold? Steering and edges, measured", 1),
        Text(
            "Means stand with 95 % bootstrap intervals; what speaks against the method is printed as large as what "
            "speaks for it. " + " ".join(dict.fromkeys(scores_note(sweep.scores) for sweep in contents.sweeps))
        ),
    ]
    if not can_draw():
        blocks.append(Text("Figures are left out: pip install 'feature-atlas[plots]' and repeat the command."))
    for sweep in contents.sweeps:
        blocks += sweep_blocks(sweep, folder)
    blocks += evidence_blocks(contents.evidence, folder)
    blocks += [Heading("Again"), Code(f"feature-atlas report --again {folder}")]
    return blocks


def _keep(sweep: Sweep, folder: Path) -> None:
    """The per-trial table as csv, the tables' own files, and the plans, beside the report."""
    rows = [asdict(trial) for trial in sweep.trials]
    prompts = sweep.design.prompts
    rows = [{"arm": row["arm"], "prompt_text": prompts[row["prompt"]]} | row for row in rows]
    write_text(folder / f"{sweep.name}-trials.csv", render(rows, list(rows[0]), "csv"))
    if (sweep.folder / "plans").exists():
        shutil.copytree(sweep.folder / "plans", folder / f"{sweep.name}-plans", dirs_exist_ok=True)

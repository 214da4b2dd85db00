"""The command `records`."""

from __future__ import annotations

import click

from atlas.cli.options import atlas_option, format_option


@click.command()
@atlas_option
@click.option("--again", "again_", metavar="ID", help="Make this run again, and compare; the start of an id is enough.")
@click.option("--device", default="auto", show_default=True, help="Where it runs: auto, cpu or cuda:N.")
@format_option
def records(atlas: str | None, again_: str | None, device: str, format_: str) -> None:
    """What was done to models with this atlas: every steered run, newest first.

    Each line of records.jsonl in the atlas folder holds the plan, policy, model, seed, prompts, tokens and the hooks
    that fired. FEATURE_ATLAS_RECORDS=off records nothing. --again exits with 1 where the tokens differ.

    \b
    feature-atlas records
    feature-atlas records --again 20261127-2104
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from atlas.errors import PlanError
    from queries.records.again import COLUMNS as AGAIN
    from queries.records.again import again
    from queries.records.runs import COLUMNS, rows

    with open_atlas(atlas) as opened:
        if again_ is None:
            print_rows(rows(opened.path), COLUMNS, format_)
            return
        compared = again(opened, again_, device=device)
    print_rows(compared, AGAIN, format_)
    if apart := sum(not row["equal"] for row in compared):
        raise PlanError(f"{apart} of {len(compared)} texts differ from the record; model, device or versions changed")

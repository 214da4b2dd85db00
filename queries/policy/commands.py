"""The group `policy`: what the atlas' rules protect, and what they say of a plan."""

from __future__ import annotations

from pathlib import Path

import click

from atlas.cli.options import atlas_option, format_option


@click.group()
def policy() -> None:
    """What may not be done to a model with this atlas: policy.toml in its folder (docs/policy.md).

    \b
    feature-atlas policy show
    feature-atlas policy check war.json
    """


@policy.command()
@atlas_option
@format_option
def show(atlas: str | None, format_: str) -> None:
    """The rules, and how many features each protects."""
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from queries.policy.home import home_of
    from queries.policy.rules import FILE

    columns = ("rule", "may_not", "beyond", "then", "protects", "on_lineages", "cosine", "reason")
    with open_atlas(atlas) as opened:
        home = home_of(opened)
        rows = [
            {
                "rule": each.rule.name,
                "may_not": each.rule.may_not,
                "beyond": str(each.rule.beyond),
                "then": each.rule.then,
                "protects": sum(through is None for through in each.features.values()),
                "on_lineages": sum(through is not None for through in each.features.values()),
                "cosine": each.cosine,
                "reason": each.rule.reason,
            }
            for each in (home.protected if home else ())
        ]
    print_rows(rows, columns, format_)
    if home is None or home.sha256 is None:
        where = "the graph on a server alone has none" if home is None else f"{home.folder / FILE} is not there"
        click.echo(f"no policy: {where}", err=True)
    else:
        click.echo(f"{FILE} sha256 {home.sha256}", err=True)


@policy.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@atlas_option
@format_option
def check(plan: Path, atlas: str | None, format_: str) -> None:
    """What the rules say of a saved PLAN: which are met, by what of it, how strongly. Exit code 1 where one refuses it.

    \b
    feature-atlas policy check war.json
    """
    from atlas import open_atlas
    from atlas.cli.output import print_rows
    from queries.policy.findings import COLUMNS, enforce, findings
    from queries.policy.home import home_of
    from queries.steer.plan import loaded

    with open_atlas(atlas) as opened:
        home = home_of(opened)
        found = findings(loaded(plan, opened)[0])
        names = opened.names
    print_rows([{name: getattr(each, name) for name in COLUMNS} for each in found], COLUMNS, format_, names=names)
    enforce(found)
    if home is None or home.sha256 is None:
        click.echo("allowed: the atlas has no policy", err=True)
    else:
        click.echo("allowed, with warnings" if found else "allowed", err=True)

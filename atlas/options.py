"""Options that several commands share, each one decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from atlas.output import FORMATS

F = TypeVar("F", bound=Callable[..., Any])

atlas_option = click.option(
    "-a",
    "--atlas",
    envvar="FEATURE_ATLAS",
    metavar="FOLDER",
    show_envvar=True,
    help="The atlas folder.  [default: ./feature-atlas]",
)
format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How rows are printed.",
)

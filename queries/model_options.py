"""Options of the commands that run a model."""

from __future__ import annotations

from functools import cache
from typing import Any

import click

model_option = click.option("--model", metavar="NAME_OR_FOLDER", help="The model.  [default: the atlas' own]")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")


@cache
def announced_model(name: str, device: str) -> tuple[Any, Any]:
    """Load a model, said on stderr since it takes seconds; once for all commands of a process. Raises ModelError."""
    from hooked.load import load_model

    click.echo(f"loading {name} …", err=True)
    return load_model(name, device=device)

"""Options that several commands share, and types of options that more than one has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlas.cli.output import FORMATS

Command = Callable[..., None]
Decorator = Callable[[Command], Command]

if TYPE_CHECKING:
    _Value = click.ParamType[Any]
else:
    _Value = click.ParamType  # generic in newer versions of click only


class _Threshold(_Value):
    """A cosine, or the word floor."""

    name = "cosine|floor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value == "floor" else float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor floor", param, ctx)


class _Assignment(_Value):
    """NAME=VALUE, the value JSON or else text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, sign, text = value.partition("=")
        if not sign or not name.isidentifier():
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


class _Layers(_Value):
    """`8` or `8-13`, as a range."""

    name = "8-13"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        first, _, last = value.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            self.fail(f"{value!r} is not of the form 8 or 8-13", param, ctx)
        return range(int(first), int(last or first) + 1)


THRESHOLD, ASSIGNMENT, LAYERS = _Threshold(), _Assignment(), _Layers()

atlas_option = click.option(
    "-a",
    "--atlas",
    envvar="FEATURE_ATLAS",
    metavar="FOLDER",
    show_envvar=True,
    help="The atlas folder.  [default: ./feature-atlas]",
)
by_option = click.option(
    "--by",
    type=click.Choice(("cosine", "push", "correlation")),
    default="cosine",
    show_default=True,
    help="What orders matches.",
)
format_option = click.option(
    "--format", "format_", type=click.Choice(FORMATS), default="table", show_default=True, help="How rows are printed."
)

output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there.  [default: stdout]",
)


def complete_features(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Ids of features for the shell."""
    from atlas.cli.completion import features

    return features(context.params.get("atlas"), typed)


def complete_dictionaries(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Ids of dictionaries for the shell."""
    from atlas.cli.completion import dictionaries

    return dictionaries(context.params.get("atlas"), typed)


def ray_option(about: str) -> Decorator:
    """`--ray [ADDRESS]`: None where it is not given, "" for a cluster of this machine's own."""
    return click.option("--ray", is_flag=False, flag_value="", metavar="[ADDRESS]", help=about)


def gathered(name: str, options: Mapping[str, Decorator]) -> Decorator:
    """Give a command these options as one mapping, `name`; those without a value are left out."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def gathering(**values: Any) -> None:
            own = {option: values.pop(option) for option in options}
            command(**values, **{name: {option: value for option, value in own.items() if value is not None}})

        # Decorators take hold from the innermost outwards, and help lists the outermost first.
        for option in reversed([*options.values()]):
            option(gathering)
        return gathering

    return decorate

"""The command line's root. Commands are named as strings and loaded when called: looking at an atlas is instant."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from atlas.errors import AtlasError

COMMANDS = {
    "demo": "atlas.cli.demo:demo",
    "init": "atlas.cli.commands:init",
    "ingest": "ingest.commands:ingest_command",
    "info": "atlas.cli.commands:info",
    "query": "atlas.cli.commands:query",
    "lineage": "queries.commands:lineage",
    "ask": "queries.commands:ask",
    "label": "ingest.commands:label",
    "search": "queries.commands:search",
    "show": "queries.commands:show",
    "steer": "queries.steer.commands:steer",
    "score": "queries.steer.commands:score",
    "copy": "atlas.cli.commands:copy",
    "export": "atlas.cli.commands:export",
}


class _Lazy(click.Group):
    """A group that imports a command's module when the command is called; its help imports them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="feature-atlas", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def root(debug: bool) -> None:
    """Where does this feature come from, where does it go, and what happens if I turn it?

    An atlas is a folder: dictionaries of a model's layers, their matches and the graph that they form. Make one with
    `ingest`, look at it with `info`, `lineage`, `ask`, `search` and `query`, act on the model with `steer`. `demo` does
    all of it on a small trained model.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `feature-atlas`: run a command, turn errors into one line and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        result: Any = root.main([a for a in arguments if a != "--debug"], "feature-atlas", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        return 0
    except (AtlasError, click.ClickException) as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        return 1
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"Error: {type(error).__name__}: {error} (a fault of feature-atlas; --debug shows where)",
            err=True,
        )
        return 1

"""Write docs/commands.md: the help of every command, 100 columns wide (`make docs`; with -, to stdout)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from atlas.cli.main import COMMANDS, root

TARGET = Path(__file__).parent / "commands.md"


def text() -> str:
    """What the file must hold."""
    whole = root.make_context("feature-atlas", [], resilient_parsing=True, terminal_width=100)
    parts = ["# Commands\n\nWritten by `make docs` from what `--help` says.\n", _block("feature-atlas", root, whole)]
    for name in COMMANDS:
        command = root.get_command(whole, name)
        assert command is not None
        context = command.make_context(name, [], parent=whole, resilient_parsing=True)
        parts.append(_block(name, command, context))
        for part in command.commands.values() if isinstance(command, click.Group) else ():
            inner = part.make_context(str(part.name), [], parent=context, resilient_parsing=True)
            parts.append(_block(f"{name} {part.name}", part, inner))
    return "\n".join(parts)


def _block(name: str, command: click.Command, context: click.Context) -> str:
    return f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(text())
    else:
        TARGET.write_text(text())

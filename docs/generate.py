"""Write docs/commands.md: the help of every command, 100 columns wide (`make docs`; with -, to stdout)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from atlas.cli.main import COMMANDS, root

PREFACE = """# Commands

Written by `make docs` from what `--help` says.

The shell completes commands, options, ids of features and dictionaries, and names of questions, once it is told
how; for good, by this line in `~/.bashrc` (`zsh_source` in `~/.zshrc`):

```sh
eval "$(_FEATURE_ATLAS_COMPLETE=bash_source feature-atlas)"
```

Ids are those of the atlas that `-a` or `FEATURE_ATLAS` names, whole or short (`9-res-2k/20`); an atlas on a server is
not asked.
"""
TARGET = Path(__file__).parent / "commands.md"


def text() -> str:
    """What the file must hold."""
    whole = root.make_context("feature-atlas", [], resilient_parsing=True, terminal_width=100)
    parts = [PREFACE, _block("feature-atlas", root, whole)]
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

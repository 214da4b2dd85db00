"""What is generated under docs/ is what the code says today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_help_in_the_documents_is_that_of_the_commands() -> None:
    # In a process of its own: click keeps what it made of a command's options when another test asked for them.
    done = subprocess.run([sys.executable, DOCS / "generate.py", "-"], capture_output=True, text=True, check=True)
    assert done.stdout == (DOCS / "commands.md").read_text(), "stale: run make docs"

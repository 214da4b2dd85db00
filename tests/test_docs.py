"""What is generated under docs/ is what the code says today."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_help_in_the_documents_is_that_of_the_commands() -> None:
    generated = runpy.run_path(str(DOCS / "generate.py"))
    assert generated["text"]() == (DOCS / "commands.md").read_text(), "stale: run make docs"

"""The house's rules that a machine can hold: who may import whom, what looking at an atlas may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# room -> rooms that it may import
ALLOWED = {
    "atlas": {"atlas"},
    "hooked": {"hooked", "atlas"},
    "ingest": {"ingest", "hooked", "atlas"},
    "queries": {"queries", "hooked", "atlas"},
}
HEAVY = {"torch", "faiss", "transformers", "sae_lens"}


def imports(path: Path) -> set[str]:
    """First parts of everything a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str) -> None:
    files = list((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        assert imports(path) & set(ALLOWED) <= ALLOWED[room], path.name


def test_atlas_imports_nothing_heavy() -> None:
    for path in (ROOT / "atlas").glob("*.py"):
        assert not imports(path) & HEAVY, path.name


def test_the_library_never_imports_click() -> None:
    for room in ALLOWED:
        for path in (ROOT / room).glob("*.py"):
            if not path.stem.endswith(("cli", "options", "command", "commands")):
                assert "click" not in imports(path), path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["query", "--help"],
        ["ingest", "--help"],
        ["lineage", "--help"],
        ["steer", "--help"],
        ["ask", "--show", "hubs"],
    ],
)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from atlas.cli import _run; code = _run(sys.argv[1:]); "
        f"print(code, sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []", done.stderr

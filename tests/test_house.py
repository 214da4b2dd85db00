"""The house's rules that a machine can hold: who may import whom, what a look may load, how full a room is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from saes import planted

from atlas.cli.main import COMMANDS as LISTED
from atlas.cli.main import root
from ingest import ingest

ROOT = Path(__file__).parent.parent
# house -> houses that it may import
ALLOWED = {
    "atlas": {"atlas"},
    "hooked": {"hooked", "atlas"},
    "ingest": {"ingest", "hooked", "atlas"},
    "queries": {"queries", "hooked", "atlas"},
}
HEAVY = {"torch", "faiss", "transformers", "sae_lens"}
COMMANDS = {"commands.py", "options.py", "main.py", "demo.py"}  # the files that may know of click
PATHS = [path for room in ALLOWED for path in (ROOT / room).rglob("*.py")]
FILES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in PATHS}


def imports(tree: ast.AST) -> Iterator[str]:
    """Everything that a file imports, wherever in the file, by its whole name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports name the whole module, so that this test can see them"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def first(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("room", ALLOWED)
def test_houses_import_only_what_they_may(room: str) -> None:
    files = [path for path in FILES if path.parts[0] == room]
    assert len(files) > 5 and any(len(path.parts) > 2 for path in files) == (room != "hooked")
    for path in files:
        assert first(imports(FILES[path])) & set(ALLOWED) <= ALLOWED[room], path


def test_atlas_imports_nothing_heavy() -> None:
    for path, tree in FILES.items():
        if path.parts[0] == "atlas":
            assert not first(imports(tree)) & HEAVY, path


def test_the_library_never_imports_click() -> None:
    for path, tree in FILES.items():
        if path.name not in COMMANDS:
            assert "click" not in first(imports(tree)), path


def test_files_do_not_import_each_other_in_a_circle() -> None:
    """At the top of a file, where it would fail or depend on who comes first, and for types."""
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): tree for path, tree in FILES.items()}
    needs = {
        module: {
            known
            for name in imports(tree)
            for known in (name, name.rpartition(".")[0])
            if known in modules and known != module
        }
        for module, tree in modules.items()
    }
    while free := {module for module, others in needs.items() if not others & set(needs)}:
        needs = {module: others for module, others in needs.items() if module not in free}
    assert not needs, f"a circle among {sorted(needs)}"


def test_a_room_is_not_too_full_and_every_room_is_a_package() -> None:
    rooms: dict[Path, int] = {}
    for path in FILES:
        rooms[path.parent] = rooms.get(path.parent, 0) + (path.name != "__init__.py")
        assert path.parent / "__init__.py" in FILES, path.parent
    assert max(rooms.values()) <= 13, rooms


CODE = """
import sys
from atlas.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(end.code, *sorted(sys.modules), file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    """Every module that a command loads, which must succeed."""
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True)
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["query", "--help"],
        ["ingest", "--help"],
        ["lineage", "--help"],
        ["steer", "--help"],
        ["evidence", "edges", "--help"],
        ["ask", "--show", "hubs"],
    ],
)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded(*arguments) & HEAVY


def test_the_help_loads_no_command() -> None:
    modules = loaded("--help")
    assert not modules & {listed.place.partition(":")[0] for listed in LISTED.values()}
    assert not modules & {"atlas.atlas", "queries", "ingest"}


def test_the_help_says_what_each_command_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    root.main(["--help"], "feature-atlas", standalone_mode=False)
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name, listed in LISTED.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None and command.get_short_help_str(1000) == listed.about, name
        assert f" {name} {listed.about} " in f"{shown} ", name


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    ingest([planted(folder / "saes", range(2))], folder / "a")
    return folder / "a"


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["query", "MATCH (d:Dictionary) RETURN d.id"],
        ["lineage", "tiny-1m/1-res-64/3"],
        ["search", "war"],
        ["ask", "hubs"],
    ],
)
def test_a_look_loads_what_it_needs(atlas: Path, arguments: list[str]) -> None:
    """Each of these takes a tenth of a second and more; `tests/bench_start.py` prints what a look takes."""
    modules = loaded(*arguments, "-a", str(atlas))
    assert not modules & {*HEAVY, "numpy", "pyarrow", "neo4j", "filelock", "asyncio", "queries.steer", "ingest"}
    # A user's statement meets the engine in a process of its own.
    assert ("ladybug" in modules) == (arguments[0] != "query")

"""The README's commands and Python, run as they stand; those that need a hub are parsed and their names checked."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import click
import pytest
from neo4j_for_tests import Server, emptied

from atlas.cli.main import COMMANDS, _run, root

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
SERVER = (REPOSITORY / "docker" / "README.md").read_text()
DOCS = [(REPOSITORY / "docs" / name).read_text() for name in ("graph.md", "steering.md")]
_BLOCK = re.compile(r"(?:<!-- (\w+) -->\n)?```(\w+)\n(.*?)```", re.S)


def blocks(language: str, needs: str = "", of: str = README) -> list[str]:
    """A text's code blocks of a language, in order; those that need nothing, a hub, or neo4j."""
    return [text for mark, name, text in _BLOCK.findall(of) if name == language and mark == needs]


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block as words; comments left out, continued lines joined."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.slow
def test_every_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ingest").symlink_to(REPOSITORY / "ingest")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for block in [block for text in (README, *DOCS) for block in blocks("bash", of=text)]:
        for words in commands(block):
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                monkeypatch.setenv(name, value)
                continue
            assert words[0] == "feature-atlas", words
            code = _run(words[1:])
            captured = capsys.readouterr()
            assert code == 0, (words, captured.err)
            written = words[words.index("-o") + 1] if "-o" in words else None
            assert Path(written).stat().st_size if written else captured.out.strip(), words
            ran += 1
    assert ran > 25
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
        assert "calls" in capsys.readouterr().out


def test_every_command_for_a_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], neo4j_lts: Server
) -> None:
    (tmp_path / "ingest").symlink_to(REPOSITORY / "ingest")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATURE_ATLAS", "demo-atlas")
    uri = emptied(neo4j_lts)
    assert _run(["ingest", "ingest/bundle/smollm2-135m"]) == 0
    capsys.readouterr()
    for text in (README, SERVER):
        (block,) = blocks("bash", "neo4j", text)
        for words in commands(block.replace("neo4j://localhost:7687", uri)):
            assert _run(words[1:]) == 0, (words, capsys.readouterr().err)
            assert capsys.readouterr().out.strip(), words
    assert (tmp_path / "atlas-files" / "import.sh").exists()


def test_commands_that_need_a_hub_parse_and_name_real_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.sources.releases.listing import release_names

    monkeypatch.chdir(tmp_path)
    Path("prose.txt").write_text("What a user would have written.")
    known = release_names()
    parsed = 0
    for block in blocks("bash", "hub"):
        for _, name, *arguments in commands(block):
            command = root.get_command(click.Context(root), name)
            assert command is not None
            context = command.make_context(name, list(arguments))
            for source in context.params.get("sources", ()):
                assert source in known, source
            parsed += 1
    assert parsed >= 6


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in ("demo", "test", "lint", "bench", "clean"):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert _run([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: feature-atlas {name}") and len(text.splitlines()) > 5, name
    assert _run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^  {name}\s+\w", listed, re.M) for name in COMMANDS)
    assert os.environ.get("FEATURE_ATLAS") is None

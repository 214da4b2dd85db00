"""What the shell is offered at Tab: commands, ids of the atlas that is meant, names of questions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from planted import Planted

from atlas.cli.completion import MOST, dictionaries, features
from atlas.cli.main import COMMANDS
from queries.questions.questions import QUESTIONS

CODE = "import sys; from atlas.cli.main import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Planted(range(12), size=24, seed=2).at(tmp_path_factory.mktemp("completion") / "atlas")


def offered(*words: str, atlas: Path | None = None) -> list[str]:
    """What bash is told for a line that ends with the last word."""
    line = " ".join(("feature-atlas", *words))
    asked = {"_FEATURE_ATLAS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    if atlas is not None:
        asked["FEATURE_ATLAS"] = str(atlas)
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=os.environ | asked)
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.splitlines()]


def test_commands_and_questions() -> None:
    assert offered("l") == [name for name in COMMANDS if name.startswith("l")] == ["lineage", "label"]
    assert offered("ask", "m") == [name for name in QUESTIONS if name.startswith("m")]
    assert "--format" in offered("ask", "--f")


@pytest.mark.slow
def test_ids_of_the_atlas_that_is_meant(folder: Path, tmp_path: Path) -> None:
    wanted = [f"3-res-24/{i}" for i in (2, 20, 21, 22, 23)]
    assert offered("show", "-a", str(folder), "3-res-24/2") == wanted
    assert offered("lineage", "3-res-24/2", atlas=folder) == wanted
    assert offered("ask", "path", "3-res-24/1", "3-res-24/2", atlas=folder) == wanted
    assert offered("steer", "x", "--lineage", "3-res-24/2", atlas=folder) == wanted
    assert offered("neighbours", "--in", "11-", atlas=folder) == ["11-att-24", "11-mlp-24", "11-res-24"]
    assert offered("show", "3", atlas=tmp_path) == [""]  # click says nothing so


def test_ids_grow_by_what_is_typed(folder: Path) -> None:
    atlas = str(folder)
    assert features(atlas, "planted/3-") == ["planted/3-att-24/", "planted/3-mlp-24/", "planted/3-res-24/"]
    assert features(atlas, "planted/3-r") == [f"planted/3-res-24/{i}" for i in range(24)]
    assert features(atlas, "planted/3-res-24/7") == ["planted/3-res-24/7"]
    assert features(atlas, "3-r")[0] == "3-res-24/0" and features(atlas, "99-") == []
    assert len(features(atlas, "")) == 36 and dictionaries(atlas, "11-r") == ["11-res-24"]
    assert len(features(atlas, "planted/3-res-24/")) <= MOST
    assert features("neo4j://localhost:7687", "3-") == features(atlas + "-gone", "3-") == []

"""Bulk import: files for neo4j-admin, imported by the real tool, are a working atlas."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from neo4j_for_tests import PASSWORD
from neo4j_server import CURRENT, LTS, Neo4jServer
from saes import planted as write_saes

from atlas import open_atlas
from atlas.address import ServerAddress
from atlas.errors import FolderError
from atlas.graph.binding import bind
from atlas.graph.digest import digest
from atlas.graph.stored import StoredGraph
from atlas.server.connect import Connection
from atlas.server.export import export_neo4j_admin
from atlas.server.schema import statements
from ingest import ingest
from ingest.labels.job import label_atlas
from queries.lineage.walk import lineage
from queries.questions.questions import QUESTIONS, ask
from queries.search import search


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_saes(tmp_path_factory.mktemp("saes"), range(3))


@pytest.fixture(scope="module")
def folder(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded atlas with awkward labels, of two of three layers."""
    place = tmp_path_factory.mktemp("bulk")
    ingest([sources], place / "atlas", layers=[0, 1])
    rows = [
        {
            "modelId": "tiny-1m",
            "layer": "1-res-64",
            "index": str(i),
            "description": f'{i}: "a, b"; c\\d\nnext line “é” \'',
        }
        for i in range(40)
    ]
    import json

    (place / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    label_atlas(place / "atlas", imports=[str(place / "labels.jsonl")])
    return place / "atlas"


@pytest.fixture(scope="module", params=[LTS, CURRENT])
def imported(
    folder: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Neo4jServer]:
    """A server whose database was made of the exported files, by the command that was printed."""
    files = tmp_path_factory.mktemp("files") / "new"
    with open_atlas(folder) as atlas:
        exported = export_neo4j_admin(StoredGraph(atlas.store, atlas.manifest), files)
    server = Neo4jServer(request.param, password=PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(files)
        assert exported.command[0] == "neo4j-admin" and exported.command[1:4] == ["database", "import", "full"]
        server.admin(*exported.command[1:])
    with server:
        os.environ.update(NEO4J_USERNAME=server.user, NEO4J_PASSWORD=server.password)
        yield server
        server.kill()


def test_the_imported_database_is_the_atlas(imported: Neo4jServer, folder: Path, sources: Path, tmp_path: Path) -> None:
    with open_atlas(folder) as here, open_atlas(imported.uri) as there:
        assert digest(there.store) == digest(here.store)
        assert there.dictionaries == here.dictionaries and there.manifest.state == here.manifest.state
        for name, question in QUESTIONS.items():
            ends = ["tiny-1m/1-res-64/3", "tiny-1m/0-res-64/3"][: len(question.features)]
            assert ask(there, name, *ends, limit=3000) == ask(here, name, *ends, limit=3000), name
        seed = "tiny-1m/1-res-64/3"
        assert lineage(there, seed).to_dict() == lineage(here, seed).to_dict()
        label = "MATCH (f:Feature {id: 'tiny-1m/1-res-64/7'}) RETURN f AS f"
        assert there.read(label) == here.read(label) and "\n" in there.read(label)[0]["f"]["label"]
        assert search(there, "“é”") == search(here, "“é”") != []
    # The indexes were made when it was opened.
    connection = Connection(ServerAddress.parse(imported.uri))
    names = {
        row["name"] for row in connection.read("SHOW INDEXES YIELD name, state WHERE state = 'ONLINE' RETURN name")
    }
    connection.close()
    assert {statement.split()[2] for statement in statements() if "FULLTEXT" not in statement} <= names
    # And a folder goes on there.
    bind(tmp_path / "bound", ServerAddress.parse(imported.uri))
    report = ingest([sources], tmp_path / "bound")
    assert (len(report.dictionaries), report.pairs_kept) == (3, 5)
    ingest([sources], tmp_path / "reference")
    with open_atlas(imported.uri) as there, open_atlas(tmp_path / "reference") as reference:
        assert digest(there.store).sha256 == digest(reference.store).sha256


def test_the_script_holds_the_command(folder: Path, tmp_path: Path) -> None:
    with open_atlas(folder) as atlas:
        exported = export_neo4j_admin(StoredGraph(atlas.store, atlas.manifest), tmp_path / "files")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "neo4j-admin").write_text('#!/bin/sh\npwd; for a in "$@"; do echo "$a"; done\n')
    (tmp_path / "bin" / "neo4j-admin").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    script = [str(tmp_path / "files" / "import.sh")]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    where, *arguments = done.stdout.splitlines()
    assert Path(where) == tmp_path / "files" and arguments == exported.command[1:]
    for argument in arguments:
        for name in argument.partition("=")[2].rpartition("=")[2].split(","):
            assert not name.endswith(".csv") or (tmp_path / "files" / name).stat().st_size > 0


def test_texts_of_several_lines_are_announced(folder: Path, sources: Path, tmp_path: Path) -> None:
    ingest([sources], tmp_path / "plain", layers=[0])
    for name, announced in ((tmp_path / "plain", False), (folder, True)):
        with open_atlas(name) as atlas:
            exported = export_neo4j_admin(StoredGraph(atlas.store, atlas.manifest), tmp_path / f"files-{announced}")
        assert ("--multiline-fields=true" in exported.command) is announced


def test_a_folder_with_something_in_it_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with open_atlas(folder) as atlas, pytest.raises(FolderError, match="not empty"):
        export_neo4j_admin(StoredGraph(atlas.store, atlas.manifest), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

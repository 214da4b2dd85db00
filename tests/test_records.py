"""Records: a run made again, equal; broken lines, folders that are not written to, several writers, opting out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evidence_atlas import tiny_atlas

from atlas import open_atlas
from atlas.atlas import Atlas
from atlas.cli.main import main
from atlas.errors import PlanError
from hooked.load import load_model
from queries import SteeringPlan, generate
from queries.records.again import again
from queries.records.records import FILE, append, read_records
from queries.records.runs import rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_atlas(tmp_path_factory.mktemp("records"), layers=(0, 1))


@pytest.fixture
def atlas(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Atlas]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (folder / FILE).unlink(missing_ok=True)
    with open_atlas(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(folder: Path) -> tuple[Any, Any]:
    return load_model(str(folder.parent / "model"), device="cpu")


def steer(atlas: Atlas, model: tuple[Any, Any], **options: Any) -> Any:
    plan = SteeringPlan.from_features(atlas, {atlas.full_id("1-res-20/3"): 6})
    return generate(*model, ["one two"], plan, max_new_tokens=6, **options)


def test_a_sampled_run_made_again_is_equal_and_says_where_it_is_not(atlas: Atlas, model: tuple[Any, Any]) -> None:
    (made,) = steer(atlas, model, seed=5, temperature=1.0)
    (record,) = read_records(atlas.path)
    assert record["tokens"] == [made.tokens] and record["options"]["seed"] == 5
    assert record["hooks"][0]["positions"] > 0 and record["policy_sha256"] is None
    id_ = record["id"]
    assert [row["equal"] for row in again(atlas, id_, *model)] == [True]
    # The second run is a record of its own.
    assert [row["id"] for row in rows(atlas.path)][-1] == id_ and len(rows(atlas.path)) == 2
    (line, _) = (atlas.path / FILE).read_text().splitlines()  # type: ignore[operator]
    values = json.loads(line)
    values["tokens"][0][2] += 1
    (atlas.path / FILE).write_text(json.dumps(values) + "\n")  # type: ignore[operator]
    assert [(row["equal"], row["from"]) for row in again(atlas, id_, *model)] == [(False, 2)]
    values["plan"]["interventions"][0]["strength"] = 60
    (atlas.path / FILE).write_text(json.dumps(values) + "\n")  # type: ignore[operator]
    with pytest.raises(PlanError, match="changed by hand"):
        again(atlas, id_, *model)


def test_the_command_lists_and_repeats(atlas: Atlas, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["steer", "one two", "-a", str(folder), "--feature", "1-res-20/3=6", "--tokens", "4"]
    for command, code in ((words, 0), (["records", "-a", str(folder), "--format", "json"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == code
    listed = json.loads(capsys.readouterr().out.partition("\n[")[2].join(["[", ""]))
    assert listed[0]["kind"] == "run" and listed[0]["tokens"] == 4
    with pytest.raises(SystemExit) as ended:
        main(["records", "-a", str(folder), "--again", listed[0]["id"], "--device", "cpu", "--format", "json"])
    assert ended.value.code == 0 and json.loads(capsys.readouterr().out)[0]["equal"] is True


def test_nothing_is_recorded_where_it_is_not_wanted(
    atlas: Atlas, model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steer(atlas, model, record=False)
    generate(*model, ["one"], max_new_tokens=2)
    monkeypatch.setenv("FEATURE_ATLAS_RECORDS", "off")
    steer(atlas, model)
    assert read_records(atlas.path) == []


def test_a_line_that_was_broken_off_takes_no_other_with_it(atlas: Atlas, model: tuple[Any, Any]) -> None:
    steer(atlas, model)
    path = atlas.path / FILE  # type: ignore[operator]
    with open(path, "ab") as file:
        file.write(b'{"id": "2026')
    steer(atlas, model)
    assert len(read_records(atlas.path)) == 2 and path.stat().st_mode & 0o077 == 0


def test_an_atlas_that_cannot_be_written_to_has_its_records_with_the_user(
    atlas: Atlas, model: tuple[Any, Any], tmp_path: Path
) -> None:
    path = atlas.path / FILE  # type: ignore[operator]
    path.mkdir()  # root writes to read-only folders, but to none as to a file
    try:
        steer(atlas, model)
    finally:
        path.rmdir()
    assert (tmp_path / "state" / "feature-atlas" / FILE).exists() and len(read_records(atlas.path)) == 1


def test_several_processes_add_whole_lines(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from queries.policy.home import Home\n"
        "from queries.records.records import append\n"
        "for n in range(40): append(Home(Path(sys.argv[1])), {'kind': 'run', 'n': n, 'fill': 'x' * 20000})"
    )
    root = str(Path(__file__).parent.parent)
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=os.environ | {"PYTHONPATH": root})
        for _ in range(3)
    ]
    assert [each.wait(120) for each in started] == [0, 0, 0]
    found = read_records(tmp_path)
    assert len(found) == 120 and len({each["id"] for each in found}) == 120


def test_a_record_without_an_atlas_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert append(None, {"kind": "run"}) is not None
    assert [each["kind"] for each in read_records(None)] == ["run"]

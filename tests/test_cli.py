"""The command line's manners: stdout for results, one line for errors, exit codes, formats, bounds."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from saes import planted

from atlas.cli.main import _run
from atlas.cli.output import columns_wide, printable, render
from atlas.errors import FolderError
from atlas.folder.rows_cache import cache_folder
from atlas.ids import Names
from ingest import ingest

CODE = "from atlas.cli.main import main; main()"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    ingest([planted(folder / "saes", range(2))], folder / "a")
    return folder / "a"


def run(
    *arguments: str, stdin: str | None = None, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding=env.get("PYTHONIOENCODING"),
        errors="replace",
        cwd=cwd,
        env=os.environ | env,
        check=False,
    )


COUNT = "MATCH (f:Feature {layer: $l}) RETURN f.site AS site, count(*) AS n ORDER BY site"
ROWS = [{"site": "att", "n": 64}, {"site": "mlp", "n": 64}, {"site": "res", "n": 64}]


@pytest.mark.slow
def test_query_in_every_format(atlas: Path) -> None:
    base = ("query", COUNT, "--param", "l=1", "-a", str(atlas), "--format")
    assert json.loads(run(*base, "json").stdout) == ROWS
    assert [json.loads(line) for line in run(*base, "jsonl").stdout.splitlines()] == ROWS
    assert [*csv.DictReader(io.StringIO(run(*base, "csv").stdout))] == [{k: str(v) for k, v in r.items()} for r in ROWS]
    table = run(*base, "table").stdout.splitlines()
    assert table[0].split() == ["site", "n"] and table[2].split() == ["att", "64"]


def test_query_from_stdin_and_the_atlas_from_the_environment(atlas: Path) -> None:
    done = run("query", "-", "--param", "l=0", "--format", "json", stdin=COUNT, FEATURE_ATLAS=str(atlas))
    assert json.loads(done.stdout) == ROWS
    done = run("query", "-", "--param", "l=0", "--format", "json", stdin=COUNT, cwd=atlas.parent)
    assert done.returncode == 1 and "feature-atlas ingest" in done.stderr  # ./feature-atlas is not there


def test_what_a_limit_cuts_is_said_on_stderr(atlas: Path) -> None:
    statement = "MATCH (f:Feature) RETURN f.id AS id ORDER BY id"
    done = run("query", statement, "--limit", "2", "--format", "csv", "-a", str(atlas))
    assert len(done.stdout.splitlines()) == 3 and "cut after 2 rows" in done.stderr
    done = run("query", statement, "--limit", "0", "--format", "csv", "-a", str(atlas))
    assert len(done.stdout.splitlines()) == 2 * 3 * 64 + 1 and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["query", "CREATE (n:Feature {id: 'x'})"], 1, "CREATE"),
        (["query", "MATCH (f:Feature) RETURN f.nothing"], 1, "nothing"),
        (["query", "MATCH (f:Feature {layer: $l}) RETURN f"], 1, "$l"),
        (["query", "RETURN 1", "--param", "x"], 2, "NAME=VALUE"),
        (["query", "RETURN 1", "--limit", "-1"], 2, "--limit"),
        (["lineage", "tiny-1m/9-res-64/3"], 1, "tiny-1m/1-res-64"),
        (["lineage", "tiny-1m/1-res-64/64"], 1, "0 to 63"),
        (["lineage", "nonsense"], 1, "not a feature id; one looks like 0-att-64/14"),
        (["show", "war and peace"], 1, "feature-atlas search war and peace"),
        (["show", "1-res-64"], 1, "is a dictionary, not a feature id; its features are 1-res-64/0 to 1-res-64/63"),
        (["show", "9-res-64/3"], 1, "no dictionary '9-res-64' in"),
        (["lineage", "tiny-1m/1-res-64/3", "--min-res", "high"], 2, "floor"),
        (["ask", "hub"], 1, "hubs"),
        (["ingest", "no-such-release"], 1, "no-such-release"),
        (["ingest", "./no-such-folder"], 1, "no-such-folder"),
        (["ingest"], 0, ""),
        (["ingest", "--layers", "x"], 2, "8-13"),
        (["label"], 2, "--text"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_are_one_line_that_helps(atlas: Path, arguments: list[str], code: int, says: str) -> None:
    done = run(*arguments, FEATURE_ATLAS=str(atlas))
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert done.stdout == "" and done.stderr.splitlines()[-1].startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1


def test_debug_shows_where(atlas: Path) -> None:
    done = run("--debug", "lineage", "nonsense", "-a", str(atlas))
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_a_reader_that_stops_early_is_no_error(atlas: Path) -> None:
    ask = f"query 'MATCH (f:Feature) RETURN f.id' -a {atlas} --format csv --limit 0"
    command = f"{sys.executable} -c '{CODE}' {ask} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "f.id\n" and done.stderr == ""


@pytest.mark.slow
def test_interrupted_is_130(atlas: Path) -> None:
    # Long, but not large: a statement that meets the cap on memory first would end with 1.
    cypher = "UNWIND range(1, 100000) AS x UNWIND range(1, 100000) AS y RETURN sum(x * y % 7)"
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "query", cypher, "-a", str(atlas)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in stderr


def test_info(atlas: Path) -> None:
    rows = json.loads(run("info", "-a", str(atlas), "--format", "json").stdout)
    assert [row["id"] for row in rows] == [
        f"tiny-1m/{layer}-{site}-64" for layer in (0, 1) for site in ("att", "mlp", "res")
    ]
    last = rows[-1]
    assert sum(last[name] for name in ("persists", "transforms", "appears", "unexplained")) == last["features"] == 64
    pairs = json.loads(run("info", "--pairs", "-a", str(atlas), "--format", "json").stdout)
    assert len(pairs) == 5 and all(0 < pair["floor_median"] < pair["floor"] < 1 for pair in pairs)
    runs = json.loads(run("info", "--runs", "-a", str(atlas), "--format", "json").stdout)
    assert [(row["k"], json.loads(row["thresholds"])) for row in runs] == [(5, {"res": 0.5, "module": 0.25})]
    text = run("info", "-a", str(atlas)).stdout
    assert "tiny-1m" in text and "embedded" in text


def _by_depth(path: Path) -> tuple[int, int]:
    _, layer, hook = path.parent.name.split(".")
    return int(layer), ("hook_attn_out", "hook_mlp_out", "hook_resid_post").index(hook)


@pytest.mark.slow
def test_dry_run_writes_nothing_and_says_what_is_left(atlas: Path, tmp_path: Path) -> None:
    sources = planted(tmp_path / "saes", range(3))
    done = run("ingest", str(sources), "-a", str(tmp_path / "new"), "--dry-run", "--format", "json")
    rows = json.loads(done.stdout)
    steps = [(row["step"], row["action"]) for row in rows]
    assert steps == [("dictionary", "add")] * 9 + [("pair", "match")] * 8 + [("total", None)]
    # Rows of 64 features and 48 numbers, decoder and encoder: 2 · 64 · 48 · 4 bytes, and a few numbers a feature.
    assert all(2 * 64 * 48 * 4 <= row["bytes"] < 2 * 64 * 48 * 4 * 1.1 for row in rows[:9])
    assert [(row["download"], row["read"]) for row in rows[:9]] == [
        (0, path.stat().st_size) for path in sorted(sources.rglob("*.safetensors"), key=_by_depth)
    ]
    for name in ("download", "read", "bytes"):
        assert rows[-1][name] == sum(row[name] for row in rows[:-1])
    text = run("ingest", str(sources), "-a", str(tmp_path / "new"), "--dry-run").stdout.splitlines()
    assert text[:2] == ["dictionaries 9 to add", "pairs        8 to match"]
    assert text[2:4] == ["to download  nothing", f"to read      {rows[-1]['read'] / 1e6:.1f} MB"]
    assert f"{rows[-1]['bytes'] / 1e6:.1f} MB in {tmp_path / 'new'}" in text[4] and text[5].startswith("time ")
    verbose = run("ingest", str(sources), "-a", str(tmp_path / "new"), "--dry-run", "--verbose").stdout.splitlines()
    assert len(verbose) == 2 + len(rows) + 1 + len(text)
    assert not (tmp_path / "new").exists()
    rows = json.loads(run("ingest", str(sources), "-a", str(atlas), "--dry-run", "--format", "json").stdout)
    assert [row["action"] for row in rows].count("keep") == 6 + 5


HOSTILE = "\x1b[31mred\x1b[0m\x07 \u202eback\n\ttwo lines"


def test_a_table_shows_nothing_that_a_terminal_acts_on() -> None:
    shown = render([{"id": "a/1-res-2k/3", "label": HOSTILE}], ("id", "label"), "table")
    assert shown.splitlines()[2] == "a/1-res-2k/3  red back two lines"
    assert printable("plain, “quoted” 电影 é") == "plain, “quoted” 电影 é"


def test_a_sheet_takes_no_text_for_a_formula() -> None:
    rows: list[dict[str, Any]] = [
        {"label": '=HYPERLINK("http://x")', "n": -1.5},
        {"label": "@war", "n": 2},
        {"label": "a=b", "n": None},
    ]
    lines = render(rows, ("label", "n"), "csv").splitlines()
    assert lines == ["label,n", '"\'=HYPERLINK(""http://x"")",-1.5', "'@war,2", "a=b,"]


def test_a_table_fits_by_its_words_and_never_by_its_ids() -> None:
    id_ = "smollm2-135m-instruct/9-res-2k/2018"
    rows = [{"feature": id_, "label": "电影 film " * 20, "promotes": "short words", "n": 0.25}]
    for width in (80, 60):
        lines = render(rows, ("feature", "label", "promotes", "n"), "table", width).splitlines()
        assert all(columns_wide(line) <= width for line in lines[:2] if width == 80)
        assert id_ in lines[2] and lines[2].endswith("0.250")


def test_ids_that_neuronpedia_shows_are_links_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names("m", {"m/1-res-x": "m/1-res-x"})
    rows = [{"id": "m/1-res-x/7", "label": "film"}, {"id": "m/2-own/7", "label": "m/1-res-x"}]
    plain = render(rows, ("id", "label"), "table", 80, names)
    assert "\x1b" not in plain + render(rows, ("id", "label"), "csv", 80, names)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    for width, id_ in ((80, "m/1-res-x/7"), (12, "1-res-x/7")):
        shown = render(rows, ("id", "label"), "table", width, names)
        assert f"\x1b]8;;https://www.neuronpedia.org/m/1-res-x/7\x1b\\{id_}\x1b]8;;\x1b\\" in shown
        assert shown.count("neuronpedia") == 1


def test_a_table_that_is_too_wide_has_short_ids_where_one_model_leaves_no_doubt() -> None:
    model = "smollm2-135m-instruct"
    names = Names(model, {})
    rows: list[dict[str, Any]] = [
        {"first": f"{model}/8-res-2k/{i}", "last": f"{model}/13-res-2k/{i}", "steps": 5, "weakest_of_all": 0.5}
        for i in (7, 1833)
    ]
    columns = ("first", "last", "steps", "weakest_of_all")
    wide = render(rows, columns, "table", 120, names).splitlines()
    assert wide[3].split() == [f"{model}/8-res-2k/1833", f"{model}/13-res-2k/1833", "5", "0.500"]
    narrow = render(rows, columns, "table", 60, names).splitlines()
    assert narrow[3].split() == ["8-res-2k/1833", "13-res-2k/1833", "5", "0.500"]
    assert narrow[0].split() == list(columns)
    # Where other models are there too, an id stays whole; names of columns give way before any id.
    several = render(rows, columns, "table", 60).splitlines()
    assert several[3].split() == wide[3].split()
    tight = render(rows, columns, "table", 43, names).splitlines()
    assert tight[3].split() == narrow[3].split() and max(map(len, tight)) == 43 and tight[0].endswith("weak…")
    assert render(rows, columns, "csv", 60, names).count(f"{model}/") == 4


def test_words_share_what_room_there_is() -> None:
    rows: list[dict[str, Any]] = [{"feature": "a/1-res-2k/3", "label": "war, army " * 5, "fires_on": "war, army " * 9}]
    line = render(rows, ("feature", "label", "fires_on"), "table", 80).splitlines()[1]
    assert len(line) == 80 and [len(part) for part in line.split("  ")] == [12, 32, 32]


def test_what_is_cut_is_said(atlas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ask", "hubs"], ["ask", "strongest"]):
        assert _run([*words, "-a", str(atlas), "--limit", "3", "--format", "csv"]) == 0
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 4 and "cut after 3 rows" in captured.err
    assert _run(["ask", "turnover", "-a", str(atlas)]) == 0
    assert "cut" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_copy_replaces_another_state_when_told_to(atlas: Path, tmp_path: Path) -> None:
    copy = ("copy", "-a", str(atlas), "--to", str(tmp_path / "there"))
    assert run(*copy).returncode == 0
    ingest([], tmp_path / "there", k=4)
    refused = run(*copy)
    assert refused.returncode == 1 and refused.stdout == "" and "repeat the command with --replace" in refused.stderr
    replaced = run(*copy, "--replace")
    assert replaced.returncode == 0 and replaced.stdout == run(*copy).stdout


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_of_the_terminal(atlas: Path, encoding: str) -> None:
    words = "RETURN '電影 – 😀 “x”' AS label"
    for format_ in ("json", "jsonl"):
        done = run("query", words, "-a", str(atlas), "--format", format_, PYTHONIOENCODING=encoding)
        found = json.loads(done.stdout)
        assert (found[0] if format_ == "json" else found) == {"label": "電影 – 😀 “x”"}, done.stderr
    feature = "tiny-1m/1-res-64/0"
    for command in (["query", words], ["info"], ["ask"], ["lineage", feature, "--min-res", "-1"], ["show", feature]):
        done = run(*command, *([] if command == ["ask"] else ["-a", str(atlas)]), PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and done.stdout, (command, done.stderr)


def test_an_output_that_is_full_or_closed(atlas: Path) -> None:
    command = f"{sys.executable} -c '{CODE}' ask"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert full.returncode == 1
    assert full.stderr.startswith("Error: the output could not be written (No space left on device)")
    assert len(full.stderr.splitlines()) == 1
    closed = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"feature-atlas-{os.getuid()}"
    assert cache_folder() == own and own.stat().st_mode & 0o777 == 0o700
    own.rmdir()
    own.symlink_to(tmp_path)  # as somebody else could leave it there
    with pytest.raises(FolderError, match="XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [8, 32])
def test_a_limited_address_space(tmp_path: Path, gigabytes: int) -> None:
    """As batch systems set it; the engine maps 8 TB where nothing keeps it from that."""
    planted(tmp_path / "saes", range(2))

    def limited(*words: str) -> subprocess.CompletedProcess[str]:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({gigabytes} << 30,) * 2); {CODE}"
        command = [sys.executable, "-c", code, *words, "-a", str(tmp_path / "a")]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    for words in (["ingest", str(tmp_path / "saes")], ["info"], ["query", "MATCH (f:Feature) RETURN count(*) AS n"]):
        done = limited(*words)
        assert done.returncode == 0 and done.stdout, (words, done.stderr)


UNFINISHED = (
    ["info"],
    ["query", "RETURN 1"],
    ["lineage", "tiny-1m/1-res-64/3"],
    ["ask", "hubs"],
    ["search", "war"],
    ["show", "tiny-1m/1-res-64/3"],
    ["neighbours", "tiny-1m/1-res-64/3"],
    ["label", "--promoted"],
    ["remove", "tiny-1m/1-res-64"],
    ["steer", "I think", "--feature", "tiny-1m/1-res-64/3"],
    ["copy", "--to", "elsewhere"],
    ["export", "elsewhere"],
)


def test_an_unfinished_first_ingest_is_to_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = planted(tmp_path / "saes", range(2))
    ingest([sources], tmp_path / "a")
    # The manifest is written last: without it the folder is what a killed ingest leaves.
    (tmp_path / "a" / "feature-atlas.json").unlink()
    for words in UNFINISHED:
        assert _run([*words, "-a", "a"]) == 1, words
        said = capsys.readouterr().err
        assert said.startswith("Error: a is unfinished") and "repeat `feature-atlas ingest …`" in said, (words, said)
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "elsewhere").exists()
    assert _run(["ingest", str(sources), "-a", "a"]) == 0 and _run(["info", "-a", "a"]) == 0
    capsys.readouterr()
    assert _run(["info", "-a", "nowhere"]) == 1 and "holds no atlas; make one" in capsys.readouterr().err

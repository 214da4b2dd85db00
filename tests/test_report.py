"""Reports: of a real sweep of a tiny model, of evidence rows, again; a page that loads nothing and acts on nothing."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_sweep import design, folders, ran

from atlas.atlas import open_atlas
from atlas.cli.progress import Progress
from atlas.errors import PlanError
from hooked.load import load_model
from queries.report.again import run_again
from queries.report.commands import report
from queries.report.contents import contents_of
from queries.report.page import Block, Code, Heading, Listed, Table, Text, markdown, page
from queries.report.report import write_report
from queries.sweep.commands import sweep
from queries.sweep.design import command_of
from queries.sweep.findings import tables_of

__all__ = ["folders"]  # the fixture
HOSTILE = '<script>alert("x")</script> [a](javascript:b) `c` | d\u202e\x1b[31m'


@pytest.fixture(scope="module")
def reported(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep and evidence rows, and its report."""
    base = tmp_path_factory.mktemp("report")
    with open_atlas(folders[0]) as atlas:
        state = {"id": atlas.manifest.id, "state": atlas.manifest.state}
    arms = ("unsteered", "prompted", "lineage", "single", "random", "linear")
    ran(folders, base / "tiny", design(folders, arms=arms, samples=2, theme=HOSTILE, atlas=state))
    (base / "evidence").mkdir()
    rows: list[dict[str, Any]] = [
        {"layer": layer, "site": "res", "method": method, "margin": "all", "n": 9, "success": success}
        | {"success_low": success / 2, "success_high": 1.0, "change": None}
        for layer in (2, 3)
        for method, success in (("top1", 0.6), ("random", 0.1))
    ]
    (base / "evidence" / "deactivation.json").write_text(json.dumps(rows))
    (base / "evidence" / "map.csv").write_text("source,target,method,explained_variance\na,b,top1,0.44\na,b,mean,0.0\n")
    beside: list[dict[str, Any]] = [
        {"layer": 1, "site": site, "method": "top1", "n": 4, "share": share}
        for site, share in (("../x/y", 0.5), ("z" * 400, 0.5), (["list"], 0.5), ("words", "0.5"), ("no", None))
    ]
    beside += [{"layer": 2, "site": "bounds", "method": "top1", "share": 0.1, "share_low": "<b>"}, {"share": 1}]
    (base / "evidence" / "controls.json").write_text(json.dumps(beside))
    (base / "evidence" / "other.jsonl").write_text(json.dumps({"what": HOSTILE}) + "\n")
    write_report(base)
    return base


@pytest.mark.slow
def test_a_report_holds_everything_and_loads_nothing(reported: Path) -> None:
    html = (reported / "report.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; ") and f"'sha256-{digest}'" in policy
    assert "<script" not in html and "&lt;script&gt;" in html and "style=" not in html
    sources = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(sources) >= 6 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    text = (reported / "report.md").read_text()
    outside = re.sub(r"```text.*?```", "", text, flags=re.S)  # in a fence it is text as it stands
    assert not re.search(r"(?<!\\)<script", outside) and "\u202e" not in text and "\x1b" not in text
    for title in ("does worse", "do not tell them apart", "does better", "Contrasts", "Texts", "How", "Again"):
        assert title in text and title in html, title
    for path in re.findall(r"!\[.*?\]\((figures/[^)]+)\)", text):
        assert (reported / path).stat().st_size > 1000 and (reported / path).with_suffix(".csv").exists()
    names = {path.name for path in (reported / "figures").iterdir()}
    assert {"tiny-dose.svg", "tiny-layers.svg", "tiny-schedules.svg", "tiny-contrasts.svg", "tiny-trade.svg"} <= names
    assert {"evidence-deactivation-res-all.svg", "evidence-map.svg", "evidence-map.csv"} <= names
    # A name in a row becomes part of a file's, and no place.
    assert {"evidence-controls-.._x_y.svg", "evidence-controls-.._x_y.csv"} <= names
    assert len([name for name in names if name.startswith("evidence-controls")]) == 2 * 2  # the rest are no points
    assert all(path.is_file() for path in (reported / "figures").iterdir())
    assert (reported / "tiny-trials.csv").exists() and list((reported / "tiny-plans").glob("*.json"))


@pytest.mark.slow
def test_a_figure_s_numbers_are_the_table_s(reported: Path) -> None:
    sweep = contents_of(reported).sweeps[0]
    with open(reported / "figures" / "tiny-arms.csv") as file:
        written = list(csv.DictReader(file))
    rows = tables_of(sweep.scores)["arms"]
    assert [row["arm"] for row in written] == [row["arm"] for row in rows]
    assert [float(row["success"]) for row in written] == pytest.approx([row["success"] for row in rows])
    before = (reported / "figures" / "tiny-arms.svg").read_bytes()
    write_report(reported)
    assert (reported / "figures" / "tiny-arms.svg").read_bytes() == before


def test_without_matplotlib_the_numbers_are_there(reported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queries.report.figures.find_spec", lambda _name: None)
    (reported / "figures" / "tiny-arms.csv").unlink()
    result = CliRunner().invoke(report, [str(reported)], catch_exceptions=False)
    assert result.exit_code == 0 and "feature-atlas[plots]" in result.stderr
    assert result.stdout.split() == [str(reported / "report.md"), str(reported / "report.html")]
    assert (reported / "figures" / "tiny-arms.csv").exists()
    assert "Figures are left out" in (reported / "report.md").read_text()


@pytest.mark.slow
def test_again_gives_the_same_texts(folders: tuple[str, str], reported: Path) -> None:
    with open_atlas(folders[0]) as atlas:
        (row,) = run_again(atlas, reported, lambda name: load_model(name, device="cpu"), Progress(quiet=True))
        assert row["texts"] == row["same"] > 50 and row["different"] == row["missing"] == 0
        assert len(list((reported / "again" / "tiny" / "trials").glob("*.parquet"))) > 10
        path = reported / "tiny" / "design.json"
        kept = path.read_text()
        path.write_text(kept.replace(str(atlas.manifest.state), "other"))
        with pytest.raises(PlanError, match="another state of an atlas"):
            run_again(atlas, reported, lambda name: load_model(name, device="cpu"), Progress(quiet=True))
        path.write_text(kept)


def test_the_command_that_is_written_down_gives_the_same_design(reported: Path) -> None:
    made = contents_of(reported).sweeps[0]
    (run,) = made.runs
    assert run["command"] == command_of(made.design, run["command"].split(" -a ")[1].split()[0], str(made.folder))
    words = shlex.split(run["command"])
    assert words[:2] == ["feature-atlas", "sweep"] and run["versions"]["torch"]
    values = sweep.make_context("sweep", words[2:]).params
    assert (values["features"], values["strengths"]) == (made.design.features, made.design.strengths)
    assert (values["prompts"], values["arms"], values["theme"]) == (made.design.prompts, made.design.arms, HOSTILE)
    assert (values["samples"], values["report_samples"]) == (2, 4)


def test_what_is_no_report_is_told(tmp_path: Path, folders: tuple[str, str]) -> None:
    with pytest.raises(PlanError, match="holds no sweep"):
        write_report(tmp_path)
    design(folders).begin(tmp_path)
    with pytest.raises(PlanError, match="is not finished"):
        write_report(tmp_path)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "map.json").write_text('{"a": 1}')
    (tmp_path / "design.json").unlink()
    with pytest.raises(PlanError, match="holds no rows"):
        write_report(tmp_path)


def test_blocks_are_text_whatever_they_hold(tmp_path: Path) -> None:
    row: dict[str, Any] = {"a": HOSTILE, "b": 0.5, "c": None}
    blocks: list[Block] = [
        Heading(HOSTILE, 1),
        Text(HOSTILE),
        Listed([HOSTILE]),
        Code("```\n" + HOSTILE),
        Table(["a", "b", "c"], [row]),
    ]
    html, text = page(blocks, tmp_path), markdown(blocks)
    assert "<script" not in html and '<td class="number">0.500</td>' in html
    assert "````text\n```" in text  # a fence longer than any inside
    outside = re.sub(r"````text.*?````", "", text, flags=re.S)
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(javascript", outside)

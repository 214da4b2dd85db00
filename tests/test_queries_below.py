"""Defaults of a lineage are the atlas' own thresholds; a lone feature's best matches below them are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from planted import Planted

from atlas.atlas import open_atlas
from atlas.cli.main import root
from atlas.folder.manifest import Manifest
from queries.lineage.below import just_below
from queries.lineage.walk import lineage


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(range(5), seed=2)


@pytest.fixture(scope="module")
def folder(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.at(tmp_path_factory.mktemp("below") / "atlas")


def test_the_atlas_own_thresholds_are_the_defaults(folder: Path) -> None:
    seed = "planted/2-res-24/7"
    with open_atlas(folder) as atlas:
        assert lineage(atlas, seed) == lineage(atlas, seed, min_res=0.5, min_module=0.25)
        assert lineage(atlas, seed).options["min_res"] == 0.5
        atlas.manifest = replace(atlas.manifest, min_res="floor", min_module=0.01)
        own = lineage(atlas, seed)
        assert own == lineage(atlas, seed, min_res="floor", min_module=0.01)
        assert own != lineage(atlas, seed, min_res=0.5, min_module=0.25)
        assert own.options == lineage(atlas, seed, min_res="floor", min_module=0.01).options


def run(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(root, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_commands_take_them_too(folder: Path) -> None:
    seed = "planted/2-res-24/7"
    manifest = Manifest.load(folder)
    try:
        replace(manifest, min_res=-1.0, min_module=0.2).save(folder)
        mine, _ = run("lineage", seed, "-a", str(folder), "--format", "json")
    finally:
        manifest.save(folder)
    assert mine == run("lineage", seed, "-a", str(folder), "--format", "json", "--min-res=-1", "--min-module=0.2")[0]
    assert len(json.loads(mine)["nodes"]) > 4


@pytest.mark.parametrize(
    "seed", ["planted/2-res-24/7", "planted/0-res-24/3", "planted/4-res-24/1", "planted/3-mlp-24/2"]
)
def test_a_lone_feature_is_told_what_lay_just_below(planted: Planted, folder: Path, seed: str) -> None:
    edges = planted.edge_rows()
    expected: dict[tuple[str, str], tuple[float, str]] = {}
    for mine, other, rank, way in (
        ("source", "target", "rank", "earlier"),
        ("target", "source", "forward_rank", "later"),
    ):
        for edge in edges:
            if edge[mine] == seed and edge[rank] == 0:
                option = "--min-res" if edge["type"] == "FROM_RES" else "--min-module"
                found = (edge["similarity"], edge[other])
                expected[way, option] = max(expected.get((way, option), found), found)
    assert expected
    with open_atlas(folder) as atlas:
        alone = lineage(atlas, seed, min_res=1.0, min_module=1.0)
        lines = just_below(atlas, alone)
        assert lines[0] == "nothing reaches the thresholds (--min-res 1.0, --min-module 1.0)"
        assert len(lines) == 1 + len(expected)
        for (way, option), (similarity, other) in expected.items():
            line = next(line for line in lines if f"just below: {way} " in line and f"; {option} " in line)
            assert f" {other.removeprefix('planted/')}, cosine {similarity:.3f}" in line
            # The option, typed as it is printed, shows the match.
            given = float(line.partition(f"; {option} ")[2].split()[0])
            given_res, given_module = (given if option == name else 1.0 for name in ("--min-res", "--min-module"))
            shown = lineage(atlas, seed, min_res=given_res, min_module=given_module)
            assert other in {node.id for node in shown.nodes}
        assert just_below(atlas, lineage(atlas, seed, min_res=-1, min_module=-1)) == []
    _, stderr = run("lineage", seed, "-a", str(folder), "--min-res", "1", "--min-module", "1")
    assert stderr.splitlines() == lines


def test_a_dead_feature_has_nothing_below(folder: Path) -> None:
    with open_atlas(folder) as atlas:
        lines = just_below(atlas, lineage(atlas, "planted/2-res-24/23"))
    assert lines[1:] == ["and the atlas holds no match of it below them"]

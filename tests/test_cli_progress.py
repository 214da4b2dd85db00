"""What is shown of work that takes long: on a terminal, and nowhere else."""

from __future__ import annotations

import io
import sys
import time

import pytest

from atlas.cli import progress
from atlas.cli.progress import Progress


class Terminal(io.StringIO):
    """As stderr of a shell."""

    def isatty(self) -> bool:
        return True


def test_a_step_that_cannot_be_counted_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.2)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress().waiting("asking"):
        monkeypatch.setattr(sys, "stderr", io.StringIO())  # libraries are silenced meanwhile
        time.sleep(0.9)
    shown = terminal.getvalue().split("\r")
    assert shown[1] == "asking: 0 s" and len(shown) >= 4
    # Written over, so that the result stands alone.
    assert shown[-2].isspace() and len(shown[-2]) >= len(shown[-3]) and shown[-1] == ""


def test_nothing_is_said_of_what_is_fast_or_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    for stream, made, pause in (
        (io.StringIO(), Progress(), 0.3),  # not a terminal
        (Terminal(), Progress(quiet=True), 0.3),
        (Terminal(), Progress(), 0.0),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        with pytest.raises(ValueError, match="passed on"), made.waiting("asking"):
            time.sleep(pause)
            raise ValueError("passed on")
        assert stream.getvalue() == ""

"""Progress of long work, on stderr; nothing where it is told to be quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

Advance = Callable[[int], None]
PATIENCE = 2.0  # seconds after which a step that cannot be counted says that it goes on


@dataclass(frozen=True)
class Progress:
    """Bars for the steps of a job."""

    quiet: bool = False

    @contextmanager
    def steps(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A bar over `total` things; call what it yields with the number just done."""
        from tqdm import tqdm

        with tqdm(total=total, desc=name, unit=f" {unit}", disable=self.quiet or total == 0) as bar:
            yield lambda done: _advance(bar, done)

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """For a step that cannot be counted: on a terminal, after PATIENCE seconds, how long it has taken so far."""
        # Before it may be redirected: what goes on inside may silence the libraries that it calls.
        stream = sys.stderr
        if self.quiet or not stream.isatty():
            yield
            return
        done = threading.Event()
        clock = threading.Thread(target=_tell, args=(name, stream, done), daemon=True)
        clock.start()
        try:
            yield
        finally:
            done.set()
            clock.join()

    @contextmanager
    def work(self, name: str, things: int, total: int) -> Iterator[Advance]:
        """A bar over `total` products of `things` pairs, with rate and time left; 0 says that a pair is done."""
        from tqdm import tqdm

        with tqdm(total=total, desc=name, unit=" products", unit_scale=True, disable=self.quiet or total == 0) as bar:
            done = 0

            def advance(products: int) -> None:
                nonlocal done
                done += products == 0
                bar.set_postfix_str(f"{done}/{things} pairs", refresh=products == 0)
                bar.update(products)

            yield advance


def _tell(name: str, stream: TextIO, done: threading.Event) -> None:
    """Write the seconds until it is done, then leave the line as it was found."""
    started = time.monotonic()
    told = False
    while not done.wait(0.5 if told else PATIENCE):
        told = True
        stream.write(f"\r{name}: {time.monotonic() - started:.0f} s")
        stream.flush()
    if told:
        stream.write("\r" + " " * (len(name) + 12) + "\r")
        stream.flush()


def _advance(bar: object, done: int) -> None:
    bar.update(done)  # type: ignore[attr-defined]

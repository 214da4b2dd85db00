"""Progress of long work, on stderr; nothing where it is told to be quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Advance = Callable[[int], None]


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


def _advance(bar: object, done: int) -> None:
    bar.update(done)  # type: ignore[attr-defined]

"""LadybugDB's Python side in processes of our own."""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ladybug

_OPENING = threading.Lock()


def database(path: Any, **options: Any) -> ladybug.Database:
    """An opened database file; raises RuntimeError where the engine cannot read it.

    One at a time: the engine loads its library at the first, and a second thread would find it missing meanwhile.
    """
    import ladybug

    with _OPENING:
        return ladybug.Database(path, **options)


def without_asyncio() -> None:
    """Keep the engine's asynchronous half from being imported: asyncio takes longer than opening a graph.

    Nothing here uses it. Called first thing by the command line and by the worker, never by the library, whose user may
    want it.
    """
    unused = ModuleType("ladybug.async_connection")
    unused.AsyncConnection = None  # type: ignore[attr-defined]
    sys.modules.setdefault(unused.__name__, unused)

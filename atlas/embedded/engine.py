"""LadybugDB's Python side in processes of our own."""

from __future__ import annotations

import sys
from types import ModuleType


def without_asyncio() -> None:
    """Keep the engine's asynchronous half from being imported: asyncio takes longer than opening a graph.

    Nothing here uses it. Called first thing by the command line and by the worker, never by the library, whose user may
    want it.
    """
    unused = ModuleType("ladybug.async_connection")
    unused.AsyncConnection = None  # type: ignore[attr-defined]
    sys.modules.setdefault(unused.__name__, unused)

"""The feature atlas: a graph of dictionary features, and everything that opens, keeps and guards it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.errors import AtlasError

if TYPE_CHECKING:
    from atlas.atlas import Atlas, open_atlas

__all__ = ["Atlas", "AtlasError", "open_atlas"]


def __getattr__(name: str) -> Any:
    """Import what opens an atlas at its first use: the command line's help and worker processes do without."""
    if name not in __all__:
        # AttributeError and no other: after it `from atlas import NAME` goes on to look for a submodule.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from atlas import atlas

    return getattr(atlas, name)

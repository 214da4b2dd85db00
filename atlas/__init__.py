"""The feature atlas: a graph of dictionary features, and everything that opens, keeps and guards it."""

from atlas.atlas import Atlas, open_atlas
from atlas.errors import AtlasError

__all__ = ["Atlas", "AtlasError", "open_atlas"]

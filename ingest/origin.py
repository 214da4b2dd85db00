"""Where one dictionary's configuration and weights come from: a local folder or an entry of SAELens's registry."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ingest.configuration import Configuration
from ingest.tensors import Tensors


class Origin(Protocol):
    """Where one dictionary's configuration and weights come from."""

    @property
    def address(self) -> str:
        """What names it again: an absolute folder or `release/sae_id`."""
        ...

    @property
    def configuration(self) -> Configuration:
        """What is known of it without its weights."""
        ...

    @property
    def release(self) -> str | None:
        """SAELens release."""
        ...

    @property
    def sae_id(self) -> str | None:
        """Id within the release."""
        ...

    def files(self) -> list[Path]:
        """The files that hold its weights, fetched where they are not here yet."""
        ...

    def tensors(self) -> AbstractContextManager[Tensors]:
        """Its tensors."""
        ...

"""The statements that an atlas's graph is asked, while a test looks on."""

from __future__ import annotations

from typing import Any

import pytest

from atlas.atlas import Atlas


def noted_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which every further statement of any atlas is added."""
    read: list[str] = []
    own = Atlas.read

    def noting(self: Atlas, cypher: str, **parameters: Any) -> Any:
        read.append(cypher)
        return own(self, cypher, **parameters)

    monkeypatch.setattr(Atlas, "read", noting)
    return read

"""Rows fetched again from a dictionary's source: the same to the last bit, or refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from saes import planted, write_sae

from atlas import open_atlas
from atlas.dictionary import Dictionary, Rows
from atlas.errors import IngestError
from atlas.rows_cache import open_rows
from ingest import ingest

ID = "tiny-1m/1-mlp-64"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return planted(tmp_path / "saes", range(2))


@pytest.fixture
def record(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dictionary:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ingest([sources], tmp_path / "atlas")
    with open_atlas(tmp_path / "atlas") as atlas:
        return atlas.dictionaries[ID]


def test_fetched_once_and_the_same_to_the_last_bit(record: Dictionary, sources: Path, tmp_path: Path) -> None:
    fetched = open_rows(None, record)
    kept = Rows.open(tmp_path / "atlas" / "dictionaries" / ID, record)
    np.testing.assert_array_equal(fetched.decoder, kept.decoder)
    np.testing.assert_array_equal(fetched.encoder, kept.encoder)
    shutil.rmtree(sources)
    np.testing.assert_array_equal(open_rows(None, record).decoder, kept.decoder)  # from the cache


def test_a_source_that_is_gone_is_named(record: Dictionary, sources: Path) -> None:
    shutil.rmtree(sources)
    with pytest.raises(IngestError, match=rf"rows of {ID} are not here.*blocks\.1\.hook_mlp_out"):
        open_rows(None, record)


def test_a_source_that_changed_is_refused(record: Dictionary, sources: Path, tmp_path: Path) -> None:
    shutil.rmtree(sources / "blocks.1.hook_mlp_out")
    write_sae(sources, 1, "mlp", np.eye(64, 48) + 0.01)
    with pytest.raises(IngestError, match="has changed since"):
        open_rows(None, record)
    assert not list((tmp_path / "cache").rglob("decoder.npy"))

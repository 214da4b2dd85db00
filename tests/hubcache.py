"""A hub cache made by hand: what `hf_hub_download` finds without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

_COMMIT = "0" * 40


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the hub's library look in `folder` and nowhere else; returns it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def cached(cache: Path, repository: str, name: str) -> Path:
    """Where the file `name` of a repository belongs in the cache; its folder is made."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(_COMMIT)
    path = home / "snapshots" / _COMMIT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def cache_folder(cache: Path, repository: str, folder: Path, under: str = ".") -> None:
    """Put every file of a folder into the cache, in the folder `under` of the repository."""
    for file in folder.iterdir():
        shutil.copy(file, cached(cache, repository, f"{under}/{file.name}" if under != "." else file.name))

"""Models kept as .gguf files, converted once: reading one takes ten seconds and more, its conversion less than one.

A conversion is a folder in transformers' own format under `$XDG_CACHE_HOME/feature-atlas/models` (`~/.cache` where that
is not set), named by the file's SHA-256. It holds the same float32 weights; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atlas.folder.rows_cache import cache_folder


def converted(file: Path, load: Callable[[], tuple[Any, Any]]) -> Path | None:
    """The folder that a .gguf file was converted to, converted now if it was not.

    `load` reads the file: (model, tokenizer), float32. None where the cache cannot be written to.
    """
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    cache = cache_folder() / "models"
    folder = cache / f"{file.stem}-{digest}"
    if folder.is_dir():
        return folder
    partial = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Within the cache: a folder is renamed atomically on its own file system only.
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=cache))
        model, tokenizer = load()
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        os.replace(partial, folder)
    except OSError:  # a full or read-only disk; another process may have been first
        return folder if folder.is_dir() else None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return folder

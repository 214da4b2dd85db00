"""Dictionaries in SAELens's own format in a folder: `cfg.json` beside `sae_weights.safetensors`, at any depth."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atlas.errors import IngestError
from ingest.sources.configuration import Configuration, read_configuration
from ingest.sources.tensors import Tensors, open_safetensors

CONFIGURATION, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
_STEP = re.compile(r"(final_)?(\d+)")
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """One dictionary in a folder."""

    path: Path  # absolute
    configuration: Configuration
    release: str | None = None
    sae_id: str | None = None
    variant: str = ""  # as registry.Entry has it; folders are told apart by their users

    @property
    def address(self) -> str:
        """What names it again."""
        return str(self.path)

    def files(self) -> list[Path]:
        """The files that hold its weights."""
        return [self.path / WEIGHTS]

    def size(self) -> tuple[int | None, bool]:
        """Bytes of its weights, and that they are here."""
        return (self.path / WEIGHTS).stat().st_size, True

    def tensors(self) -> AbstractContextManager[Tensors]:
        """Its tensors, mapped."""
        return open_safetensors(self.path / WEIGHTS)


def find_folders(root: Path, checkpoint: int | None = None) -> list[Folder]:
    """Every SAELens dictionary in `root`, at any depth, in the order of their paths; of a run's checkpoints one.

    Raises IngestError where there is none, where one cannot be taken in, or where no run has the checkpoint.
    """
    if not root.is_dir():
        raise IngestError(f"{root} is a file; name the folder that holds {CONFIGURATION} and {WEIGHTS}")
    folders, pickles = [], []
    for path, names in _walk(root):
        raw = read_json(path / CONFIGURATION) if CONFIGURATION in names else {}
        if WEIGHTS in names and CONFIGURATION in names:
            folders.append(Folder(path, _configuration(raw, path)))
        elif WEIGHTS in names:
            raise IngestError(f"{path} holds {WEIGHTS} without {CONFIGURATION}, which says what it belongs to")
        elif "d_sae" in raw or "hook_name" in raw:
            raise IngestError(f"{path} holds {CONFIGURATION} but no {WEIGHTS}{_pickled(names)}")
        pickles += [path / name for name in names if name.endswith(PICKLES)]
    if not folders:
        hint = f" ({pickles[0].name} is a pickle: refused, it can run code)" if pickles else ""
        raise IngestError(f"no SAELens dictionary ({CONFIGURATION} beside {WEIGHTS}) in {root}, at any depth{hint}")
    return _of_checkpoint(folders, root, checkpoint)


def read_json(path: Path) -> dict[str, Any]:
    """The fields of a JSON file; raises IngestError where it is none."""
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise IngestError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(raw, dict):
        raise IngestError(f"{path} is not a configuration: a {type(raw).__name__} instead of fields")
    return raw


def _of_checkpoint(folders: list[Folder], root: Path, checkpoint: int | None) -> list[Folder]:
    """Of several checkpoints of one run, which SAELens keeps in folders `STEP` and `final_STEP`, the one asked for."""
    runs: dict[tuple[Path, str, str, int], list[Folder]] = {}
    for folder in folders:
        run = folder.path.parent if _STEP.fullmatch(folder.path.name) else folder.path
        cfg = folder.configuration
        # Folders called by numbers may be layers and not a run's steps: those differ in their hooks.
        runs.setdefault((run, cfg.hook_name, cfg.hook_name_in, cfg.d_sae), []).append(folder)
    kept = set()
    for (run, *_), steps in runs.items():
        steps.sort(key=_step)
        named = [step for step in steps if checkpoint is None or len(steps) == 1 or _step(step)[1] == checkpoint]
        if not named:
            raise IngestError(f"{run} has no checkpoint {checkpoint}; there: {', '.join(s.path.name for s in steps)}")
        kept.add(named[-1].path)
        if checkpoint is None and len(steps) > 1:
            _log.warning("%s holds %d checkpoints; taking %s (--checkpoint STEP)", run, len(steps), named[-1].path.name)
    if checkpoint is not None and all(len(steps) == 1 for steps in runs.values()):
        _log.warning("%s holds no run with several checkpoints: --checkpoint %d changes nothing", root, checkpoint)
    return [folder for folder in folders if folder.path in kept]


def _step(folder: Folder) -> tuple[int, int]:
    """What comes last in a run is greatest: a step, its end, an end that lies above its steps; and the step."""
    found = _STEP.fullmatch(folder.path.name)
    return (2, -1) if found is None else (int(found[1] is not None), int(found[2]))


def _walk(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Folders and the names of their files; links are followed, each folder is seen once."""
    seen = set()
    for path, below, names in os.walk(root.resolve(), followlinks=True):
        real = os.path.realpath(path)
        # A link to a folder above would lead round for ever.
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        # In place: os.walk goes down in this order, which the file system leaves open.
        below.sort()
        yield Path(path), set(names)


def _pickled(names: set[str]) -> str:
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    return f"; {pickles[0]} is a pickle: refused, it can run code; convert it to safetensors" if pickles else ""


def _configuration(raw: dict[str, Any], path: Path) -> Configuration:
    configuration = read_configuration(raw, str(path))
    if configuration.normalize_activations != "expected_average_only_in" or not (path / SCALER).exists():
        return configuration
    factor = read_json(path / SCALER).get("scaling_factor")  # beside checkpoints, until SAELens folds it in
    return replace(configuration, norm_factor=float(factor) if factor else None)

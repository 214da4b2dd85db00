"""The nearest decoder rows to one, exactly: in its own dictionary, in any other, in all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.cli.progress import Progress
from atlas.errors import QueryError
from atlas.rows import Rows
from queries.nearest_index import SPARE, index_of, make_index

if TYPE_CHECKING:
    import numpy as np

    from atlas.atlas import Atlas
    from atlas.folder.stored_rows import StoredRows

ALL = "all"  # stands for every dictionary
COLUMNS = ("feature", "similarity", "rank")
_BLOCK = 8192  # rows multiplied at once


def neighbours(
    atlas: Atlas,
    feature: str | np.ndarray,
    *,
    dictionaries: Sequence[str] | None = None,
    top: int = 10,
    index: bool = False,
    progress: Progress | None = None,
) -> Rows:
    """The features whose unit decoder rows have the largest cosines with a feature's, or with any direction.

    Cosines are computed in float64; equal ones go by dictionary and index. The feature itself is left out, and so are
    dead ones, which have no direction.

    Args:
        feature: an id, or a direction [d_model] of any length but 0.
        dictionaries: ids of those to look in, or "all"; None: the feature's own.
        top: most rows.
        index: make an index of these dictionaries' rows first, where there is none (queries.nearest_index); it is used
            wherever it is there, and gives the same rows.
        progress: where it is shown which dictionaries were looked in; None: nowhere.

    Returns:
        Rows of COLUMNS, best first; rank counts from 0.

    Raises UnknownFeature for a feature or dictionary that the atlas does not hold; QueryError where a direction has no
    dictionary to be looked for in, another width, or no length, or `top` is below 1.

    Example:
        for row in neighbours(atlas, "smollm2-135m-instruct/9-res-2k/2018", top=3):
            print(row["feature"], round(row["similarity"], 2))
    """
    import numpy as np

    if top < 1:
        raise QueryError("the number of neighbours must be at least 1")
    own: tuple[str, int] | None = None
    if isinstance(feature, str):
        feature = atlas.full_id(feature)
        own = (place := atlas.locate(feature))[0].id, place[1]
        direction = atlas.directions([feature])[0].astype(np.float64)
    else:
        direction = np.asarray(feature, dtype=np.float64)
        length = float(np.linalg.norm(direction))
        if direction.ndim != 1 or not np.isfinite(length) or length == 0:
            raise QueryError(f"a direction is a vector of finite numbers, not all 0; this has shape {direction.shape}")
        direction = direction / length
    found: list[tuple[float, str, int]] = []
    names = _wanted(atlas, dictionaries, own[0] if own else None, len(direction))
    # One is looked at in a moment.
    progress = progress if progress and len(names) > 1 else Progress(quiet=True)
    if index:
        make_index(atlas, names, progress)
    found, names = _by_index(atlas, names, direction, top, own)
    with progress.steps("neighbours", len(names), "dictionaries") as advance:
        for name in names:
            atlas.rows(name).check(atlas.dictionary(name))
            found += _nearest(atlas, name, None, direction, top, own)
            advance(1)
    # Cosines are negated, so that one ascending order puts the best first and equal ones by dictionary and index.
    ranked = sorted(found)[:top]
    return Rows(
        (
            {"feature": f"{name}/{row}", "similarity": -negative, "rank": rank}
            for rank, (negative, name, row) in enumerate(ranked)
        ),
        COLUMNS,
    )


def _nearest(
    atlas: Atlas, name: str, among: np.ndarray | None, direction: np.ndarray, top: int, own: tuple[str, int] | None
) -> list[tuple[float, str, int]]:
    """The nearest of some rows of a dictionary, None: of all; cosine negated, dictionary, row."""
    import numpy as np

    rows = atlas.rows(name)
    among = np.arange(len(rows.alive)) if among is None else np.sort(among)
    whole = len(among) == len(rows.alive)
    cosines = _cosines(rows.decoder if whole else rows.decoder[among], direction)
    # Below any cosine; taken out by the same test as the feature itself.
    cosines[~rows.alive[among]] = -2
    if own and own[0] == name:
        cosines[among == own[1]] = -2
    best = np.argsort(-cosines, kind="stable")[:top]  # stable: equal ones in the order of their index
    return [(-float(cosines[i]), name, int(among[i])) for i in best if cosines[i] >= -1.5]


def _by_index(
    atlas: Atlas, names: Sequence[str], direction: np.ndarray, top: int, own: tuple[str, int] | None
) -> tuple[list[tuple[float, str, int]], list[str]]:
    """What indexes prove to be nearest, and the dictionaries that have to be looked at whole: all that have none."""
    import numpy as np

    found: list[tuple[float, str, int]] = []
    bounds: dict[str, float] = {}
    for name in names:
        if (index := index_of(atlas, name)) is not None:
            candidates = index.candidates(direction.astype(np.float32), top + SPARE)
            atlas.rows(name).check(atlas.dictionary(name), candidates.ids.tolist())
            bounds[name] = candidates.bound
            found += _nearest(atlas, name, candidates.ids, direction, top, own)
    worst = -sorted(found)[:top][-1][0] if len(found) >= top else -1.0
    whole = [name for name in names if name not in bounds or bounds[name] >= worst]
    return [each for each in found if each[1] not in whole], whole


def read_direction(path: Path) -> np.ndarray:
    """A direction from a `.npy` file, a `.safetensors` with one tensor or a JSON list; raises QueryError."""
    import json

    import numpy as np

    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.numpy import load_file

            try:
                (tensor,) = load_file(path).values()
            except SafetensorError as error:
                raise ValueError(str(error)) from None
            return np.asarray(tensor, dtype=np.float64).squeeze()
        return np.asarray(json.loads(path.read_text(encoding="utf-8-sig")), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise QueryError(
            f"{path} is neither .npy, nor .safetensors with one tensor, nor a JSON list ({error})"
        ) from None


def _wanted(atlas: Atlas, names: Sequence[str] | None, own: str | None, width: int) -> list[str]:
    """The dictionaries to look in; raises QueryError where their rows have another width."""
    if names is None and own is None:
        raise QueryError("a direction belongs to no dictionary; say where to look, --in DICTIONARY or --in all")
    chosen = [own] if names is None else [names] if isinstance(names, str) else list(names)
    # Dictionaries of another width cannot be compared; named one by one they are an error.
    if chosen == [ALL]:
        return [name for name, record in atlas.dictionaries.items() if record.d_model == width]
    wanted = []
    for name in chosen:
        record = atlas.dictionary(str(name))
        if record.d_model != width:
            raise QueryError(f"{name} has rows of {record.d_model} numbers, the direction has {width}")
        wanted.append(record.id)
    return wanted


def _cosines(rows: np.ndarray | StoredRows, direction: np.ndarray) -> np.ndarray:
    """float64 [n]: products of the rows, float32 [n, d], with a direction [d]."""
    import numpy as np

    cosines = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        cosines[start : start + _BLOCK] = rows[start : start + _BLOCK].astype(np.float64) @ direction
    return cosines

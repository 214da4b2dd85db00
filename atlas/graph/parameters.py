"""Parameters as people have them at hand, made what both stores take: text, numbers, booleans, null, lists, maps.

NumPy's and PyTorch's numbers and arrays, pandas' columns and tables, sets, tuples and generators are taken as the
neo4j driver takes lists and numbers; none of these packages is imported for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from atlas.errors import QueryError

_NULLS = frozenset(("NAType", "NaTType"))  # pandas' missing values
_TAKEN = "parameters are JSON values: text, numbers, lists, maps"
_DEEPEST = 500  # nested lists and maps


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as plain Python values; raises QueryError for what is none, with its name.

    Example:
        plain_parameters({"ids": np.array([1, 2]), "least": np.float32(0.5)})  # {"ids": [1, 2], "least": 0.5}
    """
    found = {}
    for name, value in parameters.items():
        try:
            found[str(name)] = _plain(value, 0)
        except (TypeError, ValueError, RecursionError) as error:
            raise QueryError(f"{_TAKEN} (${name}: {error})") from None
    return found


def _plain(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("lists and maps are nested too deep")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, str):
        # json would escape a lone surrogate without a word, and an engine would be given it.
        value.encode()
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("NaN and infinities are no JSON values; leave them out or give null")
        return float(value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{value} has more than 64 bits")
        return int(value)
    if kind is list or kind is tuple:
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {_key(name): _plain(item, depth + 1) for name, item in value.items()}
    return _of_a_package(value, depth)


def _key(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a map's key is text, not {name!r}")
    name.encode()
    return name


def _of_a_package(value: Any, depth: int) -> Any:
    if type(value).__name__ in _NULLS:
        return None
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        # A table is a map of its columns, as the neo4j driver takes it.
        return _plain({str(name): list(value[name]) for name in value.columns}, depth)
    if hasattr(value, "tolist"):
        # Numbers and arrays: of NumPy, PyTorch, pandas.
        found = value.tolist()
        if found is value:
            raise TypeError(f"{type(value).__name__} cannot be sent")
        return _plain(found, depth + 1)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, depth + 1) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be sent; turn it into text or a number")

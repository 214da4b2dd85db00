"""Aggregates: what a group of rows comes to. Nulls are passed over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from atlas.cypher.values import integer, is_number, key, rank, type_of
from atlas.errors import QueryError


def aggregated(name: str, distinct: bool, columns: list[list[Any]], rows: int) -> Any:
    """The aggregate of the values of its arguments, one list an argument; `rows` is the size of the group."""
    if not columns:
        return rows
    wanted = 2 if name.startswith("percentile") else 1
    if len(columns) != wanted:
        raise QueryError(f"{name}() takes {wanted} argument{'s' * (wanted > 1)}")
    values = [value for value in columns[0] if value is not None]
    if distinct:
        values = list({key(value): value for value in reversed(values)}.values())[::-1]
    if wanted == 2:
        return _percentile(name, values, columns[1][0] if columns[1] else None)
    return _AGGREGATES[name](values)


def _numbers(name: str, values: list[Any]) -> list[Any]:
    for value in values:
        if not is_number(value):
            raise QueryError(f"{name}() takes numbers, not {type_of(value)}")
    return values


def _sum(values: list[Any]) -> Any:
    total = sum(_numbers("sum", values))
    return integer(total) if isinstance(total, int) else total


def _average(values: list[Any]) -> Any:
    return math.fsum(_numbers("avg", values)) / len(values) if values else None


def _deviation(less: int) -> Callable[[list[Any]], float]:
    def deviation(values: list[Any]) -> float:
        numbers = _numbers("stDev", values)
        if len(numbers) - less < 1:
            return 0.0
        mean = math.fsum(numbers) / len(numbers)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / (len(numbers) - less))

    return deviation


def _percentile(name: str, values: list[Any], share: Any) -> Any:
    if not is_number(share) or not 0 <= share <= 1:
        raise QueryError(f"{name}() takes a share from 0.0 to 1.0")
    numbers = sorted(_numbers(name, values))
    if not numbers:
        return None
    place = share * (len(numbers) - 1)
    if name == "percentiledisc":
        return numbers[max(0, math.ceil(share * len(numbers)) - 1)]
    low, high = math.floor(place), math.ceil(place)
    return (
        float(numbers[low] * (1 - (place - low)) + numbers[high] * (place - low))
        if low != high
        else float(numbers[low])
    )


_AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "collect": list,
    "sum": _sum,
    "avg": _average,
    "min": lambda values: min(values, key=rank, default=None),
    "max": lambda values: max(values, key=rank, default=None),
    "stdev": _deviation(1),
    "stdevp": _deviation(0),
}

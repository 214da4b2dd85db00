"""Aggregates: what a group of rows comes to. Nulls are passed over."""

from __future__ import annotations

import math
from typing import Any

from atlas.cypher.interpret.values import integer, is_number, key, rank, type_of
from atlas.cypher.syntax import Call
from atlas.errors import QueryError

_KEPT = frozenset(("collect", "stdev", "stdevp", "percentilecont", "percentiledisc"))  # these need every value


class Aggregate:
    """One aggregate of one group: values are added row by row, what it comes to is asked at the end."""

    def __init__(self, call: Call) -> None:
        """Raises QueryError where the number of arguments is another."""
        self.name, self.distinct = call.name, call.distinct
        wanted = 2 if call.name.startswith("percentile") else 1
        if len(call.arguments) != wanted and not (call.name == "count" and not call.arguments):
            raise QueryError(f"{call.name}() takes {wanted} argument{'s' * (wanted > 1)}")
        self._seen: set[Any] = set()
        self._kept: list[Any] = []
        self._count = 0
        self._total: Any = 0
        self._best: Any = None
        self._share: Any = None

    def add(self, values: list[Any]) -> None:
        """The values of the arguments in one more row; none for count(*)."""
        value = values[0] if values else True
        if len(values) > 1 and self._share is None:
            self._share = values[1]
        if value is None or (self.distinct and not self._new(value)):
            return
        self._count += 1
        if self.name in ("sum", "avg"):
            self._total += self._number(value)
        elif self.name in ("min", "max"):
            better = self._count == 1 or (rank(value) < rank(self._best)) == (self.name == "min")
            self._best = value if better else self._best
        elif self.name in _KEPT:
            self._kept.append(value if self.name == "collect" else self._number(value))

    def result(self) -> Any:
        """What it comes to."""
        match self.name:
            case "count":
                return self._count
            case "sum":
                return integer(self._total) if isinstance(self._total, int) else self._total
            case "avg":
                return self._total / self._count if self._count else None
            case "min" | "max":
                return self._best
            case "collect":
                return self._kept
            case "stdev" | "stdevp":
                return self._deviation()
        return self._percentile()

    def _new(self, value: Any) -> bool:
        found = key(value)
        new = found not in self._seen
        self._seen.add(found)
        return new

    def _number(self, value: Any) -> Any:
        if not is_number(value):
            raise QueryError(f"{self.name}() takes numbers, not {type_of(value)}")
        return value

    def _deviation(self) -> float:
        less = self.name == "stdev"
        if len(self._kept) - less < 1:
            return 0.0
        mean = math.fsum(self._kept) / len(self._kept)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self._kept) / (len(self._kept) - less))

    def _percentile(self) -> Any:
        share, numbers = self._share, sorted(self._kept)
        if share is not None and not (is_number(share) and 0 <= share <= 1):
            raise QueryError(f"{self.name}() takes a share from 0.0 to 1.0")
        if not numbers or share is None:
            return None
        if self.name == "percentiledisc":
            return numbers[max(0, math.ceil(share * len(numbers)) - 1)]
        place = share * (len(numbers) - 1)
        low = math.floor(place)
        high = min(low + 1, len(numbers) - 1)
        return float(numbers[low] * (1 - (place - low)) + numbers[high] * (place - low))

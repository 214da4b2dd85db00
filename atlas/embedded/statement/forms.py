"""What the engine's text is made of: constants, variables, and what is said where it cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atlas.embedded.statement import types as t
from atlas.embedded.statement.types import Type


class NotAlike(Exception):
    """The engine is not known to answer this as Neo4j does; the argument says what."""


@dataclass(frozen=True)
class Bound:
    """What a variable stands for: the engine's text and the type."""

    text: str
    type: Type
    nullable: bool = False  # whether it may stand for nothing


Written = tuple[str, Type]
Scope = dict[str, Bound]


def literal(value: Any) -> str:
    """A plain value as the engine's text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, int) and value == -(1 << 63):
        raise NotAlike("the smallest INTEGER")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise NotAlike("a number that is not finite")
    # The engine's grammar has no sign of plus in an exponent.
    text = repr(value).replace("e+", "e")
    return f"({text})" if value < 0 else text


def single(types: list[Type], where: str) -> Type:
    found = t.joined(types)
    if found.kind == t.ANY:
        raise NotAlike(f"{where} with results of several types")
    return found

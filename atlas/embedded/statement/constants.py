"""A statement's parameters and constants, and the names that the engine is given for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.interpret.evaluate import computing
from atlas.cypher.words import words
from atlas.embedded.statement import types as t
from atlas.embedded.statement.forms import NotAlike
from atlas.embedded.statement.types import Type
from atlas.schema import FLOAT

LONG = 20  # values of a list from which on a join is quicker than a search in it

# What may be computed while a statement is looked at, outside its bounds: nothing that grows beyond its text.
_CHEAP = words(
    """
    abs sign round ceil floor sqrt exp log log10 pi e size isempty keys head last tail reverse substring left right
    trim ltrim rtrim tolower toupper coalesce nullif tointeger tofloat toboolean tostring
    """
)


def is_cheap(expression: s.Expression) -> bool:
    """Whether an expression may be computed before the statement runs."""
    return all(map(_is_cheap_itself, s.within(expression)))


def _is_cheap_itself(part: object) -> bool:
    if isinstance(part, s.Call):
        return part.name in _CHEAP
    lasting = isinstance(part, s.Binary) and part.operator == "=~"
    return not lasting and not isinstance(part, s.Subquery | s.Comprehension | s.Quantifier | s.Reduce)


class Constants:
    """What is known before the graph is read."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self.used_values = False  # whether the text depends on the parameters' values, not on their types alone
        self.passed: dict[str, tuple[str, bool]] = {}  # the engine's name: the parameter's, and whether without nulls
        self.computed: dict[str, Any] = {}  # the engine's name: a value of the statement's own
        self._variables = 0

    def variable(self) -> str:
        """A new variable's name."""
        self._variables += 1
        return f"v{self._variables}"

    def type(self, name: str) -> Type:
        """A parameter's type."""
        return t.type_of(self._parameters[name])

    def value(self, name: str) -> Any:
        """A parameter's value, which the text will then depend on."""
        self.used_values = True
        return self._parameters[name]

    def folded(self, expression: s.Expression) -> tuple[str, Any]:
        """A name and the value of an expression without variables."""
        if not is_cheap(expression):
            raise NotAlike("a constant that takes long to compute")
        if any(isinstance(part, s.Parameter) for part in s.within(expression)):
            self.used_values = True
        return "", computing(expression, self._parameters)({})

    def long_list(self, expression: s.Expression) -> list[Any] | None:
        """The value of an expression without variables where it is a list of more than LONG values."""
        if not is_cheap(expression):
            return None
        name = expression.name if isinstance(expression, s.Parameter) else None
        found = self._parameters[name] if name is not None else self.folded(expression)[1]
        if not isinstance(found, list) or len(found) <= LONG:
            return None
        self.used_values = True
        return found

    def given(self, name: str, without_nulls: bool = False) -> str:
        """The engine's name of a parameter."""
        for engine, known in self.passed.items():
            if known == (name, without_nulls):
                return engine
        engine = f"p{len(self.passed) + len(self.computed)}"
        self.passed[engine] = (name, without_nulls)
        return engine

    def parameter(self, name: str, value: Any) -> str:
        """The engine's name for a computed value."""
        engine = f"p{len(self.passed) + len(self.computed)}"
        self.computed[engine] = engine_value(value)
        return engine


def engine_value(value: Any, without_nulls: bool = False) -> Any:
    """A parameter's value as the engine takes it: a list of one kind of number."""
    if not isinstance(value, list):
        return value
    if without_nulls:
        value = [item for item in value if item is not None]
    type_ = t.type_of(value)
    return [float(item) for item in value] if type_.item == Type(FLOAT) else value

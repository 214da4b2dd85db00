"""Which Cypher a reader may run, and how: only what is known to read passes, and only what answers as Neo4j does.

Neither engine's read-only mode is a security boundary (LOAD reads any file, COPY and EXPORT write, CALL changes
settings), and LadybugDB's Cypher differs from Neo4j's without saying so. So a statement is

1. cut into tokens that no engine can read another way (atlas.cypher.tokens),
2. parsed by a grammar of reading clauses, functions from a list among them (atlas.cypher.parser),
3. checked against the schema and the types of its parameters, and written anew for the engine, as far as the engine is
   known to agree; the rest is computed in Python (atlas.embedded.statement).

Nothing of the text itself reaches the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

from atlas.cypher import syntax as s
from atlas.cypher.parser import parse
from atlas.embedded.statement.compile import Plan, compiled
from atlas.embedded.statement.constants import LONG
from atlas.embedded.statement.types import type_of
from atlas.errors import QueryError

_KEPT = 512  # plans
_plans: OrderedDict[Any, Plan] = OrderedDict()
_lock = Lock()


def guard(cypher: str, parameters: Mapping[str, Any] | None = None, *, trusted: bool = False) -> Plan:
    """The statement's plan, for parameters of these types.

    trusted: the project's own statement. Raises QueryRefused with what is refused and what to use instead; QueryError
    where the statement has no meaning, or a parameter has no value.
    """
    given = parameters or {}
    named = parameters_of(cypher)
    if missing := sorted(named - set(given)):
        raise QueryError(f"the statement needs a value for ${missing[0]}")
    if unknown := sorted(set(given) - named):
        raise QueryError(f"the statement has no parameter ${unknown[0]}")
    types = tuple((name, type_of(given[name]), _is_long(given[name])) for name in sorted(given))
    key = (cypher, types, trusted)
    with _lock:
        if key in _plans:
            _plans.move_to_end(key)
            return _plans[key]
    plan = compiled(cypher, given, trusted)
    if not plan.depends_on_values:
        with _lock:
            _plans[key] = plan
            while len(_plans) > _KEPT:
                _plans.popitem(last=False)
    return plan


@lru_cache(maxsize=_KEPT)
def parameters_of(cypher: str) -> frozenset[str]:
    """The names of the statement's parameters; raises QueryRefused."""
    return frozenset(part.name for part in s.within(parse(cypher).parts) if isinstance(part, s.Parameter))


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > LONG

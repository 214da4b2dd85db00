"""What may be null, and conditions that cannot hold where it is.

LadybugDB answers OPTIONAL MATCH, EXISTS { } and COUNT { } by a join on all that their conditions read of the clauses
before. Seen in version 0.22: a row in which one of those values is null finds nothing there, so that `x.label IS NULL`
or `x.label = 'a' OR y.layer = 9` is never true of it. A condition is safe where null would make it untrue anyway.
"""

from __future__ import annotations

from atlas.cypher import syntax as s
from atlas.cypher.scope import free
from atlas.embedded.statement import types as t
from atlas.embedded.statement.forms import Scope
from atlas.schema import EDGE_OF_SITE, FEATURE

_ALWAYS = {FEATURE: {"id", "dictionary", "model", "layer", "site", "depth", "index", "dead"}}
_ALWAYS |= {type_: {"similarity"} for type_ in EDGE_OF_SITE.values()}
_COMPARISONS = ("=", "<>", "<", "<=", ">", ">=", "STARTS WITH", "ENDS WITH", "CONTAINS", "=~")
_ARITHMETIC = ("+", "-", "*", "/", "%", "^")
_OF_ONE = ("abs", "floor", "ceil", "tofloat", "tointeger", "tostring", "toboolean", "size")  # null of null


def may_be_null(expression: s.Expression, scope: Scope) -> bool:
    """Whether it is null for some row; False only where that is known."""
    if isinstance(expression, s.Variable):
        bound = scope.get(expression.name)
        return bound is None or bound.nullable
    if isinstance(expression, s.Property) and isinstance(expression.subject, s.Variable):
        bound = scope.get(expression.subject.name)
        if bound is None or bound.nullable or bound.type.kind not in (t.NODE, t.RELATIONSHIP):
            return True
        return any(expression.name not in _ALWAYS.get(name, {"id"}) for name in bound.type.names)
    if isinstance(expression, s.Binary) and expression.operator in (*_COMPARISONS, *_ARITHMETIC, "AND", "OR"):
        return may_be_null(expression.left, scope) or may_be_null(expression.right, scope)
    if isinstance(expression, s.Literal):
        return expression.value is None
    counts = isinstance(expression, s.Call) and expression.name == "count"
    return not (counts or isinstance(expression, s.IsNull))


def fails_with_null(condition: s.Expression, names: set[str], scope: Scope) -> bool:
    """Whether the condition is false or null wherever what it reads of the variables `names` is null."""
    if not _nulls(condition, names, scope):
        return True
    if isinstance(condition, s.Binary) and condition.operator == "AND":
        return all(fails_with_null(side, names, scope) for side in (condition.left, condition.right))
    if isinstance(condition, s.Binary) and condition.operator == "IN":
        return _strict(condition.left) and not _nulls(condition.right, names, scope)
    if isinstance(condition, s.IsNull):
        return condition.negated and _strict(condition.operand)
    return _strict(condition)


def _nulls(expression: s.Expression, names: set[str], scope: Scope) -> bool:
    """Whether it reads something of the variables that may be null."""
    if not free(expression) & names:
        return False
    read = [part for part in s.within(expression) if isinstance(part, s.Property | s.Variable)]
    # A node whose property alone is read is read no other way.
    subjects = {id(part.subject) for part in read if isinstance(part, s.Property)}
    return any(may_be_null(part, scope) for part in read if id(part) not in subjects and free(part) & names)


def _strict(expression: s.Expression) -> bool:
    """Whether it is null as soon as anything in it is."""
    if isinstance(expression, s.Literal | s.Parameter | s.Variable):
        return True
    if isinstance(expression, s.Property):
        return _strict(expression.subject)
    if isinstance(expression, s.Unary):
        return _strict(expression.operand)
    if isinstance(expression, s.Binary) and expression.operator in (*_COMPARISONS, *_ARITHMETIC):
        return _strict(expression.left) and _strict(expression.right)
    return isinstance(expression, s.Call) and expression.name in _OF_ONE and all(map(_strict, expression.arguments))

"""Functions and aggregates as LadybugDB's text, for the types for which they agree with Neo4j's."""

from __future__ import annotations

from atlas.cypher import syntax as s
from atlas.embedded.statement import types as t
from atlas.embedded.statement.forms import NotAlike, Written, single
from atlas.embedded.statement.types import Type
from atlas.errors import QueryError
from atlas.schema import BOOLEAN, FLOAT, INTEGER, STRING

# Of the project's own statements, which compare their results with themselves: upper and lower case of a few letters
# (İ, ß, a final Σ) is not what Java makes of them.
_TRUSTED = {"tolower": "lower", "replace": "replace"}
_ELEMENTS = {"nodes": "nodes", "relationships": "rels"}


def written_call(name: str, arguments: list[Written], trusted: bool) -> Written:
    """The call as text; raises NotAlike."""
    types = [type_ for _, type_ in arguments]
    texts = [text for text, _ in arguments]
    if name == "coalesce" and arguments:
        return f"coalesce({', '.join(texts)})", single(types, "coalesce()")
    if len(arguments) == 1:
        if types[0].kind == t.NULL:
            return "null", Type(t.NULL)
        if found := _of_one(name, texts[0], types[0]):
            return found
    if name == "range" and len(arguments) == 2 and all(type_.kind == INTEGER for type_ in types):
        return f"range({', '.join(texts)})", t.list_of(Type(INTEGER))
    if name in _TRUSTED and trusted and all(type_.kind == STRING for type_ in types):
        return f"{_TRUSTED[name]}({', '.join(texts)})", Type(STRING)
    raise NotAlike(f"{name}()")


def _of_one(name: str, text: str, type_: Type) -> Written | None:
    kind = type_.kind
    if name == "type" and kind == t.RELATIONSHIP:
        return f"(CASE WHEN id({text}) IS NULL THEN null ELSE label({text}) END)", Type(STRING)
    if name == "labels" and kind == t.NODE:
        return f"(CASE WHEN id({text}) IS NULL THEN null ELSE [label({text})] END)", t.list_of(Type(STRING))
    if kind == t.PATH:
        if name == "length":
            return f"length({text})", Type(INTEGER)
        if name in _ELEMENTS:
            item = t.node(t.ends(type_.names)) if name == "nodes" else t.relationship(type_.names)
            return f"{_ELEMENTS[name]}({text})", t.list_of(item)
    if name == "size" and kind == t.LIST:
        return f"size({text})", Type(INTEGER)
    if name == "abs" and kind in t.NUMBERS:
        return f"abs({text})", type_
    if name in ("floor", "ceil") and kind in t.NUMBERS:
        return f"{name}(CAST({text} AS DOUBLE))", Type(FLOAT)
    if name == "tofloat" and kind in t.NUMBERS:
        return f"CAST({text} AS DOUBLE)", Type(FLOAT)
    if (name, kind) in (("tointeger", INTEGER), ("tostring", STRING), ("toboolean", BOOLEAN)):
        return text, type_
    if name == "tostring" and kind == INTEGER:
        return f"CAST({text} AS STRING)", Type(STRING)
    return None


def written_aggregate(node: s.Call, arguments: list[Written], ordered: bool) -> Written:
    """The aggregate as text; raises NotAlike. ordered: whether collect() would have to keep an order."""
    if not arguments:
        return "count(*)", Type(INTEGER)
    text, type_ = arguments[0]
    if len(arguments) != 1 or type_.kind in (t.NULL, t.ANY, t.PATH):
        raise NotAlike(f"{node.name}() of such values")
    distinct = "DISTINCT " if node.distinct else ""
    elements = (t.NODE, t.RELATIONSHIP)
    if node.name == "count":
        if type_.kind not in (*t.PLAIN, *elements):
            raise NotAlike("count() of lists and maps")
        return f"count({distinct}{f'id({text})' if type_.kind in elements else text})", Type(INTEGER)
    if node.name == "collect":
        if ordered or (node.distinct and type_.kind not in (*t.PLAIN, t.NODE)) or type_.kind == t.LIST:
            raise NotAlike("collect() in an order")
        return f"collect({distinct}{text})", t.list_of(type_)
    if node.name in ("sum", "avg") and type_.kind not in t.NUMBERS:
        raise QueryError(f"{node.name}() takes numbers, not {t.SHOWN.get(type_.kind, type_.kind)}")
    if node.name == "sum":
        # A sum of INTEGERs has 128 bits, and is null where there is nothing to add.
        if type_.kind == INTEGER:
            return f"coalesce(CAST(sum({distinct}{text}) AS INT64), 0)", Type(INTEGER)
        return f"coalesce(sum({distinct}{text}), 0.0)", Type(FLOAT)
    if node.name == "avg":
        return f"avg({distinct}{text})", Type(FLOAT)
    if node.name in ("min", "max") and type_.kind in (*t.NUMBERS, STRING):
        return f"{node.name}({text})", type_
    raise NotAlike(f"{node.name}() of {type_.kind}")

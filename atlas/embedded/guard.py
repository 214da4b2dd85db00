"""Which Cypher a reader may run: the text is cut into tokens, and only what is known to read passes.

Neither engine's read-only mode is a security boundary (LOAD reads any file, COPY and EXPORT write, CALL changes
settings), so the guard works from lists of what is allowed (`atlas.embedded.cypher_words`):

1. Tokens. Strings, backticked names and comments are recognised exactly. Anything but ASCII outside them, control
   characters, and escapes that the engines read differently are refused. Comments never reach the engine.
2. Words. A name after `.`, `:` or AS, or before `:` in a map, is a name. Any other word that follows a finished
   expression must be a keyword of a reading clause, and none may be a word of a writing or administrative statement.
3. Calls. A word before `(` must be a function of the list.
4. One statement, beginning with a reading clause.

What passes is handed on as a `Statement`, the names that LadybugDB reserves in backticks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from atlas.embedded.cypher_tokens import NOTHING, OPEN, PAIRS, Token, check_brackets, tokens_of
from atlas.embedded.cypher_words import (
    ENDINGS,
    ENGINE_IDS,
    FORBIDDEN,
    FUNCTIONS,
    KEYWORDS,
    RESERVED_NAMES,
    RESERVED_VARIABLES,
    STARTS,
)
from atlas.errors import QueryRefused

_READING = "only MATCH, OPTIONAL MATCH, UNWIND, WITH, WHERE, RETURN, ORDER BY, SKIP, LIMIT and UNION are allowed"


@dataclass(frozen=True)
class Statement:
    """A statement that may run."""

    text: str  # what the engine is given
    parameters: frozenset[str]  # names of its $parameters
    open_end: bool  # whether a LIMIT may be appended: its last RETURN has none, and there is no UNION
    columns: tuple[str, ...] | None  # its columns as written; None where RETURN * or UNION leaves them to the engine


@lru_cache(maxsize=512)
def guard(cypher: str) -> Statement:
    """The statement, checked.

    Raises QueryRefused with what is refused and what to use instead.
    """
    tokens = tokens_of(cypher)
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    if not tokens:
        raise QueryRefused("the statement is empty; one looks like: MATCH (f:Feature) RETURN f.id LIMIT 10")
    check_brackets(tokens)
    tokens = _with_names(tokens)
    if tokens[0].word not in STARTS:
        raise QueryRefused(f"a statement may not begin with {_shown(tokens[0])}: {_READING}")
    for place, token in enumerate(tokens):
        before, after = (tokens[place - 1] if place else NOTHING), tokens[place + 1 : place + 2]
        if token.text == ";":
            raise QueryRefused("only one statement at a time; send each on its own, without ;")
        if after and after[0].text == "(":
            _check_call(token, before)
        if token.word:
            _check_word(token, before, place > 1 and tokens[place - 2].word in ("return", "with", "distinct"))
    last = _last_return(tokens)
    union = any(token.word == "union" for token in tokens)
    return Statement(
        "".join(f"{' ' if token.gap else ''}{_written(token)}" for token in tokens).strip(),
        frozenset(token.text[1:].strip("`") for token in tokens if token.kind == "parameter"),
        bool(last) and not union and all(token.word != "limit" for token in last),
        None if union else _columns(last),
    )


def _with_names(tokens: list[Token]) -> list[Token]:
    """Mark words that can only be names: after `.`, `:`, AS and between types, or keys of a map."""
    marked: list[Token] = []
    brackets: list[str] = []
    for place, token in enumerate(tokens):
        before = marked[-1] if marked else NOTHING
        if token.kind == "word":
            after = tokens[place + 1].text if place + 1 < len(tokens) else ""
            key = after == ":" and before.text in ("{", ",") and brackets[-1:] == ["{"]
            type_ = before.text in ("|", "&") and _in_types(marked)
            if key or type_ or before.text in (".", ":") or before.word == "as":
                token = replace(token, is_name=True)
        elif token.text in OPEN:
            brackets.append(token.text)
        elif token.text in PAIRS:
            brackets.pop()
        marked.append(token)
    return marked


def _in_types(marked: list[Token]) -> bool:
    """Whether the tokens end within labels or types, as in `[r:A|B|`."""
    for token in reversed(marked):
        if token.text == ":":
            return True
        if not (token.text in ("|", "&") or token.kind == "quoted" or token.is_name):
            return False
    return False


def _check_call(token: Token, before: Token) -> None:
    """Refuse calls of functions that are not of the list; `token` stands before a bracket."""
    if token.kind not in ("word", "quoted"):
        return
    name = token.text.strip("`").lower()
    dotted = before.text == "."
    if not dotted and (name in FUNCTIONS or token.word in KEYWORDS):
        return
    if name in FORBIDDEN:
        raise QueryRefused(f"{token.text.upper()} is not allowed: {_READING}")
    if name in ENGINE_IDS:
        raise QueryRefused(f"{name}() is not allowed: it belongs to the engine; use a property, e.g. f.id")
    raise QueryRefused(
        f"the function {'.' if dotted else ''}{name}() is not allowed; there are count, collect, min, max, avg, sum, "
        "coalesce, size, nodes, relationships, length, type, labels, list_…, regexp_…, and others that only compute"
    )


def _check_word(token: Token, before: Token, projected: bool) -> None:
    """Refuse words of other statements, and any unknown word where a clause could begin.

    `projected`: whether the token before stands directly after RETURN, WITH or DISTINCT.
    """
    if token.word in FORBIDDEN:
        raise QueryRefused(f"{token.text.upper()} is not allowed: {_READING}; a name goes into `backticks`")
    complete = (
        before.kind in ("string", "quoted", "parameter", "number")
        or before.text in PAIRS
        or before.is_name
        or before.word in ENDINGS
        or (before.kind == "word" and before.word not in KEYWORDS)
        or (before.text == "*" and projected)
    )
    if complete and token.word not in KEYWORDS:
        raise QueryRefused(f"{_shown(token)} is not expected after {_shown(before)}: {_READING}")
    if before.word == "union" and token.word not in STARTS | {"all", "distinct"}:
        raise QueryRefused(f"{_shown(token)} is not expected after UNION: {_READING}")


def _shown(token: Token) -> str:
    return token.text if len(token.text) < 40 else f"{token.text[:36]}…"


def _written(token: Token) -> str:
    """The token as the engine is given it: names that it reserves in backticks."""
    reserved = RESERVED_NAMES if token.is_name else RESERVED_VARIABLES
    return f"`{token.text}`" if token.kind == "word" and token.text.lower() in reserved else token.text


def _last_return(tokens: list[Token]) -> list[Token]:
    """The tokens after the last RETURN outside brackets."""
    depth = 0
    for place in range(len(tokens) - 1, -1, -1):
        depth += (tokens[place].text in PAIRS) - (tokens[place].text in OPEN)
        if depth == 0 and tokens[place].word == "return":
            return tokens[place + 1 :]
    return []


def _columns(last: list[Token]) -> tuple[str, ...] | None:
    """Names of the columns: the alias, else the expression as written, as Neo4j names them."""
    items: list[list[Token]] = [[]]
    depth = 0
    for token in last[1:] if last and last[0].word == "distinct" else last:
        depth += (token.text in OPEN) - (token.text in PAIRS)
        if depth == 0 and token.word in ("order", "skip", "limit"):
            break
        if depth == 0 and token.text == ",":
            items.append([])
        else:
            items[-1].append(token)
    if any(not item or item[0].text == "*" for item in items):
        return None
    return tuple(_column(item) for item in items)


def _column(item: list[Token]) -> str:
    if len(item) > 1 and item[-2].word == "as":
        item = item[-1:]
    if len(item) == 1 and item[0].kind == "quoted":
        return item[0].text[1:-1].replace("``", "`")
    return "".join(f"{' ' if token.gap else ''}{token.text}" for token in item).strip()

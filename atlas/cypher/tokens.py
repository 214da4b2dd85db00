"""A Cypher statement cut into tokens, so exactly that no engine can read it another way.

Refused is what the engines' lexers read differently: characters other than ASCII outside strings, names and comments,
control characters, escapes beyond the common ones, numbers that run into words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from atlas.errors import QueryRefused

MAX_LENGTH = 100_000  # characters; longer lists belong in a parameter
MAX_DEPTH = 100  # nested brackets: deep ones overflow the engines' recursive parsers

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n]+|//[^\n]*|/\*.*?\*/)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<quoted>(?:`[^`]*`)+)
      | (?P<parameter>\$(?:\w+|`[^`]*`))
      | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<operator>\.\.|/(?!\*)|[-()\[\]{}<>=+*%^.,:|!&~;])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
OPEN, PAIRS = frozenset("([{"), {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Token:
    """A piece of a statement."""

    kind: str  # string, quoted, parameter, number, word or operator
    text: str  # as written
    gap: bool  # whether space or a comment stands before it


NOTHING = Token("", "", False)


def tokens_of(cypher: str) -> list[Token]:
    """Cut the text; comments and white space are dropped. Raises QueryRefused."""
    text = cypher.replace("\r\n", "\n")
    if len(text) > MAX_LENGTH:
        raise QueryRefused(f"a statement may have {MAX_LENGTH} characters; pass long lists as a $parameter")
    if unsafe := _UNSAFE.search(text):
        raise QueryRefused(f"the character U+{ord(unsafe[0]):04X} is not allowed; use spaces and line feeds")
    tokens: list[Token] = []
    place, gap = 0, False
    while place < len(text):
        found = _TOKEN.match(text, place)
        if not found:
            raise QueryRefused(_unreadable(text, place))
        place, kind = found.end(), str(found.lastgroup)
        if kind == "string":
            _check_escapes(found[0])
        # `1.CREATE` and `1e` are cut differently by different lexers.
        if kind == "number" and re.match(r"\.(?!\.)|\w", text[place : place + 2]):
            raise QueryRefused(f"{found[0]}{text[place]} is not a number; write it as 1, 1.0 or 1e5")
        if kind in ("space", "quoted", "parameter") and "\\u" in found[0].lower():
            raise QueryRefused(r"\u is not allowed in comments and names; write the character itself")
        if kind != "space":
            tokens.append(Token(kind, found[0], gap))
        gap = kind == "space"
    return tokens


def _unreadable(text: str, place: int) -> str:
    """Why no token begins here."""
    character = text[place]
    if character in "'\"`":
        return f"a string or name that begins with {character} is not closed"
    code = "" if " " < character <= "~" else f" (U+{ord(character):04X})"
    return f"the character {character!r}{code} is not allowed outside strings, `names` and comments; use plain ASCII"


def _check_escapes(string: str) -> None:
    r"""Refuse what the engines read differently: Neo4j resolves \u0027 before it looks for the string's end."""
    if re.search(r"\\u", string, re.IGNORECASE):
        raise QueryRefused(r"\u is not allowed in a string; write the character itself or pass a $parameter")
    for found in _ESCAPE.finditer(string):
        if found[1] not in "\\'\"bfnrt":
            raise QueryRefused(f"the escape {found[0]} is not allowed; write \\{found[0]} or pass a $parameter")


def check_brackets(tokens: list[Token]) -> None:
    """Raise QueryRefused where brackets do not match or are nested too deep."""
    brackets: list[str] = []
    for token in tokens:
        if token.text in OPEN:
            brackets.append(token.text)
        elif token.text in PAIRS and (not brackets or brackets.pop() != PAIRS[token.text]):
            raise QueryRefused(f"a {token.text} has no {PAIRS[token.text]} before it")
        if len(brackets) > MAX_DEPTH:
            raise QueryRefused(f"brackets are nested more than {MAX_DEPTH} deep")
    if brackets:
        raise QueryRefused(f"a {brackets[-1]} is not closed")

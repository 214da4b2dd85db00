"""A place in a statement's tokens, and what a parser asks of it."""

from __future__ import annotations

from typing import NoReturn

from atlas.cypher.tokens import NOTHING, Token
from atlas.cypher.words import FORBIDDEN, KEYWORDS
from atlas.errors import QueryRefused

READING = "only MATCH, OPTIONAL MATCH, UNWIND, WITH, WHERE, RETURN, ORDER BY, SKIP, LIMIT and UNION are allowed"


class Cursor:
    """The tokens that are still to be read."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.place = 0
        self._taken = {token.text.strip("`") for token in tokens}
        self._made = 0
        self.made: set[str] = set()  # variables that the parser named

    def peek(self, ahead: int = 0) -> Token:
        """The token so many ahead; an empty one past the end."""
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else NOTHING

    def at(self, *words: str) -> bool:
        """Whether these words or signs come next, one after the other."""
        return all(self._is(self.peek(ahead), word) for ahead, word in enumerate(words))

    def take(self, *words: str) -> bool:
        """Read these words if they come next."""
        if not self.at(*words):
            return False
        self.place += len(words)
        return True

    def need(self, *words: str) -> None:
        """Read these words; raises QueryRefused where something else comes."""
        if not self.take(*words):
            self.refuse(f"; {' '.join(words).upper()} is missing")

    def next(self) -> Token:
        """Read a token."""
        token = self.peek()
        if token is NOTHING:
            self.refuse()
        self.place += 1
        return token

    def name(self) -> str:
        """Read a name where only a name can stand: after `.`, `:` or AS, as a key."""
        token = self.next()
        if token.kind == "quoted":
            return token.text[1:-1].replace("``", "`")
        if token.kind != "word":
            self.place -= 1
            self.refuse()
        return token.text

    def variable(self) -> str:
        """Read a variable's name; words of other statements and of this grammar are none."""
        token = self.peek()
        if token.kind == "word" and token.text.lower() in FORBIDDEN:
            raise QueryRefused(f"{token.text.upper()} is not allowed: {READING}; a name goes into `backticks`")
        return self.name()

    def unnamed(self) -> str:
        """A variable for a part of a pattern that has none, and that no word of the statement is."""
        while True:
            self._made += 1
            if (name := f"_{self._made}") not in self._taken:
                self.made.add(name)
                return name

    def at_variable(self) -> bool:
        """Whether a name comes next that a variable can have."""
        token = self.peek()
        return token.kind == "quoted" or (token.kind == "word" and token.text.lower() not in KEYWORDS)

    def text(self, start: int) -> str:
        """What was read since the token `start`, as written."""
        shown = self.tokens[start : self.place]
        if len(shown) == 1 and shown[0].kind == "quoted":
            return shown[0].text[1:-1].replace("``", "`")
        return "".join(f"{' ' if token.gap else ''}{token.text}" for token in shown).strip()

    def refuse(self, why: str = "") -> NoReturn:
        """Raise QueryRefused at this place."""
        token, before = self.peek(), self.tokens[self.place - 1] if self.place else NOTHING
        word = token.text.lower() if token.kind == "word" else ""
        if word in FORBIDDEN:
            raise QueryRefused(f"{token.text.upper()} is not allowed: {READING}; a name goes into `backticks`")
        if token.text == ";":
            raise QueryRefused("only one statement at a time; send each on its own, without ;")
        here = _shown(token) if token.text else "the end"
        after = f" after {_shown(before)}" if before.text else ""
        raise QueryRefused(f"{here} is not expected{after}{why}: {READING}")

    @staticmethod
    def _is(token: Token, word: str) -> bool:
        return token.text.lower() == word if token.kind == "word" else token.kind == "operator" and token.text == word


def _shown(token: Token) -> str:
    return token.text if len(token.text) < 40 else f"{token.text[:36]}…"

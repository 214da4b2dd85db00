"""Regular expressions that Java (Neo4j), RE2 (LadybugDB) and Python read alike."""

from __future__ import annotations

import re
from functools import lru_cache

from atlas.errors import QueryError

_CLASS = r"\[\^?(?:\\[dDwWsStnrf\\\]\[^.$|?*+(){}/-]|[^\\\[\]&\n])+\]"
_REPEAT = r"(?:[*+?]|\{\d{1,3}(?:,\d{0,3})?\})\??(?![*+?{])"
# Characters, classes, groups and repetitions; no look-around, back references, possessive or named groups.
_PIECE = re.compile(
    rf"""(?:(?P<open>\((?:\?:|\?i\)(?=.))?) | (?P<close>\)) | \| | \^ | \$
      | (?P<atom>\\[dDwWsSbBtnrf\\.$^|?*+()\[\]{{}}/"'`<>=!@#%&~:;,_ -] | {_CLASS} | [^\\\[\](){{}}|^$*+?]))
      (?P<repeat>{_REPEAT})?""",
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=64)
def checked_regex(pattern: str) -> re.Pattern[str]:
    """The expression; raises QueryError where it is none, or one that the stores read differently."""
    place = 0
    while place < len(pattern):
        # (?i) is a flag for all that follows, not a group.
        if place == 0 and pattern.startswith("(?i)"):
            place = 4
            continue
        found = _PIECE.match(pattern, place)
        if (
            not found
            or not found[0]
            or found["open"] == "(?i)"
            or (found["repeat"] and not (found["atom"] or found["close"]))
        ):
            raise QueryError(
                f"the regular expression {pattern[:60]!r} cannot be read at {pattern[place : place + 10]!r}: "
                "characters, . [a-z] \\d \\w \\s (…) | * + ? {m,n} and a leading (?i) are allowed; for part of a text "
                "use CONTAINS"
            )
        place = found.end()
    try:
        return re.compile(pattern, re.ASCII)
    except re.error as error:
        raise QueryError(f"the regular expression {pattern[:60]!r} cannot be read: {error}") from None

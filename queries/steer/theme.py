"""A theme's words, and finding them in text of any script, whatever form its accents have."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import PlanError

# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters.
_JOINED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_JOINED += "\U00020000-\U0003ffff"
# What is written onto letters, and is no letter to `re`: accents, Hebrew and Arabic points, Indic vowel signs, joiners.
_MARKS = "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u200c\u200d"
_LETTER = rf"[^\W{_JOINED}]"
_IN_WORD = rf"(?:{_LETTER}|[{_MARKS}])"
_START, _END = rf"(?<!{_LETTER})(?<![{_MARKS}])", rf"(?!{_IN_WORD})"


@dataclass(frozen=True)
class Theme:
    """Words to look for."""

    pattern: re.Pattern[str]  # finds them in text as `normal` makes it

    def findall(self, text: str) -> list[str]:
        """The words found, in order, in normal form."""
        return self.pattern.findall(normal(text))


def theme_pattern(words: Iterable[str]) -> Theme:
    """A theme that finds each word, whole, in any case; `*` at the end stands for any ending.

    In scripts without spaces a word is found wherever its characters stand. Raises PlanError where there is no word.
    """
    parts = [_part(normal(word)) for word in map(str.strip, words) if word.strip("*")]
    if not parts:
        raise PlanError("the theme has no words; give some, e.g. --words war,army,soldier*")
    return Theme(re.compile("|".join(parts)))


def _part(word: str) -> str:
    """The pattern of one word; where it begins or ends in a script without spaces it needs no boundary there."""
    stem = word.removesuffix("*")
    start, end = (_END if re.match(f"[{_JOINED}]", side) is None else "" for side in (stem[0], stem[-1]))
    ending = f"{_IN_WORD}*" if stem != word and end else ""
    return f"(?:{_START if start else ''}{re.escape(stem)}{ending}{end})"


def normal(text: str) -> str:
    """Text as it is compared: composed accents, no case, straight apostrophes."""
    folded = unicodedata.normalize("NFC", text).casefold().replace("’", "'")
    return unicodedata.normalize("NFC", folded.replace("i\u0307", "i"))  # Turkish İ


def read_words(given: str) -> list[str]:
    """Words separated by commas, or those of a file, one a line or separated by commas.

    Raises PlanError where the file is not UTF-8, with or without a byte order mark.
    """
    path = Path(given)
    if "," not in given and path.is_file():
        try:
            given = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise PlanError(f"the words in {path} are not UTF-8: save the file so") from None
    return [word for word in re.split(r"[,，、\n]", given) if word.strip()]

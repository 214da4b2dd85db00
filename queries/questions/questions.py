"""Named questions to an atlas: what each asks, its parameters, and how it is answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from atlas.errors import QueryError
from atlas.ids import ATT, MLP, SITES
from atlas.rows import Rows
from queries.questions.chains import longest_lived
from queries.questions.cypher import (
    ABOVE_FLOOR,
    ALIKE_AND_TOGETHER,
    ALIKE_AND_TOGETHER_ON_SERVER,
    ANCESTORS,
    BORN_HERE,
    DEAD,
    DESCENDANTS,
    DIES_HERE,
    HUBS,
    LIFECYCLE,
    LONGEST_LIVED,
    MERGES,
    MOST_TRANSFORMED,
    ORPHANS,
    PATH,
    SHARED_ANCESTORS,
    SILENT_MATCHES,
    SILENT_MATCHES_ON_SERVER,
    SIMILAR_TO,
    SPLITS,
    STRONGEST,
    STRONGEST_ON_SERVER,
    STRONGEST_PUSH,
    STRONGEST_PUSH_ON_SERVER,
    TURNOVER,
    TWINS,
    UNEXPLAINED,
    UNLIKE_TOGETHER,
    WRITES,
    WRITTEN_BY,
)
from queries.questions.similar import similar_to

if TYPE_CHECKING:
    from atlas.atlas import Atlas


@dataclass(frozen=True)
class Parameter:
    """A value that a question can be given."""

    default: Any
    kind: type  # int, float or str
    about: str  # one line; where the default is None it says what that means
    choices: tuple[str, ...] = ()  # the only values, where they are few


@dataclass(frozen=True)
class Question:
    """A question with a name; every row of its answer is flat."""

    name: str
    about: str  # one line
    cypher: str  # one statement, the same for every store
    features: tuple[str, ...] = ()  # parameters that are features; of two, the later one first
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    # Gives the same rows as the statement where an engine has not the memory for it on a large atlas.
    answer: Callable[..., list[dict[str, Any]]] | None = None
    on_server: str | None = None  # a statement with the same rows, which a server answers sooner
    by_rows: bool = False  # its statement is a server's that has vectors; elsewhere rows are needed

    @property
    def columns(self) -> list[str]:
        """Names of the answer's columns, in order."""
        result = self.cypher.rpartition("RETURN ")[2].partition("\nORDER BY")[0]
        # Commas within parentheses part a function's arguments, not columns.
        return [part.split(" AS ")[-1].strip() for part in re.split(r",(?![^()]*\))", result)]


_LAYER = Parameter(None, int, "only this layer; null: all")
_SITE = Parameter(None, str, "only features of this site; null: all", SITES)
_MODULE = Parameter(MLP, str, "which module", (MLP, ATT))
_STRONG = Parameter(0.5, float, "smallest cosine of a step")
_ANY = Parameter(0.0, float, "smallest cosine of a step")
_ONE, _TWO = ("feature",), ("later", "earlier")

_ALL = (
    Question("ancestors", "all that its best matches lead back to", ANCESTORS, _ONE, {"min_similarity": _ANY}),
    Question(
        "descendants",
        "all later features it leads to, each step the best",
        DESCENDANTS,
        _ONE,
        {"min_similarity": _ANY},
    ),
    Question("shared-ancestors", "where the lineages of two features meet, nearest first", SHARED_ANCESTORS, _TWO),
    Question("path", "best matches from one feature to another, edge by edge, followed from either end", PATH, _TWO),
    Question(
        "similar-to",
        "features whose decoder rows are nearest, in every dictionary",
        SIMILAR_TO,
        _ONE,
        answer=partial(similar_to, cypher=SIMILAR_TO),
        by_rows=True,
    ),
    Question("writes", "residual features that a feature of an MLP or attention writes", WRITES, _ONE),
    Question(
        "born-here",
        "features that a module made in this layer, strongest first",
        BORN_HERE,
        (),
        {"layer": _LAYER},
    ),
    Question("dies-here", "features that nothing in the next layer continues", DIES_HERE, (), {"layer": _LAYER}),
    Question(
        "longest-lived",
        "longest chains of mutual best matches, unbroken",
        LONGEST_LIVED,
        (),
        {"min_similarity": _STRONG},
        longest_lived,
    ),
    Question(
        "most-transformed",
        "features that came down the stream and that a module wrote to, most first",
        MOST_TRANSFORMED,
        (),
        {"layer": _LAYER},
    ),
    Question("unexplained", "features that no earlier one is close to", UNEXPLAINED, (), {"layer": _LAYER}),
    Question("written-by", "features that one module writes most", WRITTEN_BY, (), {"site": _MODULE, "layer": _LAYER}),
    Question(
        "hubs",
        "earlier features that are the best match of most others",
        HUBS,
        (),
        {"site": _SITE, "layer": _LAYER},
    ),
    Question(
        "twins",
        "mutual best matches of neighbouring layers",
        TWINS,
        (),
        {"min_similarity": _ANY, "layer": _LAYER},
    ),
    Question(
        "splits",
        "features that several features of the next layer come from",
        SPLITS,
        (),
        {"min_similarity": _STRONG, "layer": _LAYER},
    ),
    Question(
        "merges",
        "features that several features of the layer before go into",
        MERGES,
        (),
        {"min_similarity": _STRONG, "layer": _LAYER},
    ),
    Question(
        "strongest",
        "edges of the highest cosine",
        STRONGEST,
        (),
        {"site": _SITE, "layer": _LAYER},
        on_server=STRONGEST_ON_SERVER,
    ),
    Question(
        "strongest-push",
        "edges along which one unit of the earlier adds most to the later",
        STRONGEST_PUSH,
        (),
        {"site": _SITE, "layer": _LAYER},
        on_server=STRONGEST_PUSH_ON_SERVER,
    ),
    Question(
        "orphans",
        "MLP and attention features that are no residual feature's best match",
        ORPHANS,
        (),
        {"site": _SITE, "layer": _LAYER},
    ),
    Question("lifecycle", "how many features persist, transform, appear … by layer and origin", LIFECYCLE),
    Question("turnover", "shares of each layer that are kept, born, unexplained, about to vanish", TURNOVER),
    Question("above-floor", "share of best matches above the noise floor, by pair of dictionaries", ABOVE_FLOOR),
    Question(
        "alike-never-together",
        "matches whose earlier feature never fires where the later does (after evidence edges)",
        SILENT_MATCHES,
        (),
        {"min_similarity": _STRONG, "site": _SITE, "layer": _LAYER},
        on_server=SILENT_MATCHES_ON_SERVER,
    ),
    Question(
        "together-not-alike",
        "features that fire together and are no matches by cosine (after evidence edges)",
        UNLIKE_TOGETHER,
        (),
        {"min_cofire": Parameter(0.5, float, "smallest share"), "site": _SITE, "layer": _LAYER},
    ),
    Question(
        "alike-and-together",
        "matches of the highest cosine times correlation (after evidence edges)",
        ALIKE_AND_TOGETHER,
        (),
        {"site": _SITE, "layer": _LAYER},
        on_server=ALIKE_AND_TOGETHER_ON_SERVER,
    ),
    Question("dead", "dictionaries by their share of dead features", DEAD),
)
QUESTIONS: dict[str, Question] = {question.name: question for question in _ALL}


def find_question(name: str) -> Question:
    """The question of that name; raises QueryError with the closest names."""
    if name not in QUESTIONS:
        import difflib

        close = difflib.get_close_matches(name, QUESTIONS, 3, 0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(QUESTIONS)}"
        raise QueryError(f"no question is called {name!r}; {hint}")
    return QUESTIONS[name]


def ask(atlas: Atlas, name: str, /, *features: str, limit: int = 20, **parameters: Any) -> Rows:
    """The rows that answer a named question, in a fixed order.

    features: ids, as many as the question is about; of two, either may come first. limit: most rows.
    Raises QueryError (no such question, parameter or value, another number of features) or UnknownFeature.

    Example:
        rows = ask(atlas, "born-here", layer=9)
        steps = ask(atlas, "path", "smollm2-135m-instruct/11-res-2k/355", "smollm2-135m-instruct/9-res-2k/2018")
    """
    question = find_question(name)
    if len(features) != len(question.features):
        count = ("no feature", "one feature", "two features")[len(question.features)]
        raise QueryError(f"{name} is asked about {count}, not {len(features)}")
    if limit < 1:
        raise QueryError("the limit must be at least 1")
    features = tuple(map(atlas.full_id, features))
    # An unknown id is an error here; in a statement it would be no rows.
    depths = {feature: atlas.locate(feature)[0].depth for feature in features}
    # Edges lead to earlier features only: the other way round a question would have no answer.
    ordered = sorted(features, key=lambda feature: -depths[feature])
    values = {key: parameter.default for key, parameter in question.parameters.items()}
    values |= {key: _checked(question, key, value) for key, value in parameters.items()}
    about = dict(zip(question.features, ordered, strict=True))
    if question.answer is not None:
        return Rows(question.answer(atlas, **about, **values, limit=limit), question.columns)
    there = question.on_server if atlas.manifest.store is not None else None
    return Rows(atlas.read(there or question.cypher, **about, **values, limit=limit), question.columns)


def _checked(question: Question, key: str, value: Any) -> Any:
    """The value as the engine takes it; a wrong type would be an engine's error or, worse, no rows."""
    parameter = question.parameters.get(key)
    if parameter is None:
        there = ", ".join(question.parameters) or "no parameters"
        raise QueryError(f"{question.name} has no parameter {key!r}; it has {there}")
    if value is None and parameter.default is None:
        return None
    kinds = (int, float) if parameter.kind is float else (parameter.kind,)
    # A bool is an int to Python.
    if isinstance(value, bool) or not isinstance(value, kinds):
        names = {int: "a whole number", float: "a number", str: "text"}
        raise QueryError(f"{key} of {question.name} is {names[parameter.kind]}, not {value!r}")
    if parameter.choices and value not in parameter.choices:
        raise QueryError(f"{key} of {question.name} is one of {', '.join(parameter.choices)}, not {value!r}")
    return value

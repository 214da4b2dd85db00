"""Constraints and indexes of an atlas in Neo4j."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from atlas.errors import StoreError
from atlas.schema import ATLAS, EDGE_OF_SITE, FEATURE, NODES
from atlas.server.connect import Connection

WRITER = "FeatureAtlasWriter"  # the lock: one node while somebody writes (atlas.server.lock)
WORDS = "feature_words"  # full-text index over labels and tokens
AWAIT = 600  # seconds that indexes may take to be populated

_INDEXES = {  # name -> properties of Feature; one of several serves only statements that bound all of them
    "feature_place": ("model", "layer", "site", "index"),
    "feature_dictionary": ("dictionary",),
    "feature_layer": ("layer",),
    "feature_site": ("site",),
    "feature_lifecycle": ("lifecycle",),
    "feature_vanishes": ("vanishes",),
}
_LOOKED_UP = "feature_dictionary"  # by whoever writes features
_FULL_TEXT = ("label", "fires_on", "promotes")
_ANALYZER = "standard-no-stop-words"
_THERE = f"SHOW INDEXES YIELD name, state, properties, options WHERE name = '{WORDS}' RETURN state, properties, options"
_LETTERS = re.compile("[a-z0-9]+")
_SHORTEST = 3  # letters and digits; shorter ones stand in nearly every feature, which are looked at faster one by one
# The analyzer breaks tokens after so many characters, and so what is looked for: features with such are looked at too.
_LONG = "/.{255}/"


def statements(*, filled: bool = True) -> list[str]:
    """The schema's statements, each of which may be repeated; not `filled`: those that a first write looks nodes up by.

    The others are made faster of nodes and edges that are there than kept up to date while they come.
    """
    # Each with a variable of its own: `neo4j-admin database import --schema`, where the server's edition has it, reads
    # the whole script as one statement.
    constraints = [unique(label) for label in (*(table.label for table in NODES), WRITER)]
    indexes = [
        f"CREATE INDEX {name} IF NOT EXISTS FOR ({name}:{FEATURE}) ON ({', '.join(f'{name}.`{p}`' for p in columns)})"
        for name, columns in _INDEXES.items()
        if filled or name == _LOOKED_UP
    ]
    if not filled:
        return [*constraints, *indexes]
    # What asks for best matches reads a sixth of the edges, and no property of the others.
    best = [
        f"CREATE INDEX best_{type_.lower()} IF NOT EXISTS FOR ()-[{type_.lower()}:{type_}]-() ON ({type_.lower()}.rank)"
        for type_ in EDGE_OF_SITE.values()
    ]
    texts = ", ".join(f"{WORDS}.{name}" for name in _FULL_TEXT)
    words = f"CREATE FULLTEXT INDEX {WORDS} IF NOT EXISTS FOR ({WORDS}:{FEATURE}) ON EACH [{texts}]"
    words += f" OPTIONS {{indexConfig: {{`fulltext.analyzer`: '{_ANALYZER}'}}}}"
    return [*constraints, *indexes, *best, words]


def unique(label: str) -> str:
    """The statement that makes the ids of a label's nodes unique; it may be repeated."""
    name = label.lower()
    return f"CREATE CONSTRAINT {name}_id IF NOT EXISTS FOR ({name}:{label}) REQUIRE {name}.id IS UNIQUE"


def has_words(connection: Connection) -> bool:
    """Whether the full-text index over labels and tokens is there, as `statements` makes it, and can be used."""
    return any(
        row["state"] == "ONLINE"
        and set(row["properties"]) == set(_FULL_TEXT)
        and row["options"]["indexConfig"].get("fulltext.analyzer") == _ANALYZER
        and not row["options"]["indexConfig"].get("fulltext.eventually_consistent")
        for row in connection.read(_THERE)
    )


def full_text_query(words: Sequence[str]) -> str | None:
    """In Lucene's words: features in which the letters of each word (lower case) stand together, and a few more.

    A text that contains a word has its letters a to z and digits side by side, which the analyzer does not take apart
    (Unicode's word breaks, UAX 29); whatever else is in the word is left to the search to look at. None where no three
    of them stand together in any word.
    """
    runs = {run for word in words for run in _LETTERS.findall(word) if len(run) >= _SHORTEST}
    return f"({' '.join(f'+*{run}*' for run in sorted(runs))}) {_LONG}" if runs else None


def check_owner(connection: Connection, atlas: str | None = None) -> None:
    """Look before anything is written, constraints too: they would bind other programs.

    Raises StoreError where the database holds nodes of another program, or another atlas than the one of that id.
    """
    found = connection.run(
        f"MATCH (a:{ATLAS}) RETURN a.id AS id, a.format AS format, a.state AS state, keys(a) AS keys"
    )
    if not all(map(_is_own, found)):
        raise StoreError(
            f"{connection.address} holds a node {ATLAS} that is not of feature-atlas; name another --database or server"
        )
    others = [row["id"] for row in found if row["id"] != atlas]
    if atlas is not None and others:
        raise StoreError(
            f"{connection.address} holds another atlas (id {others[0]}), which would be lost; name another --database "
            f"or server, or read that one with -a {connection.address}"
        )
    labels = [table.label for table in NODES if table.label != ATLAS]
    if not found and connection.run(f"MATCH (n:{'|'.join(labels)}) RETURN count(n) AS n")[0]["n"]:
        raise StoreError(
            f"{connection.address} holds nodes of labels that an atlas uses ({', '.join(labels)}) and no atlas; name "
            "another --database or server"
        )


def _is_own(found: dict[str, Any]) -> bool:
    """Whether an Atlas node is this project's: whole, or of a first write that was broken off."""
    keys = set(found["keys"])
    # `previous` is what the node had instead of `base` once.
    begun = found["state"] is None and {"id", "base", "indexed", "previous"}.issuperset(keys)
    whole = isinstance(found["format"], int) and {"k", "thresholds"}.issubset(keys)
    return isinstance(found["id"], str) and (begun or whole)


def is_filled(connection: Connection) -> bool:
    """Whether the database holds features."""
    return bool(connection.run(f"MATCH (f:{FEATURE}) RETURN f.id AS id LIMIT 1"))


def create_schema(connection: Connection, *, filled: bool = True) -> None:
    """Make what is missing, and wait until all of it can be used; an atlas that is there is marked as indexed.

    filled: as for `statements`.
    """
    for statement in statements(filled=filled):
        connection.run(statement)
    connection.run("CALL db.awaitIndexes($seconds)", {"seconds": AWAIT})
    if filled:
        connection.run(f"MATCH (a:{ATLAS}) SET a.indexed = true")

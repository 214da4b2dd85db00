"""Constraints and indexes of an atlas in Neo4j."""

from __future__ import annotations

from atlas.neo4j_connect import Connection
from atlas.schema import FEATURE, NODES

WRITER = "Writer"  # the lock: one node while somebody writes (atlas.neo4j_lock)
WORDS = "feature_words"  # full-text index over labels and tokens
AWAIT = 600  # seconds that indexes may take to be populated

_INDEXES = {  # name -> properties of Feature
    "feature_place": ("model", "layer", "site", "index"),
    "feature_row": ("dictionary", "index"),
    "feature_lifecycle": ("lifecycle", "layer"),
    "feature_site": ("site", "layer"),
    "feature_vanishes": ("vanishes", "layer"),
}
_FULL_TEXT = ("label", "fires_on", "promotes")


def statements() -> list[str]:
    """The schema's statements; each may be repeated."""
    labels = [table.label for table in NODES] + [WRITER]
    unique = [
        f"CREATE CONSTRAINT {label.lower()}_id IF NOT EXISTS FOR (n:{label}) REQUIRE n.id IS UNIQUE" for label in labels
    ]
    indexes = [
        f"CREATE INDEX {name} IF NOT EXISTS FOR (n:{FEATURE}) ON ({', '.join(f'n.`{p}`' for p in columns)})"
        for name, columns in _INDEXES.items()
    ]
    texts = ", ".join(f"n.{name}" for name in _FULL_TEXT)
    words = f"CREATE FULLTEXT INDEX {WORDS} IF NOT EXISTS FOR (n:{FEATURE}) ON EACH [{texts}]"
    return [*unique, *indexes, words]


def create_schema(connection: Connection) -> None:
    """Make what is missing, and wait until all of it can be used."""
    for statement in statements():
        connection.run(statement)
    connection.run("CALL db.awaitIndexes($seconds)", {"seconds": AWAIT})

"""Where a plan's features come from: the atlas folder, and its policy with the directions that it protects."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from atlas.errors import PolicyError, QueryError, UnknownFeature
from atlas.schema import FEATURE
from queries.lineage.walk import lineage
from queries.policy.rules import FILE, Rule, read_rules

if TYPE_CHECKING:
    import numpy as np

    from atlas.atlas import Atlas

MOST = 20_000  # protected features of a rule, lineages included
_LABELLED = f"MATCH (f:{FEATURE}) WHERE f.label =~ $pattern AND f.dead = false RETURN f.id AS id ORDER BY id"
_LEAST, _DEVIATIONS = 0.4, 5.0


@dataclass(frozen=True)
class Protected:
    """What one rule protects."""

    rule: Rule
    features: dict[str, str | None]  # id → the protected feature whose lineage it is on; None: it is one itself
    directions: np.ndarray = field(repr=False)  # float32 [n, d_model], unit, in the order of `features`
    cosine: float  # from which a direction counts as one of these


@dataclass(frozen=True)
class Home:
    """An atlas folder as a plan remembers it."""

    folder: Path
    sha256: str | None = None  # of its policy; None: it has none
    protected: tuple[Protected, ...] = field(default=(), repr=False)


_KNOWN: WeakKeyDictionary[Atlas, tuple[str, Home]] = WeakKeyDictionary()


def home_of(atlas: Atlas) -> Home | None:
    """The atlas' folder with its policy, as it stands now; None where the graph on a server is all there is.

    Raises PolicyError where the policy cannot be read, or a rule protects nothing: a plan is then not made at all.
    """
    if atlas.path is None:
        return None
    path = atlas.path / FILE
    # A broken link is no policy that is missing.
    if not path.exists() and not path.is_symlink():
        return Home(atlas.path)
    rules, sha256 = read_rules(path)
    if atlas not in _KNOWN or _KNOWN[atlas][0] != sha256:
        _KNOWN[atlas] = sha256, Home(atlas.path, sha256, tuple(_protected(atlas, rule) for rule in rules))
    return _KNOWN[atlas][1]


def chance(width: int) -> float:
    """A cosine with one direction that others reach by chance once in millions: five deviations, 1/√d each.

    Not below 0.4, which dictionaries' unrelated rows reach.
    """
    return min(0.95, max(_LEAST, _DEVIATIONS / math.sqrt(width)))


def _protected(atlas: Atlas, rule: Rule) -> Protected:
    where = f"rule {rule.name!r} of {FILE}"
    features: dict[str, str | None] = {}
    try:
        for given in (*rule.features, *rule.lineages):
            features[_living(atlas, given)] = None
        for given in rule.lineages:
            features |= {node.id: None for node in lineage(atlas, given).nodes}
        for pattern in rule.labels:
            # As a full match, without regard to case; (?s:…)\Z is how Python writes it.
            expression = f"(?i){translate(pattern).removeprefix('(?s:').removesuffix(')' + chr(92) + 'Z')}"
            found = [row["id"] for row in atlas.read(_LABELLED, pattern=expression)]
            if not found:
                raise PolicyError(
                    f"{where}: no label matches {pattern!r}, so it protects nothing; label the atlas first"
                )
            features |= dict.fromkeys(found)
        if rule.cypher:
            rows = atlas.query(rule.cypher)
            if not rows or "feature" not in rows[0]:
                raise PolicyError(f"{where}: its cypher gives no row with a column feature, so it protects nothing")
            features |= dict.fromkeys(_living(atlas, str(row["feature"])) for row in rows)
    except (UnknownFeature, QueryError) as error:
        raise PolicyError(f"{where}: {error}") from None
    if len(features) <= MOST and rule.by_lineage:
        for id_ in [*features]:
            for node in lineage(atlas, id_).nodes:
                features.setdefault(node.id, id_)
    if len(features) > MOST:
        raise PolicyError(f"{where} protects {len(features):,} features; at most {MOST:,} can be looked at: narrow it")
    directions = atlas.directions([*features])
    return Protected(rule, features, directions, rule.cosine or chance(directions.shape[1]))


def _living(atlas: Atlas, feature: str) -> str:
    """Its whole id; raises UnknownFeature, also where it has no direction."""
    id_ = atlas.full_id(feature)
    atlas.directions([id_])
    return id_

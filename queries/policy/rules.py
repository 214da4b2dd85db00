"""The rules of a policy, as `policy.toml` in the atlas folder has them.

    version = 1

    [[rule]]
    name = "no war"
    lineages = ["9-res-2k/1417"]      # also: features, labels (patterns), cypher (rows with a column feature)
    may_not = "amplify"               # or suppress, or both
    beyond = 4                        # a length, or "10%" of the norm; left out: not at all
    then = "refuse"                   # or warn
    reason = "decided on 1 May"

A key that is not known is an error, so that none is passed over.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.errors import PlanError, PolicyError
from queries.steer.strength import Strength

FILE = "policy.toml"
VERSION = 1
AMPLIFY, SUPPRESS, BOTH = "amplify", "suppress", "both"
REFUSE, WARN = "refuse", "warn"
_LISTS = ("features", "lineages", "labels")
_KEYS = ("name", *_LISTS, "cypher", "may_not", "beyond", "then", "cosine", "by_lineage", "reason")


@dataclass(frozen=True)
class Rule:
    """One rule."""

    name: str
    features: tuple[str, ...]  # ids
    lineages: tuple[str, ...]  # ids, each with all of its flow graph
    labels: tuple[str, ...]  # patterns of labels: * any characters, ? one, without regard to case
    cypher: str | None  # a query whose rows have a column feature
    may_not: str  # amplify, suppress or both
    beyond: Strength  # most that is allowed along a protected direction, summed over the plan
    then: str  # refuse, or warn and record
    cosine: float | None  # from which a direction counts as a protected one; None: what chance does not reach
    by_lineage: bool  # whether features that lead to a protected one, or come from it, are covered too
    reason: str | None  # shown to whoever meets it


def read_rules(path: Path) -> tuple[tuple[Rule, ...], str]:
    """The rules of a file, and its SHA-256; raises PolicyError where it is not one, or says what is not known."""
    try:
        content = path.read_bytes()
        values = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise PolicyError(
            f"the policy {path} cannot be read ({error.strerror}): nothing is steered without it"
        ) from None
    except ValueError as error:
        raise PolicyError(f"{path} is not TOML: {error}") from None
    unknown = [key for key in values if key not in ("version", "rule")]
    if unknown:
        raise PolicyError(f"{path}: unknown key {unknown[0]!r}; known: version, [[rule]]")
    if values.get("version") != VERSION:
        raise PolicyError(f"{path}: version {values.get('version')!r}; this version reads version = {VERSION}")
    given = values.get("rule", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise PolicyError(f"{path}: rules are written [[rule]]")
    rules = tuple(_rule(path, number, each) for number, each in enumerate(given, 1))
    if not rules:
        raise PolicyError(f"{path} has no [[rule]], so it protects nothing: write one, or remove the file")
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise PolicyError(f"{path}: two rules have one name")
    return rules, hashlib.sha256(content).hexdigest()


def _rule(path: Path, number: int, given: Mapping[str, Any]) -> Rule:
    where = f"{path}, rule {given.get('name', number)}"
    unknown = [key for key in given if key not in _KEYS]
    if unknown:
        raise PolicyError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(_KEYS)}")

    def value(key: str, kind: type, otherwise: Any, known: tuple[str, ...] = ()) -> Any:
        found = given.get(key, otherwise)
        # A bool is an int to Python.
        if found is not None and (type(found) is not kind or (known and found not in known)):
            raise PolicyError(f"{where}: {key} is {' or '.join(known) or kind.__name__}, not {found!r}")
        return found

    lists = {}
    for key in _LISTS:
        found = given.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) and each.strip() for each in found):
            raise PolicyError(f"{where}: {key} is a list of text, not {found!r}")
        lists[key] = tuple(found)
    name, cypher = value("name", str, f"rule {number}"), value("cypher", str, None)
    if not any(lists.values()) and not cypher:
        raise PolicyError(f"{where} protects nothing: give features, lineages, labels or cypher")
    cosine = given.get("cosine")
    if cosine is not None and (type(cosine) not in (int, float) or not 0 < cosine <= 1):
        raise PolicyError(f"{where}: cosine is a number in (0, 1], not {cosine!r}")
    try:
        beyond = Strength.of(given.get("beyond", 0))
    except PlanError as error:
        raise PolicyError(f"{where}: beyond: {error}") from None
    if beyond.value < 0:
        raise PolicyError(f"{where}: beyond is not negative; may_not says in which direction")
    may_not = value("may_not", str, AMPLIFY, (AMPLIFY, SUPPRESS, BOTH))
    then = value("then", str, REFUSE, (REFUSE, WARN))
    by_lineage, reason = value("by_lineage", bool, True), value("reason", str, None)
    features, lineages, labels = (lists[key] for key in _LISTS)
    return Rule(name, features, lineages, labels, cypher, may_not, beyond, then, cosine, by_lineage, reason)

"""Which Cypher a reader may run on a server: what the server's own plan says, not how the text reads.

A READ transaction keeps a statement from writing to the graph, but not from reading files and other servers (LOAD CSV),
from the server's settings, or from other users' transactions. So the statement is planned first (EXPLAIN), and passes
where

1. the server calls it a reading statement,
2. every operator of its plan is of a family that reads the graph or computes (OPERATORS); none loads, shows, ends or
   begins anything else,
3. every procedure that it calls is in PROCEDURES,
4. it names none of the functions that were added to the server, which may do anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from atlas.embedded.values import first_line
from atlas.errors import QueryError, QueryRefused

if TYPE_CHECKING:
    from neo4j import ResultSummary, Transaction

PROCEDURES = frozenset(
    (
        "db.labels",
        "db.relationshipTypes",
        "db.propertyKeys",
        "db.schema.nodeTypeProperties",
        "db.schema.relTypeProperties",
        "db.index.fulltext.queryNodes",
        "db.index.fulltext.queryRelationships",
        "db.index.vector.queryNodes",
    )
)
# Parts of the names of operators that read the graph or compute.
OPERATORS = re.compile(
    "ProduceResults|Projection|Filter|Argument|Apply|Aggregation|Distinct|Sort|Top|Limit|Skip|Unwind|Union|Join|Scan|"
    "Seek|Lookup|Expand|Eager|Optional|Product|Path|Trail|Repeat|RollUp|Select|Let|Semi|Assert|Triadic|Cache|Nullify|Count|"
    "Empty|Partition|Conditional"
)
FORBIDDEN = re.compile("Load|Show|Terminate|Transaction|Procedure|Create|Delete|Merge|Set|Remove|Foreach|Admin")
_FUNCTIONS = "SHOW USER DEFINED FUNCTIONS YIELD name RETURN collect(DISTINCT split(name, '.')[0]) AS names"
PLANS = "EXPLAIN and PROFILE give a plan and no rows; ask for it in Neo4j Browser or cypher-shell"
_EXPLAIN = "EXPLAIN\n"
_PLANNING = re.compile(r"\s*(EXPLAIN|PROFILE)\b", re.IGNORECASE)
_PLACE = re.compile(r"\(line (\d+), column (\d+) \(offset: (\d+)\)\)")
_READING = "only reading the graph is allowed"


def check_statement(tx: Transaction, cypher: str) -> None:
    """Plan the statement and look at the plan; raises QueryRefused where it could do more than read."""
    if not cypher.strip():
        raise QueryRefused("the statement is empty; one looks like: MATCH (f:Feature) RETURN f.id LIMIT 10")
    if _PLANNING.match(cypher):
        raise QueryRefused(PLANS)
    summary = _planned(tx, cypher)
    if summary.query_type != "r" or summary.plan is None:
        raise QueryRefused(f"the server takes this for a statement that does more than read; {_READING}")
    for operator in _operators(summary.plan):
        # Behind an @ stands the database.
        _check_operator(operator["operatorType"].partition("@")[0], operator.get("args", {}))
    _check_functions(tx, cypher)


def _planned(tx: Transaction, cypher: str) -> ResultSummary:
    from neo4j.exceptions import CypherSyntaxError

    try:
        return tx.run(f"{_EXPLAIN}{cypher}").consume()
    except CypherSyntaxError as error:
        # Where the mistake is, in the statement as it was written.
        message = _PLACE.sub(
            lambda m: f"(line {int(m[1]) - 1}, column {m[2]} (offset: {int(m[3]) - len(_EXPLAIN)}))",
            first_line(error.message),
        )
        raise QueryError(f"the graph cannot answer this: {message}") from None


def _operators(plan: Any) -> Iterator[Any]:
    yield plan
    for child in plan.get("children", ()):
        yield from _operators(child)


def _check_operator(name: str, arguments: dict[str, Any]) -> None:
    if name == "ProcedureCall":
        procedure = str(arguments.get("Details", "")).partition("(")[0].strip()
        if procedure not in PROCEDURES:
            raise QueryRefused(f"the procedure {procedure} is not allowed; allowed are {', '.join(sorted(PROCEDURES))}")
    # Both: names are made of parts, so TransactionApply has one that is allowed; and what is not known is refused.
    elif FORBIDDEN.search(name) or not OPERATORS.search(name):
        raise QueryRefused(f"{name} is not allowed; {_READING}")


def _check_functions(tx: Transaction, cypher: str) -> None:
    """Functions are not operators of a plan: refuse the names under which others than the server's own are kept."""
    added = tx.run(_FUNCTIONS).single(strict=True)["names"]
    if not added:
        return
    # Cypher resolves these escapes first, so a name could be written in which no search finds it.
    if "\\u" in cypher:
        raise QueryRefused(r"\u is not allowed: this server has functions of its own; write the character itself")
    for name in added:
        if re.search(rf"\b{re.escape(name)}\b", cypher, re.IGNORECASE):
            raise QueryRefused(f"functions of {name} are not allowed: they were added to the server")

"""openCypher's compatibility kit on the embedded store: the scenarios that need no graph.

    python tests/opencypher_kit.py PATH

PATH: the folder `tck/features` of a copy of https://github.com/opencypher/openCypher. Every scenario (each row of an
outline's examples is one) is asked of an embedded store as a user's statement. Prints how many are right, refused and
wrong, and why; what is wrong in full. Right where an error is expected: any error or refusal.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planted_graph import PlantedGraph

from atlas.cypher.interpret.evaluate import computing
from atlas.cypher.interpret.values import key
from atlas.cypher.parser import parse
from atlas.cypher.syntax import Projection
from atlas.embedded.store import LadybugStore
from atlas.errors import AtlasError, QueryRefused

_STEP = re.compile(r"(Given|When|Then|And|But)\s+(.*)")
_NEEDS_A_GRAPH = re.compile(r"\b(MATCH|CREATE|MERGE|DELETE|SET|REMOVE|FOREACH|CALL|LOAD)\b", re.IGNORECASE)


@dataclass
class Scenario:
    """One case: its steps as (text, what stands below it)."""

    name: str
    steps: list[tuple[str, list[str]]] = field(default_factory=list)

    def with_values(self, values: dict[str, str], number: int) -> Scenario:
        """The case of one row of examples."""

        def filled(text: str) -> str:
            for name, value in values.items():
                text = text.replace(f"<{name}>", value)
            return text

        steps = [(filled(text), list(map(filled, below))) for text, below in self.steps]
        return Scenario(f"{self.name} #{number}", steps)


def cells(line: str) -> list[str]:
    """The cells of a table's line; in them `\\|` is no border, and a backslash is written twice."""
    found = re.findall(r"(?:[^|\\]|\\.)*", line.strip().strip("|"))
    return [re.sub(r"\\([\\|])", r"\1", cell).strip() for cell in found if cell]


def scenarios(path: Path) -> Iterator[Scenario]:
    """The cases of a feature file."""
    found: list[tuple[Scenario, list[dict[str, str]]]] = []
    background: list[tuple[str, list[str]]] = []
    below: list[str] | None = None
    header: list[str] | None = None
    examples = quoted = False
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if line == '"""':
            quoted = not quoted
        elif quoted:
            assert below is not None
            below.append(raw)
        elif match := re.match(r"(Scenario Outline|Scenario|Background):\s*(.*)", line):
            examples = False
            if match[1] == "Background":
                below = None
                background = []
                found.append((Scenario("background"), []))
            else:
                found.append((Scenario(f"{path.stem} {match[2]}", list(background)), []))
        elif line.startswith("Examples:"):
            examples, header = True, None
        elif examples and line.startswith("|"):
            if header is None:
                header = cells(line)
            else:
                found[-1][1].append(dict(zip(header, cells(line), strict=True)))
        elif step := _STEP.match(line):
            below = []
            found[-1][0].steps.append((step[2], below))
        elif line.startswith("|") and below is not None:
            below.append(line)
    for scenario, rows in found:
        if rows:
            yield from (scenario.with_values(row, number) for number, row in enumerate(rows, 1))
        elif scenario.name != "background":
            yield scenario


def value_of(text: str) -> Any:
    """A cell's value, written as a literal."""
    special = {"NaN": float("nan"), "Inf": float("inf"), "-Inf": float("-inf")}
    if text in special:
        return special[text]
    clause = parse(f"RETURN {text} AS x").parts[0][0]
    assert isinstance(clause, Projection)
    return computing(clause.items[0].expression, {})({})


def comparable(value: Any, unordered: bool) -> Any:
    """The value as something that can be compared; lists without their order where that does not matter."""
    if unordered and isinstance(value, list):
        return ("list", *sorted((comparable(item, True) for item in value), key=repr))
    if isinstance(value, list):
        return ("list", *(comparable(item, False) for item in value))
    return (type(value).__name__, key(value))


def verdict(store: LadybugStore, scenario: Scenario) -> tuple[str, str] | None:
    """right, refused or wrong, and why; None where the case needs a graph."""
    steps = scenario.steps
    queries = ["\n".join(below) for text, below in steps if text.startswith("executing query")]
    text = " ".join(text for text, _ in steps)
    if (
        len(queries) != 1
        or "having executed" in text
        or "executing control query" in text
        or "exists a procedure" in text
    ):
        return None
    if _NEEDS_A_GRAPH.search(queries[0]) or "-[" in queries[0] or "-->" in queries[0] or "--(" in queries[0]:
        return None
    parameters: dict[str, Any] = {}
    for step, below in steps:
        if step.startswith("parameters are"):
            parameters = {cells(line)[0]: value_of(cells(line)[1]) for line in below}
    expected, table = next(
        (text, below) for text, below in steps if re.match(r"the result should|an? \w+ should be raised", text)
    )
    error = "should be raised" in expected
    try:
        answer = store.query(queries[0], parameters, limit=0, timeout=20)
    except AtlasError as refusal:
        if error:
            return "right", "an error"
        return "refused", f"{type(refusal).__name__}: {refusal}"
    if error:
        return "wrong", f"{answer.rows[:3]} instead of an error ({expected})"
    unordered = "ignoring element order" in expected
    rows = [tuple(comparable(value, unordered) for value in row.values()) for row in answer.rows]
    try:
        wanted = [tuple(comparable(value_of(cell), unordered) for cell in cells(line)) for line in table[1:]]
    except QueryRefused as refusal:
        return "refused", f"the kit's value cannot be read: {refusal}"
    if "in any order" in expected:
        rows, wanted = sorted(rows, key=repr), sorted(wanted, key=repr)
    names = cells(table[0]) if table else answer.columns
    if rows == wanted and names == answer.columns:
        return "right", "rows"
    return "wrong", f"{answer.columns} {rows[:3]} instead of {names} {wanted[:3]}"


def main(path: Path) -> int:
    """Run the kit; returns 1 where something is wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        graph = PlantedGraph()
        store = LadybugStore(Path(folder), graph.state, LadybugStore(Path(folder), None).publish(graph))
        for feature in sorted(path.rglob("*.feature")):
            area = "temporal" if "temporal" in feature.parts else "other"
            for scenario in scenarios(feature):
                if (found := verdict(store, scenario)) is None:
                    continue
                counts[area, found[0]] += 1
                if found[0] == "wrong":
                    print("WRONG", scenario.name, "|", [b for t, b in scenario.steps if "query" in t], found[1])
                elif found[0] == "refused" and area == "other":
                    reasons[re.sub(r"[\d'\"]+", "…", found[1])[:110]] += 1
        store.close()
    for reason, count in reasons.most_common(40):
        print(f"{count:5} refused: {reason}")
    for area in ("other", "temporal"):
        print(area, {kind: counts[area, kind] for kind in ("right", "refused", "wrong")})
    return int(any(kind == "wrong" for _, kind in counts))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

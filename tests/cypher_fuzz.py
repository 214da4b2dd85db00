"""Questions made at random, asked of an embedded atlas and of another engine: the rows must be the same.

    python tests/cypher_fuzz.py [N] [SEED] [URI]

N questions (20,000) of a seed (0), compared with ArcadeDB in this process, or with the Neo4j at URI (an empty one;
NEO4J_USERNAME, NEO4J_PASSWORD). Prints what differs, and counts: the same, refused (by reason), too slow.
"""

from __future__ import annotations

import math
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from planted import Planted

from atlas.embedded.store import LadybugStore
from atlas.errors import QueryError, QueryTimeout
from atlas.ids import feature_id
from atlas.schema import EDGES, FEATURE

Rows = list[dict[str, Any]]
Ask = Callable[[str, dict[str, Any]], Rows]
LAYERS, SIZE = 13, 4
TYPES = tuple(edge.type for edge in EDGES if edge.label == FEATURE)


def graph() -> Planted:
    """13 layers of three dictionaries of 4 features, two matches each way: paths of 12 hops, and few of them."""
    return Planted(range(LAYERS), size=SIZE, width=6, k=2, seed=3)


class Maker:
    """Makes a question; its parameters are kept beside it."""

    def __init__(self, rng: random.Random, ids: list[str]) -> None:
        self.rng, self.ids = rng, ids
        self.parameters: dict[str, Any] = {}
        self.nodes: list[str] = []
        self.edges: list[str] = []  # single relationships
        self.lists: list[str] = []  # relationships of a path of any length
        self.paths: list[str] = []
        self.cost = 0.0

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def parameter(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def either(self, value: Any) -> str:
        """A value as a literal or as a parameter."""
        if self.chance(0.4):
            return self.parameter(value)
        if isinstance(value, str):
            return f"'{value}'"
        if isinstance(value, list):
            return f"[{', '.join(self.literal(item) for item in value)}]"
        return self.literal(value)

    @staticmethod
    def literal(value: Any) -> str:
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        return f"'{value}'" if isinstance(value, str) else repr(value)

    # --- patterns ---------------------------------------------------------------------------------------------------

    def node(self, *, anchor: bool = False) -> str:
        known = self.chance(0.25) and self.nodes and not anchor
        if known:
            return f"({self.rng.choice(self.nodes)})"
        name = f"n{len(self.nodes)}"
        self.nodes.append(name)
        label = ":Feature" if self.chance(0.7) or anchor else ""
        return f"({name}{label}{self.node_properties(anchor)})"

    def node_properties(self, anchor: bool) -> str:
        if anchor:
            return f" {{id: {self.either(self.rng.choice(self.ids))}}}"
        made = [
            ("site", self.rng.choice(["res", "res", "mlp", "att"])),
            ("layer", self.rng.randrange(LAYERS)),
            ("index", self.rng.randrange(SIZE)),
            ("dead", False),
        ]
        return f" {{{(chosen := self.rng.choice(made))[0]}: {self.either(chosen[1])}}}" if self.chance(0.2) else ""

    def relationship(self, direction: str, *, free: bool) -> str:
        types = self.rng.choice(["", ":FROM_RES", ":FROM_RES", ":FROM_RES|FROM_MLP", f":{self.rng.choice(TYPES)}"])
        properties = f" {{rank: {self.either(self.rng.choice([0, 0, 1]))}}}" if self.chance(0.4) else ""
        length = ""
        if free and self.chance(0.25):
            length = self.rng.choice(["*1..2", "*0..1", "*2", "*..2", "*1..3", "*0..2", "*2..3"])
            if direction == ">" and self.chance(0.3):
                length = self.rng.choice(["*", "*1..5", "*3..", "*12"])
        name = f"{'l' if length else 'e'}{len(self.edges) + len(self.lists)}"
        if self.chance(0.75):
            (self.lists if length else self.edges).append(name)
        else:
            name = ""
        inner = f"[{name}{types}{length}{properties}]"
        self.cost += 3 if length and direction == "-" else 2 if length else 1.2 if direction == "-" else 1
        return {">": f"-{inner}->", "<": f"<-{inner}-", "-": f"-{inner}-"}[direction]

    def path(self, hops: int, *, anchor: bool) -> str:
        style = self.rng.choice(["down", "down", "up", "mixed", "any"])
        text = self.node(anchor=anchor)
        for _ in range(hops):
            direction = {"down": ">", "up": "<"}.get(style) or self.rng.choice("><" if style == "mixed" else "><-")
            text += self.relationship(direction, free=hops < 4) + self.node()
        return text

    def match(self) -> str:
        paths = []
        for _ in range(2 if self.chance(0.25) else 1):
            hops = self.rng.choice([0, 1, 1, 2, 2, 3, 3, 4, 5]) if self.chance(0.85) else self.rng.randrange(6, 13)
            if self.cost + hops > 13:
                hops = min(hops, 1)
            text = self.path(hops, anchor=hops != 1 or self.chance(0.5))
            if self.chance(0.3) and hops:
                name = f"q{len(self.paths)}"
                self.paths.append(name)
                text = f"{name} = {text}"
            paths.append(text)
        where = f" WHERE {self.condition()}" if self.chance(0.5) else ""
        return f"MATCH {', '.join(paths)}{where}"

    def optional(self) -> str:
        start = self.rng.choice(self.nodes)
        hops = self.rng.choice([1, 1, 1, 2, 3])
        text = f"OPTIONAL MATCH ({start})"
        for _ in range(hops):
            text += self.relationship(self.rng.choice("><-"), free=hops == 1) + self.node()
        return f"{text} WHERE {self.condition()}" if self.chance(0.4) else text

    # --- expressions ------------------------------------------------------------------------------------------------

    def number(self) -> str:
        node = self.rng.choice(self.nodes)
        made = [f"{node}.layer", f"{node}.index", f"{node}.depth", f"{node}.s_res", f"{node}.norm", "1", "2.5"]
        if self.edges:
            edge = self.rng.choice(self.edges)
            made += [f"{edge}.rank", f"{edge}.forward_rank", f"{edge}.similarity", f"{edge}.rank"]
        made += [f"length({path})" for path in self.paths] + [f"size({each})" for each in self.lists]
        first = self.rng.choice(made)
        if self.chance(0.25):
            return f"({first} {self.rng.choice('+-*%')} {self.rng.choice([*made, '3'])})"
        if self.chance(0.1):
            return self.rng.choice(
                [f"abs({first})", f"coalesce({first}, -1)", f"-{first}", f"{first} / 2", f"toInteger({first})"]
            )
        return first

    def text(self) -> str:
        node = self.rng.choice(self.nodes)
        made = [f"{node}.id", f"{node}.site", f"{node}.label", f"{node}.lifecycle"]
        if self.edges:
            made.append(f"type({self.rng.choice(self.edges)})")
        first = self.rng.choice(made)
        if self.chance(0.15):
            return self.rng.choice(
                [
                    f"toUpper({first})",
                    f"substring({first}, 1, 4)",
                    f"{first} + '!'",
                    f"left({first}, 3)",
                    f"split({first}, '-')[1]",
                ]
            )
        return first

    def condition(self, depth: int = 0) -> str:
        kind = self.rng.randrange(13)
        node = self.rng.choice(self.nodes)
        if kind == 0 and depth < 2:
            return f"({self.condition(depth + 1)} {self.rng.choice(['AND', 'OR', 'XOR'])} {self.condition(depth + 1)})"
        if kind == 1 and depth < 2:
            return f"NOT ({self.condition(depth + 1)})"
        if kind == 2:
            return f"{self.text()} IS {self.rng.choice(['', 'NOT '])}NULL"
        if kind == 3:
            values: list[Any] = [self.rng.randrange(LAYERS) for _ in range(self.rng.randrange(4))]
            values += [None] * self.chance(0.3) + [0.5] * self.chance(0.2)
            return f"{self.number()} IN {self.either(values)}"
        if kind == 4:
            names: list[Any] = ["res", "mlp", *self.rng.sample(self.ids, 2)] + [None] * self.chance(0.3)
            return f"{self.text()} IN {self.either(names)}"
        if kind == 5:
            sign = self.rng.choice(["STARTS WITH", "ENDS WITH", "CONTAINS", "=~"])
            words = [".*res.*", "(?i).*ABOUT.*", "[a-z]+"] if sign == "=~" else ["planted/1", "3", "res", ""]
            return f"{self.text()} {sign} {self.either(self.rng.choice(words))}"
        if kind == 6:
            behind = ["-->()", "<-[:FROM_RES {rank: 0}]-({site: 'res'})", "-[:FROM_MLP]-()"]
            behind += ["-->()-[:FROM_RES {rank: 0}]->()", "<--()-[]->({site: 'res'})"]
            inner = f"({node}){self.rng.choice(behind)}"
            if self.chance(0.2) and not depth:
                own = f"x.layer {self.rng.choice(['=', '>'])} {self.rng.randrange(LAYERS)}"
                outer = self.rng.choice([f"{self.text()} IS NULL", self.condition(2)])
                return f"EXISTS {{ ({node})-->(x) WHERE {own} {self.rng.choice(['AND', 'AND', 'OR'])} {outer} }}"
            return f"{self.rng.choice(['', 'NOT '])}EXISTS {{ {inner} }}" if self.chance(0.6) or depth else inner
        if kind == 7:
            count = f"COUNT {{ ({node})<-[c:FROM_RES]-(x) WHERE c.rank = 0 }}"
            return f"{count} {self.rng.choice(['>', '=', '<='])} {self.rng.randrange(3)}"
        if kind == 8 and (self.paths or self.lists):
            items = self.rng.choice([f"relationships({path})" for path in self.paths] + self.lists)
            inner = self.rng.choice(
                [
                    "x.rank = 0",
                    "x.rank < 2",
                    "x.similarity > 0.5",
                    "x.forward_rank IS NULL",
                    f"x.rank = {self.either(1)}",
                ]
            )
            return f"{self.rng.choice(['all', 'any', 'none', 'single'])}(x IN {items} WHERE {inner})"
        if kind == 9 and len(self.nodes) > 1:
            return f"{node} {self.rng.choice(['=', '<>'])} {self.rng.choice(self.nodes)}"
        if kind == 10:
            return f"{node}.dead {self.rng.choice(['=', '<>'])} {self.either(self.rng.choice([True, False]))}"
        value = self.rng.choice([self.number(), self.either(self.rng.choice([0, 1, 5, 0.5, 2.0, None]))])
        return f"{self.number()} {self.rng.choice(['=', '<>', '<', '<=', '>', '>='])} {value}"

    # --- results ----------------------------------------------------------------------------------------------------

    def value(self) -> str:
        kind = self.rng.randrange(8)
        if kind == 0:
            return f"CASE WHEN {self.condition(2)} THEN {self.text()} ELSE 'no' END"
        if kind == 1 and self.paths:
            path = self.rng.choice(self.paths)
            return self.rng.choice(
                [f"[x IN relationships({path}) | x.rank]", f"[x IN nodes({path}) | x.id]", f"length({path})"]
            )
        if kind == 2 and self.lists:
            return f"[x IN {self.rng.choice(self.lists)} | x.similarity]"
        if kind == 3:
            return f"({self.condition(2)})"
        if kind == 4:
            return f"labels({self.rng.choice(self.nodes)})"
        return self.number() if kind < 6 else self.text()

    def aggregate(self) -> str:
        distinct = "DISTINCT " if self.chance(0.3) else ""
        return self.rng.choice(
            [
                "count(*)",
                f"count({distinct}{self.rng.choice(self.nodes)})",
                f"count({distinct}{self.text()})",
                f"sum({distinct}{self.number()})",
                f"min({self.rng.choice([self.number(), self.text()])})",
                f"max({self.rng.choice([self.number(), self.text()])})",
                f"avg({self.number()})",
                f"collect({distinct}{self.text()})",
                f"size(collect({self.number()}))",
                f"sum({self.number()}) + count(*)",
            ]
        )

    def through(self) -> str:
        """A WITH: nodes go on, what else there was does not."""
        kept = self.rng.sample(self.nodes, min(len(self.nodes), self.rng.choice([1, 1, 2])))
        items = list(kept)
        self.edges = [edge for edge in self.edges if self.chance(0.3)]
        items += self.edges
        where = ""
        if self.chance(0.4):
            items.append(f"{self.aggregate()} AS total")
            where = " WHERE total > 1" if "count" in items[-1] else ""
        distinct = "DISTINCT " if self.chance(0.3) and len(items) == len(kept) + len(self.edges) else ""
        self.nodes, self.lists, self.paths = kept, [], []
        return f"WITH {distinct}{', '.join(items)}{where}"

    def result(self) -> str:
        kind = self.rng.randrange(5)
        if kind == 0:
            return "RETURN count(*) AS a"
        if kind == 1:
            keys = [self.rng.choice([self.text(), self.number()]) for _ in range(self.rng.randrange(3))]
            items = [*keys, *(self.aggregate() for _ in range(self.rng.randrange(1, 3)))]
        else:
            items = [self.value() for _ in range(self.rng.randrange(1, 4))]
        names = [f"{item} AS c{place}" for place, item in enumerate(items)]
        distinct = "DISTINCT " if self.chance(0.3) and kind != 1 else ""
        text = f"RETURN {distinct}{', '.join(names)}"
        if self.chance(0.3):
            # By every column, so that equal places hold equal rows.
            text += " ORDER BY " + ", ".join(f"c{place}{self.rng.choice(['', ' DESC'])}" for place in range(len(items)))
            text += f" SKIP {self.rng.randrange(3)}" if self.chance(0.3) else ""
            text += f" LIMIT {self.either(self.rng.randrange(1, 9))}" if self.chance(0.5) else ""
        return text

    def question(self) -> str:
        clauses = []
        if self.chance(0.1):
            self.nodes = []
            some = self.rng.sample(self.ids, 3)
            clauses.append(f"UNWIND {self.either(some)} AS given MATCH (n0:Feature {{id: given}})")
            self.nodes.append("n0")
        clauses.append(self.match())
        if self.chance(0.3):
            clauses.append(self.through())
        if self.chance(0.3):
            clauses.append(self.match())
        if self.chance(0.3):
            clauses.append(self.optional())
        return " ".join([*clauses, self.result()])


def question(seed: int, ids: list[str]) -> tuple[str, dict[str, Any]]:
    """The question of a seed, and its parameters."""
    maker = Maker(random.Random(seed), ids)
    text = maker.question()
    used = set(re.findall(r"\$(p\d+)", text))
    return text, {name: value for name, value in maker.parameters.items() if name in used}


def comparable(rows: Rows, ordered: bool) -> Any:
    """Rows as values that are equal where the answers are: no order that is not asked for, floats to 9 digits."""

    def part(value: Any) -> Any:
        if isinstance(value, list):
            return ("list", *sorted(map(part, value), key=repr))
        if isinstance(value, float):
            return 0.0 if value == 0 else float(f"{value:.9g}") if math.isfinite(value) else str(value)
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    found = [tuple(part(row[name]) for name in sorted(row)) for row in rows]
    return found if ordered else sorted(found, key=repr)


def arcade(planted: Planted, folder: Path) -> Ask:
    """The same graph in ArcadeDB, in this process."""
    import arcadedb

    database = arcadedb.create_database(str(folder / "arcade"))
    database.command("sql", "CREATE VERTEX TYPE Feature")
    database.command("sql", "CREATE VERTEX TYPE Dictionary")
    for type_ in (*TYPES, "MATCHED"):
        database.command("sql", f"CREATE EDGE TYPE {type_}")

    def create(label: str, values: Mapping[str, Any]) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        properties = ", ".join(f"`{name}`: ${name}" for name in given)
        database.command("opencypher", f"CREATE (:{label} {{{properties}}})", given)

    def join(label: str, type_: str, later: str, earlier: str, values: Mapping[str, Any]) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        ends = f"MATCH (b:{label} {{id: $later}}), (a:{label} {{id: $earlier}})"
        properties = ", ".join(f"{name}: ${name}" for name in given)
        text = f"{ends} CREATE (b)-[:{type_} {{{properties}}}]->(a)"
        database.command("opencypher", text, given | {"later": later, "earlier": earlier})

    with database.transaction():
        for record in planted.dictionaries:
            create("Dictionary", vars(record))
        for pair in planted.pairs().to_pylist():
            join("Dictionary", "MATCHED", pair["later"], pair["earlier"], {"gap": pair["gap"]})
        for row in planted.features().values():
            create("Feature", row)
        for type_ in TYPES:
            for batch in planted.edges(type_):
                for edge in batch.table.to_pylist():
                    ends = feature_id(batch.later, edge.pop("later")), feature_id(batch.earlier, edge.pop("earlier"))
                    join("Feature", type_, *ends, edge)

    def ask(cypher: str, parameters: dict[str, Any]) -> Rows:
        return [dict(row.to_dict()) for row in database.query("opencypher", cypher, parameters)]

    return ask


def neo4j(planted: Planted, uri: str) -> Ask:
    """The same graph in the Neo4j at an address; its credentials from the environment."""
    import os

    from neo4j import GraphDatabase

    from atlas.address import ServerAddress
    from atlas.server.store import Neo4jStore

    store = Neo4jStore(ServerAddress.parse(uri), None, None)
    with store.writing():
        store.publish(planted)
    store.close()
    user, password = os.environ.get("NEO4J_USERNAME", "neo4j"), os.environ["NEO4J_PASSWORD"]
    driver = GraphDatabase.driver(uri, auth=(user, password))
    session = driver.session()

    def ask(cypher: str, parameters: dict[str, Any]) -> Rows:
        with session.begin_transaction(timeout=20) as transaction:
            return transaction.run(cypher, parameters).data()

    return ask


def compare(store: LadybugStore, other: Ask, seed: int, ids: list[str]) -> tuple[str, str]:
    """same, refused, slow, other (the other engine has none) or different; and the question with both answers."""
    text, parameters = question(seed, ids)
    try:
        found = store.query(text, parameters, timeout=10).rows
    except QueryTimeout:
        return "slow", text
    except QueryError as error:
        return "refused", str(error)
    try:
        wanted = other(text, parameters)
    except Exception as error:
        return "other", f"{text} {parameters}: {str(error)[:200]}"
    ordered = "ORDER BY" in text
    one, two = comparable(found, ordered), comparable(wanted, ordered)
    if one == two:
        return "same", text
    return (
        "different",
        f"seed {seed}: {text} {parameters}\n  embedded {len(one)}: {one[:4]}\n  other {len(two)}: {two[:4]}",
    )


def main(count: int = 20_000, first: int = 0, uri: str = "") -> int:
    """Compare so many questions; returns 1 where an answer differs."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    planted = graph()
    ids = sorted(planted.features())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        store = LadybugStore(
            Path(folder) / "graph", planted.state, LadybugStore(Path(folder) / "graph", None).publish(planted)
        )
        other = neo4j(planted, uri) if uri else arcade(planted, Path(folder))
        for seed in range(first, first + count):
            kind, what = compare(store, other, seed, ids)
            counts[kind] += 1
            if sum(counts.values()) % 500 == 0:
                print(dict(counts), file=sys.stderr, flush=True)
            if kind in ("different", "other"):
                print(kind.upper(), what, flush=True)
            elif kind == "refused":
                reasons[re.sub(r"\$?\b[a-z]\w*\.\w+|\$p\d|'[^']*'|\d+", "…", what)[:100]] += 1
        store.close()
    for reason, number in reasons.most_common(30):
        print(f"{number:6} refused: {reason}")
    print(f"{dict(counts)} in {time.monotonic() - start:.0f} s")
    return int(counts["different"] > 0)


if __name__ == "__main__":
    given = dict(zip(("count", "first", "uri"), sys.argv[1:], strict=False))
    sys.exit(main(int(given.get("count", 20_000)), int(given.get("first", 0)), given.get("uri", "")))

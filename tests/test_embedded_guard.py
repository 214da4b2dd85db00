"""The guard: what is refused in any spelling, and what is handed on. test_atlas_bounded.py runs what is accepted."""

import pytest

from atlas.cypher.tokens import MAX_DEPTH, MAX_LENGTH
from atlas.embedded.guard import guard, parameters_of
from atlas.errors import QueryError, QueryRefused

REFUSED = [
    # writes, in any spelling
    "CREATE (n:Feature {id: 'x'})",
    "create (n:Feature {id: 'x'})",
    "MATCH (n) SET n.label = 'x'",
    "MATCH (n)SET n.label = 'x'",
    "MATCH (n) WHERE n.layer = 1 sEt n.label = 'x' RETURN n",
    "MATCH (n) DETACH DELETE n",
    "MATCH (n) DELETE n",
    "MERGE (n:Feature {id: 'x'})",
    "MATCH (n) REMOVE n.label RETURN n",
    "MATCH (a), (b) CREATE (a)-[:FROM_RES]->(b) RETURN a",
    "WITH 1 AS x CREATE (n:Run {id: 'x'}) RETURN n",
    "RETURN * CREATE (n)",
    "MATCH (n) RETURN n.id ORDER BY n.id DESC CREATE (m)",
    "RETURN CASE WHEN true THEN 1 END DROP TABLE Feature",
    "UNWIND [1, 2] AS x FOREACH (y IN [x] | CREATE (:Run {id: y}))",
    # comments and white space in between
    "/* harmless */ CREATE (n)",
    "MATCH (n) /* */ SET/* */n.label = 'x'",
    "MATCH (n) // RETURN n\nDELETE n",
    "MATCH (n)\n\tDELETE\n\tn",
    "// x\rCREATE (n)",
    "MATCH (n) RETURN n // x\u2028 CREATE (m)",
    "MATCH (n) RETURN n /* not closed",
    # stacked
    "MATCH (n) RETURN n; MATCH (m) DELETE m",
    "RETURN 1;CREATE (n)",
    "; CREATE (n)",
    # outside
    "COPY Feature TO '/tmp/out.csv'",
    "COPY (MATCH (n) RETURN n) TO '/tmp/out.csv'",
    "COPY Feature FROM '/etc/passwd'",
    "LOAD FROM '/etc/passwd' RETURN *",
    "load from '/etc/passwd' (file_format='csv') return *",
    "MATCH (n) LOAD FROM '/etc/passwd' RETURN *",
    "WITH 1 AS x LOAD CSV FROM 'http://example.org' AS line RETURN line",
    "EXPORT DATABASE '/tmp/out'",
    "IMPORT DATABASE '/tmp/out'",
    "ATTACH '/tmp/x.db' AS x (dbtype sqlite)",
    "DETACH x",
    "USE neo4j MATCH (n) RETURN n",
    "INSTALL httpfs",
    "LOAD EXTENSION httpfs",
    # administration
    "CALL timeout = 0",
    "CALL show_tables() RETURN *",
    "MATCH (n) CALL { CREATE (m) } RETURN n",
    "CALL dbms.listConfig()",
    "SHOW SETTINGS",
    "TERMINATE TRANSACTIONS '1'",
    "CHECKPOINT",
    "BEGIN TRANSACTION",
    "COMMIT",
    "DROP TABLE Feature",
    "ALTER TABLE Feature ADD x INT64",
    "COMMENT ON TABLE Feature IS 'x'",
    "CREATE MACRO f(x) AS x",
    "EXPLAIN MATCH (n) RETURN n",
    "EXPLAIN EXPORT DATABASE '/tmp/out'",
    "PROFILE CREATE (n)",
    "PROFILE MATCH (n) RETURN n",
    "CYPHER runtime=slotted MATCH (n) RETURN n",
    "MATCH (n) USING INDEX n:Feature(id) RETURN n",
    # functions
    "RETURN nextval('s')",
    "RETURN error('x')",
    "RETURN apoc.load.json('http://example.org')",
    "RETURN x.count(1)",
    "RETURN `nextval`('s')",
    "RETURN current_setting ('timeout')",
    "RETURN current_setting/* */('timeout')",
    "MATCH (n) RETURN id(n)",
    "MATCH (n) RETURN count{ CREATE (n) }",
    # unicode, escapes and other lexers' ways of reading
    "ＣＲＥＡＴＥ (n)",
    "MATCH (n) RETURN\u200b n",
    "MATCH (n)\u00a0RETURN n",
    "\ufeffMATCH (n) RETURN n",
    "MATCH (n) WHERE n.id = 'a\\u0027 OR true //' RETURN n",
    "RETURN 1 /* \\u002a\\u002f CREATE (n) /* */",
    "RETURN `a\\u0060 CREATE (n) //`",
    "RETURN 'a\\x27 CREATE (n) //'",
    "RETURN 'a\\' CREATE (n) //",
    "RETURN 1.CREATE (n)",
    "RETURN 1CREATE (n)",
    "RETURN 0x1F",
    "MATCH (n) RETURN n \x00",
    "MATCH (n) RETURN n @x",
    # form
    "",
    " ;",
    "// only a comment",
    "(n) RETURN n",
    "UNION RETURN 1",
    "RETURN (1",
    "RETURN 1)",
    "RETURN [1)",
    "RETURN " + "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
    "RETURN '" + "x" * MAX_LENGTH + "'",
]


@pytest.mark.parametrize("cypher", REFUSED, ids=lambda text: ascii(text)[:40])
def test_refused_in_one_line(cypher: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        guard(cypher)
    message = str(refused.value)
    assert message and "\n" not in message and len(message) < 300


@pytest.mark.parametrize(
    "cypher",
    [
        "MATCH (d:Dictionary) WHERE d.set = 'res-2k' RETURN d.set",
        "MATCH (d:Dictionary {set: 'res-2k'}) RETURN d",
        "RETURN {create: 1, delete: {copy: 2}} AS load",
        "RETURN 1 AS `CREATE (n)`",
        "RETURN {load: {copy: 1}}.load.copy",
        "RETURN 'CREATE (n)', \"; DROP TABLE Feature\"",
        "MATCH (n) RETURN n // CREATE (n) é \n",
        "/* LOAD FROM 'x' */ MATCH (n) RETURN n;;",
        "WITH 1 AS created, 2 AS setting, 3 AS callback RETURN created, setting, callback",
        "MATCH p = shortestPath((a:Feature)-[*..5]->(b:Feature)) RETURN p",
        "MATCH (f:Feature) RETURN [x IN collect(f.id) WHERE x <> '' | toUpper(x)] AS names",
        "MATCH (f:Feature) WITH f ORDER BY f.layer DESC RETURN DISTINCT f.site AS s UNION RETURN 'x' AS s",
        "RETURN -1.5e-3 + .5, 'é “x”', [1, 2, 3][0..2]",
        "MATCH (index:Feature) WITH index.index AS `order`, index RETURN `order` AS index ORDER BY index",
    ],
)
def test_names_that_look_like_statements_pass(cypher: str) -> None:
    assert guard(cypher).branches


def test_a_name_as_variable_is_sent_to_backticks() -> None:
    with pytest.raises(QueryRefused, match="backticks"):
        guard("MATCH (set:Dictionary) RETURN set")
    assert guard("MATCH (`set`:Dictionary) RETURN `set`").columns == ("set",)


def text_of(cypher: str, **parameters: object) -> str:
    (branch,) = guard(cypher, parameters).branches
    return str(branch.text)


def test_nothing_of_the_text_but_constants_reaches_the_engine() -> None:
    assert text_of("MATCH (n:Run) // all of them\nRETURN/**/n.id") == "MATCH (v1:Run) RETURN v1.`id` AS c0"
    # LadybugDB takes `index` for a keyword wherever it stands, and A for a.
    assert text_of("MATCH (f:Feature {index: 1}) WITH f.index AS index, f.layer AS INDEX RETURN index, INDEX") == (
        "MATCH (v1:Feature) WHERE (v1.`index` = 1) WITH v1.`index` AS v2, v1.`layer` AS v3 RETURN v2 AS c0, v3 AS c1"
    )
    assert text_of(r"MATCH (f:Feature) WHERE f.label = 'it\'s \\ $x' RETURN 1").endswith(
        r"(v1.`label` = 'it\'s \\ $x') RETURN 1 AS c0"
    )


def test_parameters_are_found_outside_strings_and_comments() -> None:
    assert parameters_of("MATCH (f {id: $id}) WHERE f.label <> '$no' RETURN f // $no") == {"id"}
    with pytest.raises(QueryError, match=r"needs a value for \$id"):
        guard("MATCH (f:Feature {id: $id}) RETURN f")
    with pytest.raises(QueryError, match=r"no parameter \$no"):
        guard("RETURN 1", {"no": 1})


@pytest.mark.parametrize(
    ("cypher", "open_end"),
    [
        ("MATCH (n) RETURN n", True),
        ("MATCH (n) RETURN n.id ORDER BY n.id SKIP 2", True),
        ("MATCH (n) RETURN n LIMIT 2", False),
        ("MATCH (n) WITH n LIMIT 2 RETURN n", True),
        ("MATCH (n:Feature) WHERE EXISTS { MATCH (n)-->() RETURN n LIMIT 1 } RETURN n", True),
        ("MATCH (n:Feature) RETURN toUpper(n.id)", True),  # one row a row, in Python
        ("MATCH (n:Feature) RETURN DISTINCT toUpper(n.id)", False),
    ],
)
def test_where_a_limit_may_be_added(cypher: str, open_end: bool) -> None:
    assert guard(cypher).branches[0].open_end is open_end


def test_columns_as_written() -> None:
    plan = guard(
        "MATCH (f:Feature) RETURN DISTINCT count(*), f.id AS id, f.norm + 1, {a: 1, b: 2} AS `a ``b`` c` ORDER BY id"
    )
    assert plan.columns == ("count(*)", "id", "f.norm + 1", "a `b` c")
    assert guard("MATCH (g)-[:MATCHED]->(f) RETURN *").columns == ("f", "g")


def test_a_plan_is_kept_for_values_of_the_same_types() -> None:
    cypher = "MATCH (f:Feature {layer: $l}) WHERE f.id IN $ids RETURN f LIMIT $n"
    one = guard(cypher, {"l": 1, "ids": ["a"], "n": 3})
    assert guard(cypher, {"l": 2, "ids": ["b", "c"], "n": 4}) is one
    assert guard(cypher, {"l": 2.5, "ids": ["b"], "n": 4}) is not one
    # Computed beforehand, so that the text depends on the value.
    cypher = "MATCH (f:Feature {layer: $l[0]}) RETURN f"
    assert guard(cypher, {"l": [1]}) != guard(cypher, {"l": [2]})

"""The words of reading Cypher, of both engines' dialects: what the guard allows, refuses and puts into backticks."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


STARTS = words("match optional unwind with return")  # clauses that a statement may begin with
KEYWORDS = STARTS | words(
    """
    where order by skip limit union and or xor not in is as starts ends contains asc ascending desc descending distinct
    all any none single exists count collect case when then else end null true false
        """
)
# Words of statements that write, administer or reach outside: never bare, wherever they stand.
FORBIDDEN = words(
    """
    create merge set delete detach remove foreach insert copy load export import attach use install uninstall call
    drop alter macro comment begin commit rollback checkpoint explain profile grant revoke deny terminate cypher
    """
)
# Functions of Neo4j that compute from their arguments alone, by the names under which they are kept: none reads a
# file, a setting or the catalogue, waits, or changes a state.
FUNCTIONS = {
    name: name
    for name in words(
        """
        avg collect count max min sum percentilecont percentiledisc stdev stdevp
        labels type keys properties length nodes relationships rand
        size coalesce nullif exists isempty head last tail reverse range
        abs acos asin atan atan2 ceil cos cot degrees e exp floor isnan log log10 pi radians round sign sin sqrt tan
        left ltrim replace right rtrim split substring tolower toupper trim
        toboolean tofloat tointeger tostring tobooleanornull tofloatornull tointegerornull tostringornull
        """
    )
} | {"lower": "tolower", "upper": "toupper", "char_length": "size", "character_length": "size"}
# LadybugDB's own functions, and what means the same everywhere.
INSTEAD = {
    **dict.fromkeys(("list_transform", "list_filter"), "[x IN list WHERE … | …]"),
    **dict.fromkeys(("list_contains", "list_has", "array_contains", "array_has"), "x IN list"),
    **dict.fromkeys(("list_extract", "list_element", "element_at", "array_extract"), "list[0]"),
    **dict.fromkeys(("list_slice", "array_slice"), "list[0..2]"),
    **dict.fromkeys(("list_concat", "list_cat", "array_concat", "array_cat", "concat"), "a + b"),
    **dict.fromkeys(("list_append", "array_append", "list_prepend", "array_prepend"), "list + [x]"),
    **dict.fromkeys(("list_reduce", "list_sum", "list_product"), "reduce(total = 0, x IN list | total + x)"),
    **dict.fromkeys(("list_any_value", "list_creation"), "[a, b][0]"),
    **dict.fromkeys(("list_max", "list_min", "greatest", "least"), "UNWIND … max(x)"),
    **dict.fromkeys(("list_sort", "list_distinct", "list_unique"), "UNWIND … WITH DISTINCT x ORDER BY x"),
    **dict.fromkeys(("regexp_matches", "regexp_full_match"), "text =~ 'expression'"),
    "rels": "relationships(p)",
    "label": "labels(n)[0] or type(r)",
    "start_node": "startNode(r)",
    "end_node": "endNode(r)",
    "ifnull": "coalesce(a, b)",
    "starts_with": "STARTS WITH",
    "ends_with": "ENDS WITH",
    "prefix": "STARTS WITH",
    "suffix": "ENDS WITH",
    "lcase": "toLower(x)",
    "ucase": "toUpper(x)",
    "substr": "substring(text, 0, 3)",
    "ceiling": "ceil(x)",
    "pow": "x ^ y",
    "ln": "log(x)",
    "log2": "log(x) / log(2)",
    "string_split": "split(text, ',')",
    "str_split": "split(text, ',')",
    "string": "toString(x)",
    "to_string": "toString(x)",
    "to_int64": "toInteger(x)",
    "to_float": "toFloat(x)",
    "to_double": "toFloat(x)",
    "to_bool": "toBoolean(x)",
    "count_if": "sum(CASE WHEN … THEN 1 ELSE 0 END)",
    "is_trail": "MATCH, whose paths are trails",
    "struct_extract": "map.key",
    "struct_pack": "{key: value}",
    "cardinality": "size(x)",
}
ENGINE_IDS = words("id elementid offset rowid")  # functions that would show an engine's own ids
# LadybugDB takes these for keywords even where only a name can stand.
RESERVED_NAMES = words(
    """
    acyclic all and any asc ascending case cast column create dbtype default desc descending distinct else end ends
    exists false glob group headers hint in index install join macro multi_join none not null on only optional or
    order primary profile shortest single starts table then trail true union unwind when where with wshortest xor
    """
)

"""The words of reading Cypher, of both engines' dialects: what the guard allows, refuses and puts into backticks."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STARTS = _words("match optional unwind with return")  # clauses that a statement may begin with
KEYWORDS = STARTS | _words(
    """
    where order by skip limit union and or xor not in is as starts ends contains asc ascending desc descending distinct
    all any none single exists count collect case when then else end null true false
    shortest wshortest trail acyclic paths groups
    """
)
# Keywords after which an expression is complete, so that a clause may follow.
ENDINGS = _words("asc ascending desc descending end null true false")
# Words of statements that write, administer or reach outside: never bare, wherever they stand.
FORBIDDEN = _words(
    """
    create merge set delete detach remove foreach insert copy load export import attach use install uninstall call
    drop alter macro comment begin commit rollback checkpoint explain profile grant revoke deny terminate cypher
    """
)
# Functions of either engine that compute from their arguments alone: none reads a file, a setting or the catalogue,
# waits, draws from a sequence or changes a state.
FUNCTIONS = _words(
    """
    avg collect count count_if max min sum percentilecont percentiledisc stdev stdevp
    label labels type keys properties length nodes relationships rels start_node end_node startnode endnode
    is_trail is_acyclic shortestpath allshortestpaths wshortest
    size coalesce ifnull nullif typeof exists isempty all any none single reduce head last tail
    abs acos asin atan atan2 cbrt ceil ceiling cos cot degrees even exp floor gamma greatest isnan least lgamma ln
    log log10 log2 pi pow radians rand random round sign sin sqrt tan
    bitwise_and bitwise_or bitwise_xor bitshift_left bitshift_right
    concat concat_ws contains ends_with initcap lcase left length levenshtein lower lpad ltrim md5 prefix
    regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace regexp_split_to_array
    repeat replace reverse right rpad rtrim sha256 split split_part starts_with str_split string_split
    string_to_array substr substring suffix tolower toupper trim ucase upper
    array_append array_cat array_concat array_contains array_cosine_similarity array_distance array_dot_product
    array_extract array_has array_indexof array_inner_product array_position array_prepend array_slice
    array_squared_distance array_value element_at
    list_any_value list_append list_cat list_concat list_contains list_creation list_distinct list_element
    list_extract list_filter list_has list_has_all list_has_any list_indexof list_max list_min list_position
    list_prepend list_product list_reduce list_reverse list_reverse_sort list_slice list_sort list_sum
    list_to_string list_transform list_unique range
    cardinality map map_extract map_keys map_values struct_extract struct_pack
    cast string to_bool to_double to_float to_int128 to_int16 to_int32 to_int64 to_int8 to_string
    toboolean tofloat tointeger tostring
    """
)
ENGINE_IDS = _words("id elementid offset rowid")  # functions that would show an engine's own ids
# LadybugDB takes these for keywords even where only a name can stand.
RESERVED_NAMES = _words(
    """
    acyclic all and any asc ascending case cast column create dbtype default desc descending distinct else end ends
    exists false glob group headers hint in index install join macro multi_join none not null on only optional or
    order primary profile shortest single starts table then trail true union unwind when where with wshortest xor
    """
)
RESERVED_VARIABLES = _words("index")  # the only one of them that is a property here, so that it is used as a variable

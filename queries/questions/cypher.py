"""The named questions as Cypher, one constant each; what every one means stands in `queries.questions.questions`.

Each runs unchanged on Neo4j and on LadybugDB and gives the same rows in the same order, within what both can do:
variable-length patterns prune by an inline property map, so that a walk along best matches stays linear in its length;
they end at 30 hops; and `coalesce($layer, f.layer) = f.layer` is how a parameter may be null. Of all edges it is
`coalesce($layer, -2) = -2 OR …`, no layer being −2: a server then reads no property where nothing is asked for. The
names are those of `atlas.schema`: a test holds them to it.
"""

from atlas.schema import EDGE_OF_SITE

# Of an edge b -> a, where a question is asked of one site or one layer.
_HERE = "(coalesce($site, '') = '' OR a.site = $site) AND (coalesce($layer, -2) = -2 OR b.layer = $layer)"

# For a server with vectors (copy --vectors); elsewhere `ask` computes it from the rows (queries.questions.similar).
SIMILAR_TO = """
MATCH (f:Feature {id: $feature})
CALL db.index.vector.queryNodes('feature_vectors', 4 * $limit + 100, f.vector) YIELD node, score
WITH node, score WHERE node.id <> $feature
RETURN node.id AS feature, 2 * score - 1 AS similarity, node.layer AS layer, node.label AS label
ORDER BY similarity DESC, feature
LIMIT $limit
"""

BORN_HERE = """
MATCH (f:Feature)
WHERE f.lifecycle = 'appears' AND coalesce($layer, f.layer) = f.layer
RETURN f.id AS feature, f.layer AS layer, f.origin AS origin, f.s_res AS s_res, f.s_mlp AS s_mlp, f.s_att AS s_att,
       f.label AS label
ORDER BY CASE WHEN coalesce(s_mlp, 0.0) > coalesce(s_att, 0.0) THEN s_mlp ELSE s_att END DESC, feature
LIMIT $limit
"""

DIES_HERE = """
MATCH (f:Feature)
WHERE f.vanishes = true AND coalesce($layer, f.layer) = f.layer
RETURN f.id AS feature, f.layer AS layer, f.s_next AS s_next, f.lifecycle AS lifecycle, f.label AS label
ORDER BY s_next, feature
LIMIT $limit
"""

# For small atlases and for reading: on a large one an engine runs out of memory, and `ask` joins the links itself
# (queries.questions.chains).
LONGEST_LIVED = """
MATCH (b:Feature {site: 'res'})
WHERE NOT EXISTS {
  MATCH (c:Feature)-[u:FROM_RES {rank: 0, forward_rank: 0}]->(b) WHERE u.similarity >= $min_similarity
}
MATCH p = (b)-[:FROM_RES*1..30 {rank: 0, forward_rank: 0}]->(a:Feature)
UNWIND relationships(p) AS r
WITH b.id AS last, b.layer AS to_layer, b.label AS label, a.id AS first,
     length(p) AS steps, min(r.similarity) AS weakest
WHERE weakest >= $min_similarity
MATCH (root:Feature {id: first})
WHERE NOT EXISTS {
  MATCH (root)-[v:FROM_RES {rank: 0, forward_rank: 0}]->(d:Feature) WHERE v.similarity >= $min_similarity
}
RETURN first, last, root.layer AS from_layer, to_layer, steps, weakest, label
ORDER BY steps DESC, weakest DESC, last, first
LIMIT $limit
"""

PATH = """
OPTIONAL MATCH (b:Feature {id: $later})-[:FROM_RES*0..30 {rank: 0}]->(x:Feature)
WITH x
OPTIONAL MATCH (x)-[r:FROM_RES|FROM_MLP|FROM_ATT {rank: 0}]->(y:Feature)
WITH x, r, y
OPTIONAL MATCH (y)-[:FROM_RES|FROM_MLP|FROM_ATT*0..30 {rank: 0}]->(a:Feature {id: $earlier})
WITH collect({along: 'rank', depth: x.depth, source: x.id, target: y.id, similarity: r.similarity, rank: r.rank,
              forward_rank: r.forward_rank, id: a.id}) AS back
OPTIONAL MATCH (b:Feature {id: $later})-[:FROM_RES*0..30 {forward_rank: 0}]->(x:Feature)
WITH back, x
OPTIONAL MATCH (x)-[r:FROM_RES|FROM_MLP|FROM_ATT {forward_rank: 0}]->(y:Feature)
WITH back, x, r, y
OPTIONAL MATCH (y)-[:FROM_RES|FROM_MLP|FROM_ATT*0..30 {forward_rank: 0}]->(a:Feature {id: $earlier})
WITH back, collect({along: 'forward_rank', depth: x.depth, source: x.id, target: y.id, similarity: r.similarity,
                    rank: r.rank, forward_rank: r.forward_rank, id: a.id}) AS ahead
UNWIND back + ahead AS step
WITH step WHERE step.id IS NOT NULL
RETURN step.along AS along, step.source AS source, step.target AS target, step.similarity AS similarity,
       step.rank AS rank, step.forward_rank AS forward_rank
ORDER BY along DESC, step.depth DESC, source, target
LIMIT $limit
"""

ANCESTORS = """
MATCH p = (f:Feature {id: $feature})-[:FROM_RES|FROM_MLP|FROM_ATT*1..30 {rank: 0}]->(a:Feature)
UNWIND relationships(p) AS r
WITH a, length(p) AS steps, min(r.similarity) AS weakest
WHERE weakest >= $min_similarity
RETURN a.id AS feature, a.layer AS layer, a.site AS site, steps, weakest, a.lifecycle AS lifecycle, a.label AS label
ORDER BY steps, feature
LIMIT $limit
"""

DESCENDANTS = """
MATCH p = (f:Feature {id: $feature})<-[:FROM_RES|FROM_MLP|FROM_ATT*1..30 {forward_rank: 0}]-(d:Feature)
UNWIND relationships(p) AS r
WITH d, length(p) AS steps, min(r.similarity) AS weakest
WHERE weakest >= $min_similarity
RETURN d.id AS feature, d.layer AS layer, d.site AS site, steps, weakest, d.lifecycle AS lifecycle, d.label AS label
ORDER BY steps, feature
LIMIT $limit
"""

SHARED_ANCESTORS = """
MATCH p = (f:Feature {id: $later})-[:FROM_RES|FROM_MLP|FROM_ATT*0..30 {rank: 0}]->(a:Feature)
WITH a.id AS common, length(p) AS later_steps
MATCH q = (g:Feature {id: $earlier})-[:FROM_RES|FROM_MLP|FROM_ATT*0..30 {rank: 0}]->(c:Feature)
WHERE c.id = common
RETURN common AS feature, c.layer AS layer, c.site AS site, later_steps, length(q) AS earlier_steps, c.label AS label
ORDER BY later_steps + earlier_steps, feature
LIMIT $limit
"""

MOST_TRANSFORMED = """
MATCH (f:Feature {lifecycle: 'transforms'})
WHERE coalesce($layer, f.layer) = f.layer
WITH f, CASE WHEN coalesce(f.s_mlp, 0.0) > coalesce(f.s_att, 0.0) THEN f.s_mlp ELSE f.s_att END AS written
RETURN f.id AS feature, f.layer AS layer, written - f.s_res AS excess, written, f.s_res AS s_res, f.s_mlp AS s_mlp,
       f.s_att AS s_att, f.label AS label
ORDER BY excess DESC, feature
LIMIT $limit
"""

UNEXPLAINED = """
MATCH (f:Feature {lifecycle: 'unexplained'})
WHERE coalesce($layer, f.layer) = f.layer
RETURN f.id AS feature, f.layer AS layer, f.s_res AS s_res, f.s_mlp AS s_mlp, f.s_att AS s_att, f.label AS label
ORDER BY s_res, feature
LIMIT $limit
"""

WRITTEN_BY = """
MATCH (f:Feature {site: 'res'})
WHERE coalesce($layer, f.layer) = f.layer
WITH f, CASE WHEN $site = 'mlp' THEN f.s_mlp ELSE f.s_att END AS written
WHERE written IS NOT NULL
RETURN f.id AS feature, f.layer AS layer, written, f.s_res AS s_res, f.lifecycle AS lifecycle, f.label AS label
ORDER BY written DESC, feature
LIMIT $limit
"""

WRITES = """
MATCH (f:Feature {id: $feature})<-[r:FROM_MLP|FROM_ATT]-(b:Feature)
RETURN b.id AS feature, b.layer AS layer, r.similarity AS similarity, r.rank AS rank, r.forward_rank AS forward_rank,
       b.lifecycle AS lifecycle, b.label AS label
ORDER BY similarity DESC, feature
LIMIT $limit
"""

HUBS = """
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT {rank: 0}]->(a:Feature)
WITH a, count(*) AS wins, min(r.similarity) AS weakest, max(r.similarity) AS strongest
WHERE coalesce($site, a.site) = a.site AND coalesce($layer, a.layer) = a.layer
RETURN a.id AS feature, a.layer AS layer, a.site AS site, wins, weakest, strongest, a.frequency AS frequency,
       a.label AS label
ORDER BY wins DESC, feature
LIMIT $limit
"""

TWINS = """
MATCH (b:Feature {site: 'res'})-[r:FROM_RES {rank: 0, forward_rank: 0}]->(a:Feature {site: 'res'})
WHERE r.similarity >= $min_similarity AND coalesce($layer, b.layer) = b.layer
RETURN b.id AS later, a.id AS earlier, r.similarity AS similarity, b.label AS later_label, a.label AS earlier_label
ORDER BY similarity DESC, later, earlier
LIMIT $limit
"""

SPLITS = """
MATCH (b:Feature {site: 'res'})-[r:FROM_RES {rank: 0}]->(a:Feature {site: 'res'})
WHERE r.similarity >= $min_similarity AND coalesce($layer, a.layer) = a.layer
WITH a, count(*) AS parts, min(r.similarity) AS weakest, max(r.similarity) AS strongest
WHERE parts > 1
RETURN a.id AS feature, a.layer AS layer, parts, weakest, strongest, a.label AS label
ORDER BY parts DESC, weakest DESC, feature
LIMIT $limit
"""

MERGES = """
MATCH (b:Feature {site: 'res'})-[r:FROM_RES {forward_rank: 0}]->(a:Feature {site: 'res'})
WHERE r.similarity >= $min_similarity AND coalesce($layer, b.layer) = b.layer
WITH b, count(*) AS parts, min(r.similarity) AS weakest, max(r.similarity) AS strongest
WHERE parts > 1
RETURN b.id AS feature, b.layer AS layer, parts, weakest, strongest, b.label AS label
ORDER BY parts DESC, weakest DESC, feature
LIMIT $limit
"""

_STRONGEST_ROWS = """
RETURN b.id AS later, a.id AS earlier, r.similarity AS similarity, r.rank AS rank, r.forward_rank AS forward_rank
ORDER BY similarity DESC, later, earlier
LIMIT $limit
"""
STRONGEST = f"""
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature)
WHERE {_HERE}{_STRONGEST_ROWS}"""

_STRONGEST_PUSH_ROWS = """
RETURN b.id AS later, a.id AS earlier, r.push AS push, r.similarity AS similarity, r.rank AS rank,
       r.forward_rank AS forward_rank
ORDER BY push DESC, later, earlier
LIMIT $limit
"""
STRONGEST_PUSH = f"""
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature)
WHERE r.push IS NOT NULL AND coalesce($site, a.site) = a.site
  AND coalesce($layer, b.layer) = b.layer{_STRONGEST_PUSH_ROWS}"""

# The same answers, sooner on a server, which looks at every edge one by one: the limit-th best of the best matches, a
# sixth of the edges and indexed, is a bound from below for all. A large embedded graph has not the memory for it.
# No edge is stronger than its later feature's best match in that dictionary: only such features' edges can be.
STRONGEST_ON_SERVER = f"""
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT {{rank: 0}}]->(a:Feature)
WHERE {_HERE}
WITH r.similarity AS best ORDER BY best DESC LIMIT $limit
WITH CASE WHEN count(best) < $limit THEN 0.0 ELSE min(best) END AS bound
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT {{rank: 0}}]->(a:Feature)
WHERE r.similarity >= bound AND (coalesce($layer, -2) = -2 OR b.layer = $layer)
WITH DISTINCT b, bound
MATCH (b)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature)
WHERE r.similarity >= bound AND (coalesce($site, '') = '' OR a.site = $site){_STRONGEST_ROWS}"""


def _edges_where(condition: str) -> str:
    """Edges b -> a of every type that meet a condition on the edge, for a server that has to look at each of them.

    Ends without a label make the planner read a type's edges one after the other. With one it starts from every feature
    and goes to each of its edges, which takes five times as long; so does a pattern of several types.
    """
    return "\n  UNION ALL\n".join(
        f"  MATCH (b)-[r:{type_}]->(a) WHERE {condition} RETURN b, r, a" for type_ in EDGE_OF_SITE.values()
    )


_WHERE = f"""
WITH b, r, a
WHERE {_HERE}"""


def _bound(figure: str, condition: str, least: float) -> str:
    """As `bound` the limit-th largest figure of some best matches, or `least` where there are fewer.

    Any of them give a bound from below; a hundred thousand take a fraction of a second and bound all but tightly.
    The figure is made behind the limit, or the planner sorts first and reads them all.
    """
    return f"""
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT {{rank: 0}}]->(a:Feature)
WHERE {condition} AND {_HERE}
WITH r LIMIT 100000
WITH {figure} AS figure ORDER BY figure DESC LIMIT $limit
WITH CASE WHEN count(figure) < $limit THEN {least} ELSE min(figure) END AS bound"""


STRONGEST_PUSH_ON_SERVER = f"""{_bound("r.push", "r.push IS NOT NULL", -1e300)}
CALL (bound) {{
{_edges_where("r.push >= bound")}
}}{_WHERE}{_STRONGEST_PUSH_ROWS}"""

ORPHANS = """
MATCH (f:Feature)
WHERE f.site <> 'res' AND f.dead = false AND coalesce($site, f.site) = f.site AND coalesce($layer, f.layer) = f.layer
  AND NOT EXISTS { MATCH (b:Feature)-[r:FROM_MLP|FROM_ATT {rank: 0}]->(f) }
RETURN f.id AS feature, f.layer AS layer, f.site AS site, f.frequency AS frequency, f.label AS label
ORDER BY f.depth, f.`index`, feature
LIMIT $limit
"""

LIFECYCLE = """
MATCH (f:Feature)
WHERE f.lifecycle IS NOT NULL
RETURN f.model AS model, f.layer AS layer, f.lifecycle AS lifecycle, f.origin AS origin, count(*) AS features
ORDER BY model, layer, lifecycle, origin
LIMIT $limit
"""

TURNOVER = """
MATCH (f:Feature)
WHERE f.lifecycle IS NOT NULL
WITH f.dictionary AS dictionary, f.depth AS depth, count(*) AS features,
     sum(CASE WHEN f.lifecycle IN ['persists', 'transforms'] THEN 1 ELSE 0 END) AS kept,
     sum(CASE WHEN f.lifecycle = 'appears' THEN 1 ELSE 0 END) AS born,
     sum(CASE WHEN f.lifecycle = 'unexplained' THEN 1 ELSE 0 END) AS unexplained,
     sum(CASE WHEN f.vanishes = true THEN 1 ELSE 0 END) AS gone
RETURN dictionary, features, 1.0 * kept / features AS kept, 1.0 * born / features AS born,
       1.0 * unexplained / features AS unexplained, 1.0 * gone / features AS vanishing
ORDER BY depth, dictionary
LIMIT $limit
"""

ABOVE_FLOOR = """
MATCH (d:Dictionary)-[m:MATCHED]->(e:Dictionary)
WHERE m.floor IS NOT NULL
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT {rank: 0}]->(a:Feature)
WHERE b.dictionary = d.id AND a.dictionary = e.id
WITH d.id AS later, e.id AS earlier, d.depth AS depth, m.floor AS floor, count(*) AS matches,
     sum(CASE WHEN r.similarity > m.floor THEN 1 ELSE 0 END) AS above
RETURN later, earlier, floor, matches, 1.0 * above / matches AS share
ORDER BY depth, later, earlier
LIMIT $limit
"""

DEAD = """
MATCH (d:Dictionary)
RETURN d.id AS dictionary, d.d_sae AS features, d.dead_rows AS dead, 1.0 * d.dead_rows / d.d_sae AS share
ORDER BY share DESC, dictionary
LIMIT $limit
"""

_SILENT_MATCHES_ROWS = """
RETURN b.id AS later, a.id AS earlier, r.similarity AS similarity, r.rank AS rank, r.support AS support,
       a.frequency AS earlier_frequency, b.label AS later_label, a.label AS earlier_label
ORDER BY similarity DESC, later, earlier
LIMIT $limit
"""
SILENT_MATCHES = f"""
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature)
WHERE r.cofire = 0.0 AND r.similarity >= $min_similarity AND {_HERE}{_SILENT_MATCHES_ROWS}"""

SILENT_MATCHES_ON_SERVER = f"""
CALL () {{
{_edges_where("r.cofire = 0.0 AND r.similarity >= $min_similarity")}
}}{_WHERE}{_SILENT_MATCHES_ROWS}"""

UNLIKE_TOGETHER = """
MATCH (b:Feature)-[r:FIRES_WITH]->(a:Feature)
WHERE r.cofire >= $min_cofire AND coalesce($site, a.site) = a.site AND coalesce($layer, b.layer) = b.layer
RETURN b.id AS later, a.id AS earlier, r.correlation AS correlation, r.cofire AS cofire, r.lift AS lift,
       r.similarity AS similarity, r.support AS support, b.label AS later_label, a.label AS earlier_label
ORDER BY correlation DESC, later, earlier
LIMIT $limit
"""

_ALIKE_AND_TOGETHER_ROWS = """
RETURN b.id AS later, a.id AS earlier, r.similarity * r.correlation AS both, r.similarity AS similarity,
       r.correlation AS correlation, r.cofire AS cofire, r.effect AS effect, r.support AS support,
       b.label AS later_label, a.label AS earlier_label
ORDER BY both DESC, later, earlier
LIMIT $limit
"""
ALIKE_AND_TOGETHER = f"""
MATCH (b:Feature)-[r:FROM_RES|FROM_MLP|FROM_ATT]->(a:Feature)
WHERE r.correlation > 0.0 AND {_HERE}{_ALIKE_AND_TOGETHER_ROWS}"""

ALIKE_AND_TOGETHER_ON_SERVER = f"""{_bound("r.similarity * r.correlation", "r.correlation > 0.0", 0.0)}
CALL (bound) {{
{_edges_where("r.correlation > 0.0 AND r.similarity * r.correlation >= bound")}
}}{_WHERE}{_ALIKE_AND_TOGETHER_ROWS}"""

"""The graph's schema, declared once: every label, edge type and property name that a store or a query may use.

Edges between features point from the later to the earlier one and are typed by where the earlier one sits, as the paper
names its groups. `MATCHED` joins two dictionaries that were matched and holds what is true of the pair. An edge always
leads to a smaller depth; the stream between attention and MLP (site res) has the MLP's (`atlas.ids.depth`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from atlas.folder.dictionary import Dictionary
from atlas.ids import ATT, MLP, RES

STRING, INTEGER, FLOAT, BOOLEAN = "STRING", "INT64", "DOUBLE", "BOOL"
# By text: the annotations of a record are text, since their evaluation is postponed.
_TYPES = {"str": STRING, "int": INTEGER, "float": FLOAT, "bool": BOOLEAN}

ATLAS, MODEL, DICTIONARY, FEATURE, RUN = "Atlas", "Model", "Dictionary", "Feature", "Run"
MATCHED = "MATCHED"
RESEMBLES = "RESEMBLES"
FIRES_WITH = "FIRES_WITH"  # correlates most on a text, and is no match by cosine (queries.evidence.firing.edges)
EDGE_OF_SITE = {RES: "FROM_RES", MLP: "FROM_MLP", ATT: "FROM_ATT"}  # by the earlier feature's site


@dataclass(frozen=True)
class NodeTable:
    """A label and its properties; `id` is unique."""

    label: str
    properties: dict[str, str]


@dataclass(frozen=True)
class EdgeTable:
    """An edge type between nodes of one label; `later` and `earlier` hold the two ends' ids when it is loaded."""

    type: str
    label: str
    properties: dict[str, str]


NODES = (
    NodeTable(
        ATLAS,
        {
            "id": STRING,  # stays the same when the atlas is copied to another store
            "state": STRING,  # names this state of the graph, as the manifest does
            "format": INTEGER,
            "k": INTEGER,  # matches kept on each side of a pair
            "thresholds": STRING,  # of the life cycle, as JSON: {"res": 0.5, "module": 0.25}; a cosine or "floor"
            "measured": STRING,  # what labels come from, as JSON: texts and imports (ingest.labels.job)
        },
    ),
    NodeTable(MODEL, {"id": STRING, "name": STRING, "d_model": INTEGER}),
    # So that a graph stands for its records.
    NodeTable(
        DICTIONARY, {field.name: _TYPES[str(field.type).removesuffix(" | None")] for field in fields(Dictionary)}
    ),
    NodeTable(
        FEATURE,
        {
            "id": STRING,
            "dictionary": STRING,
            "model": STRING,
            "layer": INTEGER,
            "site": STRING,
            "depth": INTEGER,
            "index": INTEGER,
            "norm": FLOAT,
            "dead": BOOLEAN,
            "s_res": FLOAT,  # best cosine with the residual dictionary before it (paper §3.3); null: none ingested
            "s_mlp": FLOAT,
            "s_att": FLOAT,
            "s_next": FLOAT,  # best cosine that a feature of the next residual dictionary has with it
            "origin": STRING,  # res, mlp, att or none
            "lifecycle": STRING,  # start, persists, transforms, appears or unexplained; residual features only
            "vanishes": BOOLEAN,  # no feature of the next residual dictionary continues it
            "label": STRING,  # a name of its own, else the first tokens it fires on, else of those it promotes
            "promotes": STRING,  # tokens its direction promotes, comma separated
            "fires_on": STRING,  # tokens it fires on, comma separated
            "frequency": FLOAT,  # share of text positions at which it is active
            "max_activation": FLOAT,
        },
    ),
    NodeTable(
        RUN,
        {
            "id": STRING,
            "k": INTEGER,
            "thresholds": STRING,  # as in Atlas
            "edges": INTEGER,
            "versions": STRING,  # of the packages that shaped the result, as JSON
            "started": STRING,
            "finished": STRING,
        },
    ),
)

_MATCH = {
    "similarity": FLOAT,  # cosine, in (0, 1]
    "rank": INTEGER,  # 0: the later feature's best match in that dictionary; null outside its top k
    "forward_rank": INTEGER,  # the same seen from the earlier feature
    "gap": INTEGER,  # layers between the two; 1 from res to res where none is missing, 0 within a block
}
# What an edge has besides, in any order; null where it was not, or cannot be, computed. Tables may leave these out.
EDGE_FIGURES = {
    # What one unit of the earlier's activation adds to the later's pre-activation (hooked.direct_path).
    "push": FLOAT,
    # From a text (queries.evidence); null where a feature was active at too few positions of it, `support` excepted.
    "cofire": FLOAT,  # share of the later feature's active positions at which the earlier is active
    "lift": FLOAT,  # that, over what it would be if the two were independent
    "correlation": FLOAT,  # Pearson's, of the two activations over all positions
    "support": INTEGER,  # positions at which the later feature is active
    "effect": FLOAT,  # mean share of the later's activation that goes where the earlier's is removed at that token
}
_FEATURE_EDGE = _MATCH | EDGE_FIGURES
_PAIR_EDGE = {
    "key": STRING,  # names the content of the pair's matches: equal keys, equal edges
    "k": INTEGER,
    "edges": INTEGER,
    "gap": INTEGER,
    "floor": FLOAT,  # 95 % quantile of best matches against a null that keeps the spectrum: the noise floor
    "floor_median": FLOAT,
    "fires_with": INTEGER,  # edges FIRES_WITH between the two, beside `edges`
}
EDGES = (
    *(EdgeTable(type_, FEATURE, _FEATURE_EDGE) for type_ in EDGE_OF_SITE.values()),
    EdgeTable(RESEMBLES, FEATURE, _FEATURE_EDGE),
    # Its cosine may be 0 or less, and it has no ranks.
    EdgeTable(FIRES_WITH, FEATURE, _FEATURE_EDGE),
    EdgeTable(MATCHED, DICTIONARY, _PAIR_EDGE),
)


def properties(name: str) -> dict[str, str]:
    """The properties of a label or an edge type, and their types."""
    return _PROPERTIES[name]


_PROPERTIES = {table.label: table.properties for table in NODES} | {table.type: table.properties for table in EDGES}

"""What an atlas holds, in rows: asked of the graph, so that it is the same for every store."""

from __future__ import annotations

from typing import Any

from atlas.atlas import Atlas
from atlas.folder.manifest import FORMAT

Rows = tuple[list[str], list[dict[str, Any]]]

_DICTIONARIES = """
MATCH (d:Dictionary)
RETURN d.id AS id, d.layer AS layer, d.site AS site, d.architecture AS architecture, d.d_sae AS features,
       d.dead_rows AS dead, d.mapped AS mapped, d.source AS source, d.sha256 AS sha256
ORDER BY d.model, d.depth, d.id
"""
_CYCLES = """
MATCH (f:Feature) WHERE f.lifecycle IS NOT NULL
RETURN f.dictionary AS id, f.lifecycle AS lifecycle, count(*) AS n
"""
_VANISHING = """
MATCH (f:Feature) WHERE f.vanishes IS NOT NULL
RETURN f.dictionary AS id, sum(CASE WHEN f.vanishes THEN 1 ELSE 0 END) AS n
"""
# Dead features never fire either, but for want of a direction; they are counted by themselves.
_SILENT = """
MATCH (f:Feature) WHERE f.frequency IS NOT NULL AND f.dead = false
RETURN f.dictionary AS id, sum(CASE WHEN f.frequency = 0.0 THEN 1 ELSE 0 END) AS n
"""
_LABELLED = "MATCH (f:Feature) WHERE f.label IS NOT NULL RETURN count(*) AS n"
_PAIRS = """
MATCH (b:Dictionary)-[m:MATCHED]->(a:Dictionary)
RETURN b.id AS later, a.id AS earlier, m.k AS k, m.edges AS edges, m.gap AS gap, m.floor_median AS floor_median,
       m.floor AS floor, m.fires_with AS fires_with
ORDER BY b.model, b.depth, b.id, a.depth, a.id
"""
_MODELS = "MATCH (m:Model) RETURN m.id AS id, m.name AS name, m.d_model AS d_model ORDER BY m.id"
_CYCLE_NAMES = ("start", "persists", "transforms", "appears", "unexplained")


def summary(atlas: Atlas) -> dict[str, str]:
    """The atlas in a few lines, name to text."""
    models = atlas.read(_MODELS)
    pairs = atlas.read(_PAIRS)
    silent = atlas.read(_SILENT)
    records = list(atlas.dictionaries.values())
    last = atlas.manifest.runs[-1] if atlas.manifest.runs else {}
    return {
        "atlas": f"{atlas.address} (format {FORMAT}{_on_disk(atlas)})",
        "store": atlas.store.about,
        "models": ", ".join(f"{m['id']} ({m['name']}, d_model {m['d_model']})" for m in models),
        "dictionaries": f"{len(records)} ({', '.join(sorted({d.architecture for d in records}))})",
        "features": f"{sum(d.d_sae for d in records):,}, {sum(d.dead_rows for d in records):,} dead (no direction)"
        + (f", {sum(row['n'] for row in silent):,} silent (never fired on the text)" if silent else ""),
        "labelled": _labelled(atlas),
        "edges": f"{sum(p['edges'] for p in pairs):,} in {len(pairs)} pairs, k {atlas.manifest.k}",
        "evidence": _evidence(atlas, pairs),
        "thresholds": f"res {atlas.manifest.min_res}, modules {atlas.manifest.min_module} (life cycle)"
        + _raised(atlas, pairs),
        "runs": f"{len(atlas.manifest.runs)}, last finished {last.get('finished', '–')}",
    }


def _raised(atlas: Atlas, pairs: list[dict[str, Any]]) -> str:
    """Where the pairs' noise floors stand in place of the thresholds."""
    sites = {d.id: d.site for d in atlas.dictionaries.values()}
    asked = {"res": atlas.manifest.min_res, "mlp": atlas.manifest.min_module, "att": atlas.manifest.min_module}
    raised = 0
    for pair in pairs:
        threshold = asked[sites[pair["earlier"]]]
        raised += isinstance(threshold, int | float) and (pair["floor"] or 0.0) > threshold
    floors = [pair["floor"] for pair in pairs if pair["floor"] is not None]
    span = f"; noise floors {min(floors):.2f} to {max(floors):.2f}" if floors else ""
    return span + (f", which stand in for them in {raised} of {len(pairs)} pairs" if raised else "")


def _labelled(atlas: Atlas) -> str:
    count = atlas.read(_LABELLED)[0]["n"]
    return f"{count:,} features{_measured(atlas)}" if count else "no feature; make words with feature-atlas label"


def _measured(atlas: Atlas) -> str:
    """What the labels come from."""
    parts = []
    for each in (each for each in atlas.manifest.measured if each["kind"] in ("text", "import")):
        text = f"{each['name']} (sha256 {str(each['sha256'])[:8]}"
        if each["kind"] == "text":
            text += f", {each['tokens']:,} tokens, {each['sinks']:,} attention sinks left out, {each['model']}"
        parts.append(f"{each['kind']} {text})")
    return f"; from {', '.join(parts)}" if parts else ""


def _evidence(atlas: Atlas, pairs: list[dict[str, Any]]) -> str:
    """What figures edges have, and on which text they were measured (queries.evidence)."""
    about = {
        "edges": f"co-firing ({sum(p['fires_with'] or 0 for p in pairs):,} edges FIRES_WITH beside the matches)",
        "effects": "effects of removal",
    }
    parts = []
    for each in (each for each in atlas.manifest.measured if each["kind"] in about):
        text = f"{about[each['kind']]} on {each['name']} (sha256 {each['sha256'][:8]}, {each['tokens']:,} tokens"
        text += f", {each['sinks']:,} attention sinks left out" if "sinks" in each else ""
        text += f", null below {each['support']} positions" if "support" in each else ""
        parts.append(f"{text}, seed {each['seed']}, {each['model']})")
    return "; ".join(parts) or "none; evidence edges --text FILE measures them"


def _on_disk(atlas: Atlas) -> str:
    if atlas.path is None:
        return ""
    size = sum(path.stat().st_size for path in atlas.path.rglob("*") if path.is_file())
    return f", {size / 1e6:,.1f} MB on disk"


def dictionary_rows(atlas: Atlas) -> Rows:
    """A row for each dictionary, with its life-cycle counts."""
    rows = atlas.read(_DICTIONARIES)
    counts = {(row["id"], row["lifecycle"]): row["n"] for row in atlas.read(_CYCLES)}
    vanishing, silent = ({row["id"]: row["n"] for row in atlas.read(cypher)} for cypher in (_VANISHING, _SILENT))
    for row in rows:
        res = row["site"] == "res"
        row |= {name: counts.get((row["id"], name), 0) if res else None for name in _CYCLE_NAMES}
        # Unknown is unknown: the last layer has none after it, and without a text nobody knows what fires.
        row["vanishes"] = vanishing.get(row["id"])
        row["silent"] = silent.get(row["id"])
    columns = ["id", "layer", "site", "architecture", "features", "dead", "silent", "mapped", *_CYCLE_NAMES, "vanishes"]
    return columns, rows


def people_columns(columns: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """The columns that a table for people needs: without those that an id says, or that say one thing throughout."""
    same = {name for name in ("architecture", "mapped") if len({row[name] for row in rows}) == 1}
    return [name for name in columns if name not in {"layer", "site", *same}]


def pair_rows(atlas: Atlas) -> Rows:
    """A row for each matched pair, with its noise floor."""
    columns = ["later", "earlier", "gap", "k", "edges", "fires_with", "floor_median", "floor"]
    return columns, atlas.read(_PAIRS)


def run_rows(atlas: Atlas) -> Rows:
    """A row for each ingest that changed the atlas."""
    runs = list(atlas.manifest.runs)
    return ["id", "started", "finished", "k", "thresholds", "edges", "versions"], runs

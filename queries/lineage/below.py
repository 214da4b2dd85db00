"""What lay just below the thresholds of a lineage: for a feature that stands alone, which option shows more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atlas.ids import RES
from queries.lineage.graph import COLUMNS, Lineage
from queries.lineage.matches import COSINE, Matches
from queries.lineage.walk import floors_of

if TYPE_CHECKING:
    from atlas.atlas import Atlas

_OPTION = {RES: "--min-res"}


def just_below(atlas: Atlas, graph: Lineage) -> list[str]:
    """Lines for people: the best matches that a lone feature's lineage left out, and the options that show them.

    Empty where the graph holds more than its seed. A match within the thresholds can be left out only by `back` or
    `forward` of 0, and is not named.
    """
    if len(graph.nodes) > 1:
        return []
    seed = graph.nodes[0]
    thresholds = {option: graph.options.get(option.removeprefix("--").replace("-", "_")) for option in _options()}
    floors = floors_of(atlas) if "floor" in thresholds.values() else {}
    best: dict[tuple[str, str], tuple[float, str, float | None]] = {}
    matches = Matches(atlas, COLUMNS, graph.options.get("k", 1), graph.options.get("by", COSINE))
    for way, rows in (("earlier", matches.earlier([seed.id])[0]), ("later", matches.later([seed.id])[0])):
        for row in rows:
            # The earlier feature's site decides, as in the lineage itself.
            option = _option(row["site"] if way == "earlier" else seed.site)
            pair = (seed.dictionary, row["dictionary"]) if way == "earlier" else (row["dictionary"], seed.dictionary)
            threshold = thresholds[option]
            least = floors.get(pair) if threshold == "floor" else threshold
            if least is not None and row["similarity"] < least:
                found = (row["similarity"], row["id"], least)
                best[way, option] = max(best.get((way, option), found), found)
    said = ", ".join(f"{option} {thresholds[option]}" for option in _options())
    lines = [f"nothing reaches the thresholds ({said})"]
    for (way, option), (similarity, id_, least) in sorted(best.items(), key=lambda item: -item[1][0]):
        # Rounded down, so that the option as it is printed lets the match in.
        name = id_.removeprefix(f"{atlas.only_model}/")
        lines.append(
            f"just below: {way} {name}, cosine {similarity:.3f} (threshold {least:.3f}); "
            f"{option} {math.floor(similarity * 100) / 100:.2f} shows it"
        )
    return lines if best else [*lines, "and the atlas holds no match of it below them"]


def _options() -> tuple[str, str]:
    return "--min-res", "--min-module"


def _option(site: str) -> str:
    return _OPTION.get(site, "--min-module")

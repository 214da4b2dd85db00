"""What is drawn: features and the matches between them, with whatever else is known of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atlas.ids import RES


@dataclass(frozen=True)
class Dot:
    """A feature."""

    id: str
    layer: int
    site: str  # res, mlp or att
    depth: int  # order along the forward pass
    label: str | None = None
    lifecycle: str | None = None
    origin: str | None = None  # res, mlp, att or none
    activation: float | None = None  # at the token of a text, where one was given
    outside: bool = False  # just outside the cut: where a walk ended


@dataclass(frozen=True)
class Line:
    """A match between two features."""

    source: str  # the later feature
    target: str  # the earlier one
    similarity: float  # cosine
    rank: int | None = 0  # 0: the later feature's best match in that dictionary
    cofire: float | None = None  # share of the later feature's active positions at which the earlier is active
    effect: float | None = None  # share of the later feature's activation that goes when the earlier one is removed
    share: float | None = None  # of the later feature's pre-activation at a token
    push: float | None = None  # what one unit of the earlier adds to the later, where edges were chosen by it
    outside: bool = False  # below the cut

    @property
    def weight(self) -> float:
        """What it was chosen and is drawn by: its share at a token, its push, or its cosine."""
        return next(value for value in (self.share, self.push, self.similarity) if value is not None)


@dataclass(frozen=True)
class Figure:
    """A flow graph to be drawn. `seed`, where there is one, is the feature asked about."""

    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    seed: str | None = None
    title: str = ""
    about: tuple[str, ...] = ()  # lines beneath: thresholds, model, state of the atlas

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any],
        *,
        title: str = "",
        about: Sequence[str] = (),
        outside: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = ((), ()),
    ) -> Figure:
        """From the json form of a lineage; `outside`: nodes and edges just below the cut, in the same form.

        What is measured beside the cosine (co-firing, effect, activation) is taken where it is there.
        """
        inside = {node["id"] for node in values["nodes"]}
        dots = [_dot(node, False) for node in values["nodes"]]
        dots += [_dot(node, True) for node in outside[0] if node["id"] not in inside]
        lines = [_line(edge, False) for edge in values["edges"]] + [_line(edge, True) for edge in outside[1]]
        return cls(tuple(dots), tuple(lines), values.get("seed"), title, (*about, *names_of(dots)))

    @property
    def measure(self) -> str:
        """What its edges are drawn by."""
        for name in ("share", "push"):
            if any(getattr(line, name) is not None for line in self.lines):
                return name
        return "cosine"

    @property
    def evidence(self) -> bool:
        """Whether any edge carries more than its cosine."""
        return any(line.cofire is not None or line.effect is not None for line in self.lines)


def _dot(node: Mapping[str, Any], outside: bool) -> Dot:
    known = {name: node.get(name) for name in ("label", "lifecycle", "origin", "activation")}
    return Dot(node["id"], node["layer"], node["site"], node["depth"], **known, outside=outside)


def _line(edge: Mapping[str, Any], outside: bool) -> Line:
    known = {name: edge.get(name) for name in ("cofire", "effect", "share", "push")}
    return Line(edge["source"], edge["target"], edge["similarity"], edge.get("rank"), **known, outside=outside)


def short_names(dots: Sequence[Dot]) -> dict[str, str]:
    """What each feature is called beside its glyph: `#14` where layer and site say the rest, else `9-res-2k/14`."""
    patterns = _patterns(dots)
    return {
        dot.id: f"#{dot.id.rpartition('/')[2]}" if len(patterns[dot.site]) == 1 else dot.id.partition("/")[2]
        for dot in dots
    }


def names_of(dots: Sequence[Dot]) -> list[str]:
    """A line that says how `#14` is read as a whole id; none where names are whole."""
    forms = {next(iter(found)) for found in _patterns(dots).values() if len(found) == 1}
    # Sites that are named alike, as they mostly are, share one form.
    merged = {re.sub(r"-(?:res|mlp|att)-", "-{site}-", form) for form in forms}
    return [f"ids: {', '.join(sorted(merged if len(merged) == 1 else forms))}"] if forms else []


def _patterns(dots: Sequence[Dot]) -> dict[str, set[str]]:
    """Of each site the forms of its ids, layer and number left open."""
    patterns: dict[str, set[str]] = {RES: set()}
    for name, layer, site in {(dot.id.rpartition("/")[0], dot.layer, dot.site) for dot in dots}:
        model, _, rest = name.rpartition("/")
        same = rest.startswith(f"{layer}-")
        form = f"{model}/{{layer}}-{rest.partition('-')[2]}/#" if same else f"{name}/#"
        patterns.setdefault(site, set()).add(form)
    return patterns

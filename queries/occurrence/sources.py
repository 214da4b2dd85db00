"""Which dictionaries a residual feature is explained by: the nearest stream before it, and what was added since.

Of several dictionaries at one place one counts, or what is there would count twice: of the same width as the feature's
own, else the first by its id.
"""

from __future__ import annotations

from collections.abc import Iterable

from atlas.folder.dictionary import Dictionary
from atlas.ids import RES, is_mid


def sources_of(target: Dictionary, dictionaries: Iterable[Dictionary]) -> list[Dictionary]:
    """The dictionaries that explain a residual one: a stream first, where there is one, then modules by depth.

    Where no stream before it is there, the modules of its own layer alone.
    """
    before = [d for d in dictionaries if _order(d) < _order(target)]
    streams = [d for d in before if d.site == RES]
    stream = _one(target, [d for d in streams if _order(d) == max(map(_order, streams))]) if streams else None
    added = [
        d
        for d in before
        if d.site != RES and (d.layer == target.layer if stream is None else _order(d) > _order(stream))
    ]
    places = sorted({(_order(d), d.site) for d in added})
    modules = [_one(target, [d for d in added if (_order(d), d.site) == place]) for place in places]
    return ([stream] if stream else []) + modules


def _one(target: Dictionary, candidates: list[Dictionary]) -> Dictionary:
    return min(candidates, key=lambda d: (d.d_sae != target.d_sae, d.id))


def _order(d: Dictionary) -> float:
    """The depth, in which the stream between attention and MLP stands before the MLP that it shares it with."""
    return d.depth - 0.5 if is_mid(d.site, d.layer, d.depth) else float(d.depth)

"""Which dictionaries are matched with which: the pairs of the flow graph (paper §3.3–3.4).

The residual stream after L is explained by the stream before it and by what attention and the MLP of L add. So res of
L is paired with res of L−1, mlp of L and att of L; where layers are missing, with the nearest earlier res, the gap
recorded. The stream between attention and MLP of L (`hook_resid_mid`) is paired with the nearest stream before block L
and with att of L; res of L is paired with it as well as with what it is paired with anyway.
Several dictionaries at one place are each paired.
"""

from __future__ import annotations

from collections.abc import Iterable

from atlas.folder.dictionary import Dictionary
from atlas.folder.matches import Pair
from atlas.ids import ATT, MLP, RES, is_mid
from atlas.schema import EDGE_OF_SITE


def plan_pairs(dictionaries: Iterable[Dictionary], k: int) -> list[Pair]:
    """Every pair among these dictionaries, by the later one's depth; never across models."""
    dictionaries = list(dictionaries)
    models = _models(dictionaries)
    ordered = sorted(dictionaries, key=lambda d: (models[d.id], d.depth, d.id))
    pairs = []
    for later in ordered:
        if later.site != RES:
            continue
        same = [d for d in ordered if models[d.id] == models[later.id]]
        earlier = _streams(later, [d for d in same if d.site == RES and d.depth < later.depth])
        modules = (ATT,) if _mid(later) else (MLP, ATT)
        earlier += [d for d in same if d.site in modules and d.layer == later.layer]
        pairs += [Pair(later.id, d.id, EDGE_OF_SITE[d.site], later.layer - d.layer, k) for d in earlier]
    return pairs


def _streams(later: Dictionary, before: list[Dictionary]) -> list[Dictionary]:
    """Of the residual dictionaries before `later`, those it is paired with."""
    blocks = [d for d in before if d.layer < later.layer]
    after = [d for d in blocks if not _mid(d)]
    candidates = blocks if _mid(later) or not after else after  # res after a block looks for res after a block
    # By depth: of a layer's two streams, between its modules and after them, the later one is the nearest.
    nearest = max((d.depth for d in candidates), default=None)
    return [d for d in before if d.depth == nearest or d.layer == later.layer]


def _mid(d: Dictionary) -> bool:
    return is_mid(d.site, d.layer, d.depth)


def _models(dictionaries: list[Dictionary]) -> dict[str, str]:
    """Each dictionary's model.

    Ids may call one model by two names (`gemma-3-1b`, `gemma-3-1b-pt`), or one may have been loaded from the hub and
    from a folder: dictionaries that share either name are of one model.
    """
    one: dict[str, str] = {}  # name of either kind -> the model
    # In a fixed order: which name stands for the model must not hang on the order of sources.
    for d in sorted(dictionaries, key=lambda d: (d.model, d.model_name)):
        model = one.get(f"name {d.model_name}") or one.get(f"id {d.model}") or d.model
        one[f"id {d.model}"] = one[f"name {d.model_name}"] = model
    return {d.id: one[f"id {d.model}"] for d in dictionaries}

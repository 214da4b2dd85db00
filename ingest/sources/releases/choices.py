"""Which dictionaries of a release are meant, by what their ids say: nothing is fetched to find out.

1. An id such as `layer_12_width_16k_l0_medium_seed_1` names a place (layer 12) and a variant (width, L0, seed).
2. What has no numbered layer (embeddings) has no place and is skipped, counted.
3. What the selection excludes by layer, site, width, L0 or checkpoint is left out.
4. Of several widths the smallest that every place has, of several checkpoints the last, of several seeds the first,
   said on stderr; a glob takes all that it matches.
5. Where several are left at one place and no Neuronpedia id tells each, the user has to choose: they are counted.
"""

from __future__ import annotations

import fnmatch
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atlas.errors import IngestError
from atlas.ids import ATT, MLP, RES
from ingest.sources.selection import L0S, Selection

# What tells dictionaries of one place apart, by the part of the id that says it.
_VARIANTS = {
    "width": re.compile(r"width_(\d+[km])|(?<=hook_resid_pre)_(\d+)$"),
    "l0": re.compile(r"(?:average_)?l0_(small|medium|big|\d+)"),
    "affine": re.compile(r"(affine)"),
    "trainer": re.compile(r"trainer_(\d+)"),
    "seed": re.compile(r"seed_(\d+)"),
    "checkpoint": re.compile(r"step_(\d+)"),
}
_ABSENT = {"affine": "no", "seed": "0", "checkpoint": "last"}  # what an id without that part stands for
_SHOWN = {"affine": "yes"}
_LAYER = re.compile(r"(?:layer_?|blocks\.|\bl)(\d+)")
_SITES = {MLP: r"mlp_out|transcoder|\bl\d+m_", ATT: r"attn_out|hook_z|\bl\d+a_", RES: r"resid_|\bl\d+r_"}
_GLOB = re.compile(r"[*?\[]")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """One dictionary of a release, as far as the list tells."""

    release: str
    id: str
    path: str  # in the repository
    neuronpedia: str | None
    norm_scaling_factor: float | None
    layer: int | None  # block that it belongs to: the input of block n is the stream after n − 1; None: no block
    site: str | None  # where the id or the path shows it
    place: str  # the id without its variant
    variant: Mapping[str, str]  # by the names of _VARIANTS
    l0: float | None  # mean number of active features, where it is recorded
    folded: str  # the variant as a part of a name, without the width

    @classmethod
    def of(cls, release: str, entry: Mapping[str, Any]) -> Listed:
        """An entry of the list."""
        id_, path = str(entry["id"]), str(entry["path"])
        found = {name: match for name, pattern in _VARIANTS.items() if (match := pattern.search(id_))}
        place = id_
        for match in found.values():
            place = place.replace(match[0], "", 1)
        number = _LAYER.search(id_)
        variant = {name: next(group for group in match.groups() if group) for name, match in found.items()}
        recorded = variant["l0"] if variant.get("l0", "").isdigit() else entry.get("l0")
        return cls(
            release=release,
            id=id_,
            path=path,
            neuronpedia=entry.get("neuronpedia"),
            norm_scaling_factor=entry.get("norm_scaling_factor"),
            # What goes into a block is the stream after the one before it.
            layer=int(number[1]) - ("resid_pre" in id_) if number else None,
            site=next((site for site, known in _SITES.items() if re.search(known, f"{path} {id_}")), None),
            place=place.strip("/_"),
            variant=variant,
            l0=float(recorded) if recorded is not None else None,
            folded="_".join(match[0].strip("_") for name, match in found.items() if name != "width"),
        )

    @property
    def address(self) -> str:
        """What names it again."""
        return f"{self.release}/{self.id}"

    @property
    def d_sae(self) -> int | None:
        """Number of features, where the id says it: `65k` is the power of two next to it, 65,536."""
        label = self.variant.get("width")
        if label is None or label.isdigit():
            return int(label) if label else None
        # Labels are rounded, and widths of releases that use them are powers of two.
        return 1 << round(math.log2(int(label[:-1]) * (1000 if label[-1] == "k" else 1000**2)))

    def without(self, *names: str) -> tuple[str, ...]:
        """Its place and variant but for these parts: what it shares with those that differ only in them."""
        return (self.place, *(self.variant.get(name, "") for name in _VARIANTS if name not in names))


def choose(release: str, entries: Iterable[Mapping[str, Any]], sae_id: str, selection: Selection) -> list[Listed]:
    """The dictionaries of a release that an id, a glob over ids, or no id (all) and the selection stand for.

    Raises IngestError where there is no such id (with the closest), or where one has to be chosen, with what there is.
    """
    listed = [Listed.of(release, entry) for entry in entries]
    exact = [one for one in listed if one.id == sae_id]
    # What is named in full is taken as it is: nothing is left to choose.
    if exact:
        return exact
    if sae_id and not _GLOB.search(sae_id):
        raise IngestError(f"release {release} has no {sae_id!r}; closest: {', '.join(_closest(sae_id, listed))}")
    matched = [one for one in listed if not sae_id or fnmatch.fnmatchcase(one.id, sae_id)]
    if not matched:
        raise IngestError(f"no id of {release} matches {sae_id!r}; one of them is {listed[0].id}")
    placed = [one for one in matched if one.layer is not None]
    if len(placed) < len(matched):
        _log.warning("%s: %d entries of embeddings skipped, they have no block", release, len(matched) - len(placed))
    selected = [one for one in placed if _may_take(selection, one)]
    if placed and not selected:
        layers = [one.layer for one in placed if one.layer is not None]
        widths = f" and width {_counts('width', placed)}" if any("width" in one.variant for one in placed) else ""
        _log.warning(
            "nothing of %s has %s; it has layers %d to %d%s", release, selection, min(layers), max(layers), widths
        )
    selected = _selected(release, selected, selection)
    # A glob says which of several are meant, so nothing is chosen for the user.
    if sae_id:
        return selected
    chosen = _defaults(release, selected, selection)
    _check(release, selected, chosen)
    return chosen


def _closest(sae_id: str, listed: Sequence[Listed]) -> list[str]:
    import difflib

    return difflib.get_close_matches(sae_id, [one.id for one in listed], n=3, cutoff=0)


def _may_take(selection: Selection, one: Listed) -> bool:
    """Whether what the id says leaves room for what is meant."""
    return (
        (selection.layers is None or one.layer in selection.layers)
        and (selection.sites is None or one.site is None or one.site in selection.sites)
        and (one.d_sae is None or selection.has_width(one.d_sae))
    )


def _selected(release: str, listed: list[Listed], selection: Selection) -> list[Listed]:
    """Those of the L0 and the checkpoint that were asked for."""
    asked = {"checkpoint": selection.checkpoint, "l0": selection.l0}
    known = {"checkpoint": any("checkpoint" in o.variant for o in listed), "l0": any(o.l0 is not None for o in listed)}
    for name, value in asked.items():
        if value is not None and listed and not known[name]:
            _log.warning("%s records no %s: --%s %s changes nothing there", release, name, name, value)
    if selection.checkpoint is not None and known["checkpoint"]:
        wanted = str(selection.checkpoint)
        there = _counts("checkpoint", listed)
        listed = [one for one in listed if one.variant.get("checkpoint") == wanted]
        if not listed:
            raise IngestError(f"{release} has no checkpoint {wanted}; there: {there}")
    if selection.l0 is None or not known["l0"]:
        return listed
    if selection.l0_number is None:
        named = [one for one in listed if one.variant.get("l0") == selection.l0]
        if not named:
            raise IngestError(
                f"{release} has no l0 {selection.l0}; there: {_counts('l0', listed)}; --l0 N takes the nearest to N"
            )
        return named
    nearest = selection.l0_number
    return _best(listed, "l0", lambda one: (one.l0 is None, abs((one.l0 or 0) - nearest), one.l0 or 0))


def _best(listed: list[Listed], name: str, key: Callable[[Listed], Any]) -> list[Listed]:
    """Of those that differ in one part of the variant alone, the one with the smallest key."""
    best: dict[tuple[str, ...], Listed] = {}
    for one in sorted(listed, key=key):
        best.setdefault(one.without(name), one)
    kept = {one.id for one in best.values()}
    return [one for one in listed if one.id in kept]


def _defaults(release: str, listed: list[Listed], selection: Selection) -> list[Listed]:
    """The smallest common width, the last checkpoint, the first seed; what is left out is said."""
    common = _common_width(listed) if selection.width is None else None
    if common is not None:
        _log.warning("%s holds several widths; taking %d features (--width all: every one)", release, common)
        listed = [one for one in listed if one.d_sae == common]
    last = _best(listed, "checkpoint", lambda one: -int(one.variant.get("checkpoint", 1 << 60)))
    if len(last) < len(listed):
        _log.warning("%s holds several checkpoints; taking the last of each (--checkpoint STEP: another)", release)
    first = _best(last, "seed", lambda one: int(one.variant.get("seed", 0)))
    if len(first) < len(last):
        _log.warning("%s holds several seeds; taking the first of each ('%s/*seed_1': another)", release, release)
    return first


def _common_width(listed: Iterable[Listed]) -> int | None:
    """The smallest width that every place has, where several places have several widths; otherwise None."""
    places: dict[str, set[int]] = {}
    for one in listed:
        if one.d_sae is not None:
            places.setdefault(one.place, set()).add(one.d_sae)
    if len(places) < 2 or all(len(widths) == 1 for widths in places.values()):
        return None
    return min(set.intersection(*places.values()), default=None)


def _check(release: str, there: Sequence[Listed], chosen: Sequence[Listed]) -> None:
    """Raise IngestError where several are left at one place, unless Neuronpedia has an id for each."""
    groups: dict[tuple[str, str], list[Listed]] = {}
    for one in chosen:
        groups.setdefault((one.place, one.variant.get("width", "")), []).append(one)
    for group in groups.values():
        if len({one.neuronpedia for one in group if one.neuronpedia}) < len(group) > 1:
            one, other, *_ = group
            counts = [f"{name}: {_counts(name, there)}" for name in _VARIANTS if len(_values(name, there)) > 1]
            raise IngestError(
                f"{one.address} and {other.address} would both be taken for one place; choose by "
                f"{' or '.join(_options(release, there, other))}; there: {'; '.join(counts)}"
            )


def _options(release: str, there: Sequence[Listed], one: Listed) -> list[str]:
    """What a user can type to choose among these; `one` is the example of a glob."""
    axes = [name for name in _VARIANTS if len(_values(name, there)) > 1]
    names = [name for name in L0S if name in _values("l0", there)]
    options = [f"--l0 {'|'.join([*names, 'N'])} (the nearest to N)"] if "l0" in axes else []
    options += ["--width 16k"] if "width" in axes else []
    if names or not {"l0", "width"}.issuperset(axes):
        options.append(f"a pattern over ids such as '{release}/*{one.folded.removeprefix('average_')}'")
    return options


def _values(name: str, listed: Iterable[Listed]) -> Counter[str]:
    values = (one.variant.get(name, _ABSENT.get(name, "none")) for one in listed)
    return Counter(_SHOWN.get(value, value) for value in values)


def _counts(name: str, listed: Sequence[Listed]) -> str:
    """How many have each value, e.g. `small (52), medium (52), big (52)`; of many L0s their range."""
    values = _values(name, listed)
    if name == "l0" and not set(L0S).intersection(values):
        return _l0s(listed)
    return ", ".join(f"{value} ({values[value]})" for value in sorted(values, key=_order))


def _l0s(listed: Sequence[Listed]) -> str:
    known = [one.l0 for one in listed if one.l0 is not None]
    return f"{min(known):g} to {max(known):g} ({len(known)})"


def _order(value: str) -> tuple[float, str]:
    """Widths and numbers by size, L0s as small, medium, big."""
    if value in L0S:
        return L0S.index(value), value
    number = re.match(r"\d+", value)
    return (float(number[0]) * (1000 if value.endswith("m") else 1) if number else math.inf), value

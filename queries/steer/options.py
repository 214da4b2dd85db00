"""How features are turned, and which of those given: what every way to a plan takes alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.ids import RES, SITES
from queries.steer.intervention import ABLATE, ADD, CLAMP, MODES, POSITIONS, SUPPRESS, check
from queries.steer.strength import SCHEDULES, Given, Strength, layer_test, scheduled

Located = Mapping[str, tuple[Dictionary, int]]  # features, each with its dictionary and its row there


@dataclass(frozen=True, kw_only=True)
class SteeringOptions:
    """The choices that all features of a plan share."""

    mode: str = ADD  # add, suppress, clamp or ablate
    strength: Given = None  # of features without one of their own; None: 0 (remove) for suppress, else none
    positions: str = "all"  # all, prompt, turn (a chat prompt's last) or generated
    schedule: str = "constant"  # constant, linear or exponential, over the layers that remain
    layers: str | None = None  # `single:12`, `upto:12` or `8-12`; None: all
    sites: Iterable[str] | None = None  # those to keep; None: all, or what `for_lineage` says

    def __post_init__(self) -> None:
        """Raises PlanError for a choice that is not known, or that changes nothing."""
        check("mode", self.mode, MODES)
        check("positions", self.positions, POSITIONS)
        check("schedule", self.schedule, SCHEDULES)
        object.__setattr__(self, "sites", None if self.sites is None else tuple(self.sites))
        for site in self.sites or ():
            check("site", site, SITES)
        layer_test(self.layers)
        if self.mode == ABLATE and self.schedule != "constant":
            raise PlanError(f"mode ablate has no strength, so schedule {self.schedule} changes nothing")

    def for_lineage(self) -> SteeringOptions:
        """The same for a flow graph: residual features alone for add and clamp (paper §5.3), unless sites are named."""
        alone = self.sites is None and self.mode in (ADD, CLAMP)
        return replace(self, sites=(RES,)) if alone else self

    def kept(self, features: Located) -> dict[str, tuple[Dictionary, int]]:
        """The features in the chosen layers and sites; raises PlanError where there are none."""
        sites, selected = SITES if self.sites is None else self.sites, layer_test(self.layers)
        kept = {f: (d, row) for f, (d, row) in features.items() if d.site in sites and selected(d.layer)}
        if not kept:
            there = sorted({(dictionary.layer, dictionary.site) for dictionary, _ in features.values()})
            where = ", ".join(f"{layer}/{site}" for layer, site in there) or "nowhere"
            raise PlanError(f"no feature is left to steer: the {len(features)} given sit at {where}")
        return kept

    def strengths(self, features: Located, own: Mapping[str, Given]) -> dict[str, Strength | None]:
        """The strength of each feature in its layer; raises PlanError where one needs a strength and has none."""
        layers = [dictionary.layer for dictionary, _ in features.values()]
        unscheduled = {feature: self._strength(feature, own[feature]) for feature in features}
        return {
            feature: strength and scheduled(strength, self.schedule, features[feature][0].layer, layers)
            for feature, strength in unscheduled.items()
        }

    def _strength(self, feature: str, own: Given) -> Strength | None:
        """A feature's strength before the schedule."""
        chosen = self.strength if own is None else own
        if self.mode == ABLATE:
            if chosen is not None:
                raise PlanError(f"mode ablate has no strength; {feature} was given {chosen}")
            return None
        if chosen is None:
            if self.mode == SUPPRESS:
                return Strength(0.0)
            raise PlanError(f"mode {self.mode} needs a strength for {feature}, e.g. {'30%' if self.mode == ADD else 5}")
        return Strength.of(chosen)

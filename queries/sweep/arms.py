"""The arms of a sweep: what each turns, at equal total doses, and the controls beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary
from atlas.ids import RES
from queries.lineage.walk import lineage
from queries.policy.home import home_of
from queries.steer.intervention import ADD, Intervention, interventions_on
from queries.steer.plan import SteeringPlan
from queries.steer.strength import Strength
from queries.sweep.design import (
    EXPONENTIAL,
    LINEAR,
    MEANS,
    NOISE,
    PROMPTED,
    RANDOM,
    REVERSED,
    SEEDS,
    SINGLE,
    UNSTEERED,
    UPTO,
    Design,
)
from queries.sweep.doses import lengths, spread

if TYPE_CHECKING:
    from atlas.atlas import Atlas
    from queries.sweep.streams import Streams

ASKED = "The following text is about {theme}.\n\n"  # what the prompted arm puts before each prompt
_SCHEDULES = {LINEAR: "linear", EXPONENTIAL: "exponential"}
ONCE = (UNSTEERED, PROMPTED)  # arms that have no strength


class Arm(NamedTuple):
    """One arm."""

    kind: str  # of queries.sweep.design.KINDS
    layer: int | None = None  # of single, upto and means

    @property
    def name(self) -> str:
        """As it stands in every table: `lineage`, `single:9`."""
        return self.kind if self.layer is None else f"{self.kind}:{self.layer}"


class Cell(NamedTuple):
    """One arm at one strength: texts that are made alike."""

    arm: Arm
    strength: str | None  # None: the arm has none

    @property
    def name(self) -> str:
        return self.arm.name if self.strength is None else f"{self.arm.name} {self.strength}"


Chain = Mapping[str, tuple[Dictionary, int]]  # the lineage's features, each with its dictionary and its row there


def chain_of(atlas: Atlas, design: Design) -> dict[str, tuple[Dictionary, int]]:
    """The features that the lineage's arms turn: the residual ones to add (paper §5.3), all to suppress.

    Raises UnknownFeature; PlanError where no residual feature is left.
    """
    found: dict[str, tuple[Dictionary, int]] = {}
    for seed in design.features:
        # Types as the command line gives them; lineage() refuses what is no threshold.
        graph = lineage(atlas, seed, min_res=design.min_res, min_module=design.min_module)  # type: ignore[arg-type]
        found |= {node.id: atlas.locate(node.id) for node in graph.nodes}
    if design.mode == ADD:
        found = {id_: place for id_, place in found.items() if place[0].site == RES}
    if not found:
        raise PlanError(f"the lineage of {', '.join(design.features)} has no residual feature to turn")
    return dict(sorted(found.items(), key=lambda item: (item[1][0].depth, item[0])))


def cells_of(design: Design, chain: Chain) -> list[Cell]:
    """Every arm at every strength, unsteered first. Raises PlanError for a dose that a schedule cannot spread."""
    layers = sorted({record.layer for record, _ in chain.values()})
    arms: list[Arm] = []
    for kind in (UNSTEERED, *(kind for kind in design.arms if kind != UNSTEERED)):
        if kind in (SINGLE, MEANS):
            arms += [Arm(kind, layer) for layer in layers]
        if kind == UPTO:  # up to the first is a single layer, up to the last the lineage
            arms += [Arm(kind, layer) for layer in layers[1:-1]]
        # With one layer a schedule, and means of all layers, would be another arm once more.
        if kind not in (SINGLE, UPTO) and not (len(layers) == 1 and kind in (MEANS, *_SCHEDULES)):
            arms.append(Arm(kind))
    if LINEAR in design.arms and design.mode == ADD:
        for strength in design.tried(LINEAR):  # refused here, not after hours
            spread(Strength.of(strength).value, layers, "linear")
    return [
        Cell(arm, strength) for arm in arms for strength in ((None,) if arm.kind in ONCE else design.tried(arm.kind))
    ]


@dataclass(frozen=True)
class Plans:
    """Makes the plan of a cell."""

    atlas: Atlas
    design: Design
    chain: Chain
    streams: Streams

    def draws(self, arm: Arm) -> int:
        """How many plans texts take turns with: controls are drawn several times."""
        return self.design.controls if arm.kind in (RANDOM, NOISE) else 1

    def plan(self, cell: Cell, draw: int = 0) -> SteeringPlan | None:
        """The plan of a cell; None where nothing is turned. Raises PlanError."""
        arm = cell.arm
        if cell.strength is None:
            return None
        strength = Strength.of(cell.strength)
        if self.design.mode != ADD:
            return self._suppressing(arm, strength, draw)
        if arm.kind in (NOISE, MEANS):
            return self._directions(arm, strength, draw)
        chosen = {id_: place[0].layer for id_, place in self.chain.items() if _selected(arm, place[0].layer)}
        given = lengths(strength, chosen, self.streams.norms, _SCHEDULES.get(arm.kind, "constant"))
        if arm.kind == REVERSED:
            given = {id_: replace(each, value=-each.value) for id_, each in given.items()}
        return self._made(given, draw if arm.kind == RANDOM else None, cell)

    def _suppressing(self, arm: Arm, factor: Strength, draw: int) -> SteeringPlan:
        chosen: Iterable[str] = [id_ for id_, place in self.chain.items() if _selected(arm, place[0].layer)]
        if arm.kind == SEEDS:
            chosen = map(self.atlas.full_id, self.design.features)
        given = dict.fromkeys(chosen, factor)
        return self._made(given, draw if arm.kind == RANDOM else None, Cell(arm, str(factor)))

    def _made(self, given: Mapping[str, Strength], control: int | None, cell: Cell) -> SteeringPlan:
        origin = {"arm": cell.arm.name, "strength": cell.strength, "features": list(self.design.features)}
        plan = SteeringPlan(tuple(interventions_on(self.atlas, given, self.design.mode)), origin)
        return plan if control is None else plan.control(self.atlas, self.design.seed + control)

    def _directions(self, arm: Arm, dose: Strength, draw: int) -> SteeringPlan:
        """Directions that are no feature's: noise, or differences of means, at the doses of the lineage's features."""
        chosen = {id_: place[0].layer for id_, place in self.chain.items() if _selected(arm, place[0].layer)}
        given = lengths(dose, chosen, self.streams.norms)
        totals: dict[int, float] = {}
        for id_, layer in chosen.items():
            totals[layer] = totals.get(layer, 0.0) + given[id_].value
        places, home = stream_places(self.chain), home_of(self.atlas)
        return SteeringPlan(
            tuple(
                Intervention(
                    f"{arm.kind} at {layer}" + (f", draw {draw}" if arm.kind == NOISE else ""),
                    places[layer],
                    0,
                    ADD,
                    Strength(total),
                    direction=_unit(self._direction(arm, layer, draw, places[layer].d_model)),
                    home=home,
                )
                for layer, total in totals.items()
            ),
            {"arm": arm.name, "strength": str(dose), "draw": draw},
        )

    def _direction(self, arm: Arm, layer: int, draw: int, width: int) -> np.ndarray:
        if arm.kind == MEANS:
            return self.streams.means[layer]
        return np.random.default_rng([abs(self.design.seed), 2, layer + 1, draw]).normal(size=width)


def stream_places(chain: Chain) -> dict[int, Dictionary]:
    """Of each layer of the chain a dictionary whose rows are written to the stream after it; residual ones alone."""
    return {record.layer: record for record, _ in chain.values() if record.site == RES}


def _selected(arm: Arm, layer: int) -> bool:
    if arm.layer is None:
        return True
    return layer <= arm.layer if arm.kind == UPTO else layer == arm.layer


def _unit(direction: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(direction))
    if not length > 0:
        raise PlanError("the contrast text's two kinds of passages have the same mean: give another text")
    unit: np.ndarray = (direction / length).astype(np.float32)
    return unit

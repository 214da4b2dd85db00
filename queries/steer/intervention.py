"""One intervention of a steering plan: a feature, where and how it is turned, and how strongly.

Modes, for a direction d (|d| = 1), the hidden state h that the hook sees and the feature's activation a:

- add       h + s·d, or h + p·‖h‖·d where the strength is a share of the norm (paper §5.3)
- suppress  h + (r − 1)·a·f, f the feature's decoder row; 0 removes it, below 0 overshoots (paper §5.2)
- clamp     h + (v − a)·f: its activation is held at v
- ablate    h − (h·d)·d: the component along d is removed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.errors import PlanError
from atlas.folder.dictionary import Dictionary, Rows
from atlas.schema import FEATURE
from hooked.hook_names import is_mid
from queries.policy.home import Home, home_of
from queries.steer.strength import Strength

if TYPE_CHECKING:
    from atlas.atlas import Atlas

ADD, SUPPRESS, CLAMP, ABLATE = "add", "suppress", "clamp", "ablate"
MODES = (ADD, SUPPRESS, CLAMP, ABLATE)
POSITIONS = ("all", "prompt", "generated", "turn")
VECTOR = "vector"  # architecture and set of a direction that is no feature (queries.plans.vector)
LABELS = f"MATCH (f:{FEATURE}) WHERE f.id IN $ids RETURN f.id AS id, f.label AS label"


@dataclass(frozen=True)
class Intervention:
    """One feature, turned."""

    feature: str  # its id
    dictionary: Dictionary = field(repr=False)  # the record: says where its rows are written and its encoder reads
    index: int  # its row there
    mode: str  # add, suppress, clamp or ablate
    strength: Strength | None  # add: s or a share; suppress: r; clamp: the activation to hold; ablate: None
    positions: str = "all"  # all, prompt, turn (a chat prompt's last) or generated
    label: str | None = None  # what a person calls it, where the atlas knows
    direction: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False, repr=False)  # float32 [d_model]
    rows: Rows | None = field(default=None, compare=False, repr=False)  # its dictionary's rows: the encoder
    home: Home | None = field(default=None, compare=False, repr=False)  # the atlas folder, with its policy

    def __post_init__(self) -> None:
        """Raises PlanError for a mode, position or strength that is none."""
        check("mode", self.mode, MODES)
        check("positions", self.positions, POSITIONS)
        if (self.strength is None) != (self.mode == ABLATE):
            wrong = "has no strength" if self.mode == ABLATE else "needs a strength"
            raise PlanError(f"mode {self.mode} {wrong} ({self.feature})")
        if is_mid(self.dictionary.hook_name) and (self.mode != ADD or (self.strength and self.strength.percent)):
            raise PlanError(
                f"{self.feature} is in the stream between attention and MLP, which no module puts out: its direction "
                "can be added, with a length as strength, but nothing else; take a feature of the stream after a block"
            )
        if self.strength is not None and self.strength.percent and self.mode != ADD:
            raise PlanError(f"strength {self.strength}: a share of the norm is for mode add, not for {self.mode}")

    @property
    def imported(self) -> bool:
        """Whether its direction is no feature of an atlas."""
        return self.dictionary.architecture == VECTOR

    def to_dict(self) -> dict[str, Any]:
        """What a person reads and `SteeringPlan.load` looks up again; the vectors of features stay in the atlas."""
        values = {
            "feature": self.feature,
            "label": self.label,
            "layer": self.dictionary.layer,
            "site": self.dictionary.site,
            "hook": self.dictionary.hook_name,
            "mode": self.mode,
            "strength": _plain(self.strength),
            "positions": self.positions,
            "rows_sha256": self.dictionary.rows_sha256,
        }
        return values | ({"vector": self.direction.tolist()} if self.imported else {})


def interventions_on(
    atlas: Atlas, strengths: Mapping[str, Strength | None], mode: str, positions: str = "all"
) -> Iterator[Intervention]:
    """Interventions on features of an atlas, each with its direction and, where its mode measures, its encoder.

    Raises UnknownFeature, also for a dead feature, which has no direction.
    """
    ids = list(strengths)
    # One read for all: a plan may name thousands.
    labels = {row["id"]: row["label"] for row in atlas.read(LABELS, ids=ids)}
    directions = np.array(atlas.directions(ids), dtype=np.float32)
    # Each knows where it is from, so that whoever runs it is held to that atlas' policy.
    home = home_of(atlas)
    for id_, direction in zip(ids, directions, strict=True):
        record, index = atlas.locate(id_)
        rows = atlas.rows(record.id) if mode in (SUPPRESS, CLAMP) else None
        yield Intervention(id_, record, index, mode, strengths[id_], positions, labels.get(id_), direction, rows, home)


class Turn(NamedTuple):
    """What is done to a feature, before its rows are looked up."""

    feature: str
    mode: str
    strength: Strength | None
    positions: str


def turned(atlas: Atlas, turns: Sequence[Turn]) -> list[Intervention]:
    """Interventions in the order given, all of one mode and position looked up at once.

    Raises PlanError, also for a feature that is named twice; UnknownFeature.
    """
    groups: dict[tuple[str, str], dict[str, Strength | None]] = {}
    for turn in turns:
        group = groups.setdefault((turn.mode, turn.positions), {})
        # Twice would be their sum for one mode and nonsense for another.
        if turn.feature in group:
            raise PlanError(f"{turn.feature} is named twice; give it once, with one strength")
        group[turn.feature] = turn.strength
    made = {
        (mode, positions, each.feature): each
        for (mode, positions), strengths in groups.items()
        for each in interventions_on(atlas, strengths, mode, positions)
    }
    return [made[turn.mode, turn.positions, turn.feature] for turn in turns]


def check(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raises PlanError where the value is not one of the known."""
    if value not in known:
        raise PlanError(f"{what} {value!r} is not known; known: {', '.join(known)}")


def _plain(strength: Strength | None) -> float | str | None:
    """A number where it is one, `"30%"` where it is a share."""
    if strength is None:
        return None
    return str(strength) if strength.percent else strength.value

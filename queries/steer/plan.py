"""A steering plan: interventions on one model. A value, made once and applied to any run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import PlanError
from queries.lineage.graph import Lineage
from queries.lineage.walk import lineage
from queries.plans.vector import vector_from_file
from queries.policy.findings import Finding, enforce, findings
from queries.policy.home import Home, home_of
from queries.steer.control import drawn
from queries.steer.intervention import ADD, Intervention, Turn, interventions_on, turned
from queries.steer.options import SteeringOptions
from queries.steer.plan_file import check_entry, plan_values, read_plan, write_plan
from queries.steer.strength import Given, Strength, given_by_id, given_by_row

if TYPE_CHECKING:
    from atlas.atlas import Atlas

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SteeringPlan:
    """Interventions on one model, in the order of the forward pass."""

    interventions: tuple[Intervention, ...]
    origin: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)  # where its features come from
    findings: tuple[Finding, ...] = field(default=(), init=False, compare=False, repr=False)  # what a policy warns of

    def __post_init__(self) -> None:
        """Raises PlanError where the plan is empty, names a feature twice in one mode or mixes models; PolicyError."""
        object.__setattr__(self, "interventions", tuple(sorted(self.interventions, key=_order)))
        if not self.interventions:
            raise PlanError("the plan is empty: no feature is left to steer")
        models = sorted({each.dictionary.model for each in self.interventions})
        if len(models) > 1:
            raise PlanError(f"one plan steers one model; these features are of {', '.join(models)}")
        seen: set[tuple[str, str]] = set()
        for each in self.interventions:
            if (each.feature, each.mode) in seen:
                raise PlanError(f"{each.feature} is named twice; give it once, with one strength")
            seen.add((each.feature, each.mode))
        object.__setattr__(self, "findings", tuple(findings(self.interventions)))
        enforce(self.findings)
        for found in self.findings:
            _log.warning("%s", found)

    @property
    def digest(self) -> str:
        """SHA-256 of what the plan does, in hexadecimal digits: its model and interventions, not where they are from.

        Labels are no part of it.
        """
        done = [{n: v for n, v in each.to_dict().items() if n != "label"} for each in self.interventions]
        return hashlib.sha256(json.dumps([self.model_name, done], sort_keys=True).encode()).hexdigest()

    @property
    def home(self) -> Home | None:
        """The atlas folder that its features are from; None where they are from none."""
        return next((each.home for each in self.interventions if each.home is not None), None)

    @property
    def model_name(self) -> str:
        """The model as it can be loaded: hub name or folder."""
        return self.interventions[0].dictionary.model_name

    @classmethod
    def from_features(
        cls,
        atlas: Atlas,
        features: Mapping[str, Given] | Iterable[str],
        *,
        mode: str = ADD,
        strength: Given = None,
        positions: str = "all",
        schedule: str = "constant",
        layers: str | None = None,
        sites: Iterable[str] | None = None,
    ) -> SteeringPlan:
        """A plan from feature ids, each with its strength or all with one.

        Args:
            features: ids, or ids with strengths: numbers, `"30%"`, or None for `strength`.
            strength: for the features without one of their own; 0 (remove) where mode is suppress and none is given.
            schedule: constant, linear or exponential over the layers that remain.
            layers: `single:12`, `upto:12` or `8-12`; None: all.
            sites: those to keep; None: all.
        Raises PlanError, and UnknownFeature for an id that the atlas does not hold.

        Example:
            film = "smollm2-135m-instruct/9-res-2k/2018"
            plan = SteeringPlan.from_features(atlas, {film: "30%"})
            removed = SteeringPlan.from_features(atlas, [film], mode="suppress")
        """
        options = SteeringOptions(
            mode=mode, strength=strength, positions=positions, schedule=schedule, layers=layers, sites=sites
        )
        given = given_by_id(features)
        return cls.of(atlas, given, options, {"features": list(given)})

    @classmethod
    def from_lineage(
        cls,
        atlas: Atlas,
        graph: Lineage | Mapping[str, Any] | str,
        strength: Given = None,
        *,
        mode: str = ADD,
        positions: str = "all",
        schedule: str = "constant",
        layers: str | None = None,
        sites: Iterable[str] | None = None,
    ) -> SteeringPlan:
        """A plan from a flow graph: what `lineage` returned, its dict, or a feature id whose graph is then drawn.

        Residual features alone are turned for add and clamp, all sites for suppress and ablate (paper §5.3), unless
        `sites` says otherwise. Raises PlanError where nothing is left.

        Example:
            graph = lineage(atlas, "smollm2-135m-instruct/9-res-2k/2018", min_res="floor")
            plan = SteeringPlan.from_lineage(atlas, graph, 15, layers="9-11")
        """
        options = SteeringOptions(
            mode=mode, strength=strength, positions=positions, schedule=schedule, layers=layers, sites=sites
        )
        if isinstance(graph, str):
            graph = lineage(atlas, graph)
        values = graph if isinstance(graph, Mapping) else graph.to_dict()
        origin = {"lineage": values.get("seed")} | ({} if isinstance(graph, Mapping) else dict(graph.options))
        return cls.of(atlas, given_by_id(node["id"] for node in values["nodes"]), options.for_lineage(), origin)

    @classmethod
    def from_query(
        cls,
        atlas: Atlas,
        cypher: str,
        strength: Given = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        mode: str = ADD,
        positions: str = "all",
        schedule: str = "constant",
        layers: str | None = None,
        sites: Iterable[str] | None = None,
    ) -> SteeringPlan:
        """A plan from a query's rows: column `feature` and, where it likes, `strength`.

        Raises PlanError where the rows have no such column, QueryError where the query cannot be answered.

        Example:
            cypher = "MATCH (f:Feature) WHERE f.label CONTAINS $word RETURN f.id AS feature LIMIT 3"
            plan = SteeringPlan.from_query(atlas, cypher, "6%", parameters={"word": "film"})
        """
        options = SteeringOptions(
            mode=mode, strength=strength, positions=positions, schedule=schedule, layers=layers, sites=sites
        )
        origin = {"cypher": cypher, "parameters": dict(parameters or {})}
        return cls.of(atlas, given_by_row(atlas.query(cypher, **(parameters or {}))), options, origin)

    @classmethod
    def of(
        cls,
        atlas: Atlas,
        features: Mapping[str, Given],
        options: SteeringOptions,
        origin: Mapping[str, Any] | None = None,
    ) -> SteeringPlan:
        """A plan from feature ids with what strength each was given, if any; raises PlanError, UnknownFeature."""
        kept = options.kept({feature: atlas.locate(feature) for feature in features})
        strengths = options.strengths(kept, features)
        state = {"atlas": {"id": atlas.manifest.id, "state": atlas.manifest.state}}
        return cls(
            tuple(interventions_on(atlas, strengths, options.mode, options.positions)),
            None if origin is None else {**origin, **state},
        )

    def control(self, atlas: Atlas, seed: int = 0) -> SteeringPlan:
        """The same doses to other living features of the same dictionaries, drawn by the seed; raises PlanError.

        Example:
            other = plan.control(atlas, seed=1)
            print([each.feature for each in other.interventions])
        """
        if any(each.imported for each in self.interventions):
            raise PlanError("a control draws other features of the plan's dictionaries; an imported vector has none")
        others = drawn(atlas, {each.feature: (each.dictionary, each.index) for each in self.interventions}, seed)
        turns = [Turn(others[each.feature], each.mode, each.strength, each.positions) for each in self.interventions]
        return SteeringPlan(tuple(turned(atlas, turns)), {"control": self.origin, "seed": seed})

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values; see `save`."""
        return plan_values(self.model_name, [each.to_dict() for each in self.interventions], self.origin)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What is turned and how, for notebooks: lines of text and a table without styles."""
        from atlas.notebook import bundle, table

        rows = [{**each.to_dict(), "strength": str(each.strength or "")} for each in self.interventions]
        shown = [{name: row[name] for name in ("feature", "label", "mode", "strength", "positions")} for row in rows]
        lines = [" ".join(str(value) for value in row.values() if value not in (None, "")) for row in shown]
        title = f"Steering plan for {self.model_name}"
        return bundle("\n".join([title, *lines]), table(shown, title), include, exclude)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON that a person can read: features, strengths and where they come from, no vectors.

        Example:
            plan.save("film.json")
        """
        write_plan(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path, atlas: Atlas) -> SteeringPlan:
        """Read a saved plan and look its rows up in `atlas`.

        Raises PlanError where the file is none, where it contradicts itself, or where the atlas' rows are other than
        those the plan was made with; UnknownFeature.

        Example:
            plan.save("film.json")
            again = SteeringPlan.load("film.json", atlas)
        """
        return cls(*loaded(Path(path), atlas))


def loaded(path: Path, atlas: Atlas) -> tuple[tuple[Intervention, ...], Mapping[str, Any] | None]:
    """The interventions of a saved plan, and where they come from, before any policy is looked at; raises as `load`."""
    values = read_plan(path)
    turns: list[Turn] = []
    vectors: list[Intervention] = []
    for entry in values["interventions"]:
        if "vector" in entry:
            vectors.append(vector_from_file(values["model"], entry, home_of(atlas)))
            continue
        record, _ = atlas.locate(entry["feature"])
        if record.rows_sha256 != entry["rows_sha256"]:
            raise PlanError(
                f"{path} was made with other rows of {record.id} than this atlas holds: make the plan anew from it"
            )
        check_entry(path, values["model"], entry, record)
        strength = None if entry["strength"] is None else Strength.of(entry["strength"])
        turns.append(Turn(entry["feature"], entry["mode"], strength, entry["positions"]))
    return (*turned(atlas, turns), *vectors), values.get("origin")


def _order(intervention: Intervention) -> tuple[int, str, int]:
    return intervention.dictionary.depth, intervention.dictionary.id, intervention.index

"""What a sweep will do, as a value: written into its folder before anything is generated, and held to afterwards."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from atlas.errors import PlanError
from atlas.folder.manifest import write_text
from queries.steer.intervention import ADD, SUPPRESS
from queries.steer.strength import Strength

FORMAT = 1
DESIGN, RUNS = "design.json", "runs.json"
_PACKAGES = ("feature-atlas", "torch", "transformers", "numpy", "pyarrow", "sae-lens")
CHOOSE, REPORT = "choose", "report"  # the two halves of the prompts
# Kinds of arms, in the order in which they run; the contrasts that are tested are named in queries.sweep.findings.
UNSTEERED, PROMPTED, LINEAGE, LINEAR, EXPONENTIAL, REVERSED, RANDOM, NOISE, SINGLE, UPTO, MEANS, SEEDS = (
    "unsteered",
    "prompted",
    "lineage",
    "linear",
    "exponential",
    "reversed",
    "random",
    "noise",
    "single",
    "upto",
    "means",
    "seeds",
)
KINDS = {
    ADD: (UNSTEERED, PROMPTED, LINEAGE, LINEAR, EXPONENTIAL, REVERSED, RANDOM, NOISE, SINGLE, UPTO, MEANS),
    SUPPRESS: (UNSTEERED, LINEAGE, SEEDS, RANDOM, SINGLE, UPTO),
}
DOSES = ("12%", "24%", "36%", "48%")
FACTORS = ("0", "-1", "-2", "-4", "-8", "-16", "-32", "-64")  # r of the paper's suppression (§5.3)
PROMPTS = {
    ADD: (
        "I think ",
        "My friend told me that",
        "The most important thing is",
        "Yesterday we",
        "It is well known that",
        "She looked at me and said",
        "In the morning",
        "The book begins with",
    ),
    # The first is the paper's own (App. B); halves need a second.
    SUPPRESS: (
        "I think that the biggest problem of contemporary theoretical physics is ",
        "The history of science shows that ",
    ),
}
TOKENS = {ADD: 36, SUPPRESS: 96}  # new tokens, and at most 96 for suppression (paper App. B)


@dataclass(frozen=True, kw_only=True)
class Design:
    """The choices of a sweep; two sweeps with equal designs on one atlas and model give the same texts."""

    features: tuple[str, ...]  # seeds of the lineage
    theme: str  # what the texts shall be about, in words: for the prompted arm and a judge
    words: tuple[str, ...]  # the theme's words, as `score --words` takes them
    model: str  # hub name or folder
    mode: str = ADD  # add or suppress
    # add: an arm's total dose, a length or a share of the norm; suppress: r. `lineage=72%` is for that kind alone.
    strengths: tuple[str, ...] = DOSES
    arms: tuple[str, ...] = KINDS[ADD]  # kinds of arms
    prompts: tuple[str, ...] = PROMPTS[ADD]  # those at even places choose strengths, the others report
    samples: int = 16  # texts a prompt, arm and strength, of the half that chooses
    report_samples: int = 32  # texts a prompt of each chosen arm, of the half that reports
    seed: int = 0
    max_new_tokens: int = TOKENS[ADD]
    temperature: float = 1.27  # of the paper (App. B), as is top_p
    top_p: float | None = 0.7
    min_res: float | str = 0.5  # where the lineage ends: a cosine or "floor"
    min_module: float | str = 0.25
    controls: int = 4  # draws of random features and of noise: texts take turns
    held_out: tuple[str, ...] = ()  # features of the theme that no arm turns; empty: chosen by the theme's words
    contrast: str | None = None  # a text whose passages with and without the theme's words give the means
    contrast_sha256: str | None = None
    atlas: Mapping[str, Any] = field(default_factory=dict)  # id and state of the atlas

    def __post_init__(self) -> None:
        """Raises PlanError where a choice is none, or halves cannot be formed."""
        if self.mode not in KINDS:
            raise PlanError(f"a sweep adds or suppresses, not {self.mode!r}")
        unknown = [name for name in self.arms if name not in KINDS[self.mode]]
        if unknown:
            raise PlanError(f"arm {unknown[0]!r} is not known in mode {self.mode}: {', '.join(KINDS[self.mode])}")
        if len(set(self.prompts)) < max(2, len(self.prompts)):
            raise PlanError("a sweep needs two different prompts or more: on one half strengths are chosen")
        if min(self.samples, self.report_samples, self.controls) < 1:
            raise PlanError("a sweep needs at least one sample and one draw of its controls")
        unknown = [name for name, sign, _ in map(_parted, self.strengths) if sign and name not in KINDS[self.mode]]
        if unknown:
            raise PlanError(f"strengths name the arm {unknown[0]!r}; known: {', '.join(KINDS[self.mode])}")
        read = [Strength.of(each.rpartition("=")[2]) for each in self.strengths]
        if self.mode == ADD and (not read or any(each.value <= 0 for each in read)):
            raise PlanError("strengths are total doses above 0: 36% or 40; the arm `reversed` turns the sign")
        if self.mode == SUPPRESS and any(each.percent for each in read):
            raise PlanError("suppression takes factors r, such as 0 or -4, not shares of the norm")

    @property
    def key(self) -> str:
        """Names what decides the texts: equal keys, equal texts."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The design as JSON values."""
        values = json.loads(json.dumps(asdict(self)))
        return {"format": FORMAT, **values}

    def half(self, prompt: int) -> str:
        """Whether the prompt at this place chooses strengths or reports."""
        return REPORT if prompt % 2 else CHOOSE

    def texts(self, half: str) -> list[tuple[int, int]]:
        """Prompts and samples of a half, all prompts of a sample after another."""
        samples = self.report_samples if half == REPORT else self.samples
        prompts = [prompt for prompt in range(len(self.prompts)) if self.half(prompt) == half]
        return [(prompt, sample) for sample in range(samples) for prompt in prompts]

    def tried(self, kind: str) -> list[str]:
        """The strengths of a kind of arm, in the order given, none twice."""
        parts = map(_parted, self.strengths)
        return list(dict.fromkeys(value for name, _, value in parts if name in ("", kind)))

    def begin(self, folder: Path) -> None:
        """Write the design to the folder. Strengths and arms may be added to those of the sweep that is there.

        Raises PlanError where it is of another design otherwise: its texts would be others.
        """
        if (folder / DESIGN).exists():
            there = read_design(folder)
            grown = replace(self, strengths=there.strengths, arms=there.arms)
            more = set(self.strengths) >= set(there.strengths) and set(self.arms) >= set(there.arms)
            if grown.key != there.key or not more:
                mine, its = self.to_dict(), there.to_dict()
                other = ", ".join(name for name in mine if mine[name] != its.get(name))
                raise PlanError(f"{folder} holds a sweep of another design ({other} differ): give another folder")
        write_text(folder / DESIGN, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")


def _parted(strength: str) -> tuple[str, str, str]:
    """`lineage=72%` as its kind of arm, the sign and the strength; no kind where it is for all."""
    return strength.rpartition("=")


def read_design(folder: Path) -> Design:
    """The design of the sweep in a folder; raises PlanError where there is none that this version reads."""
    try:
        values = json.loads((folder / DESIGN).read_text(encoding="utf-8"))
    except OSError:
        raise PlanError(f"{folder} holds no sweep: {DESIGN} is missing") from None
    except ValueError as error:
        raise PlanError(f"{folder / DESIGN} is damaged ({error}); give another folder") from None
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise PlanError(f"{folder / DESIGN} is of another version of feature-atlas; run the sweep into another folder")
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    try:
        return Design(**tuples)
    except TypeError:
        raise PlanError(f"{folder / DESIGN} has other keys than a sweep's design; give another folder") from None


def command_of(design: Design, atlas: str, output: str) -> str:
    """The command that runs the design again, every choice spelled out; a judge is no part of it."""
    words: list[str] = ["feature-atlas", "sweep", *design.features, "-a", atlas, "-o", output]
    options: dict[str, Any] = {
        "words": ",".join(design.words),
        "theme": design.theme,
        "mode": design.mode,
        "strengths": ",".join(design.strengths),
        "arms": ",".join(design.arms),
        "samples": design.samples,
        "report-samples": design.report_samples,
        "seed": design.seed,
        "tokens": design.max_new_tokens,
        "temperature": design.temperature,
        "top-p": 1.0 if design.top_p is None else design.top_p,
        "min-res": design.min_res,
        "min-module": design.min_module,
        "model": design.model,
    }
    for name, value in options.items():
        words += [f"--{name}", str(value)] if not str(value).startswith("-") else [f"--{name}={value}"]
    for name, values in (("prompt", design.prompts), ("held-out", design.held_out)):
        words += [word for value in values for word in (f"--{name}", value)]
    return shlex.join([*words, *(["--contrast", design.contrast] if design.contrast else [])])


def versions() -> dict[str, str]:
    """What shaped the texts: packages, Python and the machine."""
    found = {name: version(name) for name in _PACKAGES if _installed(name)}
    return found | {"python": platform.python_version(), "machine": platform.platform()}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True

"""Does a plan keep a policy? What it adds along protected directions, however it is taken apart.

For each protected direction p and each way of turning it, over all interventions of the plan:

1. An intervention adds a vector v (its strength × unit direction, summed over layers by step 2), by a length or by a
   share of the norm. Suppression, clamping and ablation act along a feature's row by what they find there: they count
   whole, clamping in both directions, a suppression with r > 1 as amplification.
2. Interventions are taken in the order of their cosine with p, and summed one after another. A sum whose cosine with p
   reaches the rule's counts: so does one vector alone, the same direction a little in each layer, and two vectors that
   are p only together. What else the plan adds cannot hide it. Many vectors reach a cosine by chance that few do not,
   so that it rises with their number.
3. The amount is what the sum adds along p. Beyond what the rule allows it is a finding; lengths are not compared with
   shares, so that an amount in another unit than the rule's counts as beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atlas.errors import PolicyError
from queries.policy.home import Protected
from queries.policy.rules import AMPLIFY, BOTH, REFUSE, SUPPRESS, Rule
from queries.steer.intervention import ABLATE, ADD, CLAMP, Intervention

COLUMNS = ("rule", "then", "protected", "turned", "how", "amount", "cosine")


@dataclass(frozen=True)
class Finding:
    """One protected feature that a plan turns beyond what a rule allows."""

    rule: str
    then: str  # refuse or warn
    protected: str  # the feature
    turned: str  # amplify or suppress
    how: str  # what of the plan does it, and by which way
    amount: str  # along the protected direction: a length, a share of the norm, or what a mode does
    cosine: float  # of what is summed with it
    reason: str | None

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"rule {self.rule!r}: {self.how} would {self.turned} {self.protected} by {self.amount}{why}"


def findings(interventions: Sequence[Intervention]) -> list[Finding]:
    """What the policies of the interventions' atlases say of them together, the strongest of each rule first."""
    homes = {id(each.home): each.home for each in interventions if each.home is not None and each.home.protected}
    return [found for home in homes.values() for each in home.protected for found in _found(each, interventions)]


def enforce(found: Sequence[Finding]) -> None:
    """Raises PolicyError where one of the findings is to be refused."""
    refused = [each for each in found if each.then == REFUSE]
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise PolicyError(f"the atlas' policy forbids this: {refused[0]}{more}; `policy check` explains a saved plan")


def _found(protected: Protected, interventions: Sequence[Intervention]) -> list[Finding]:
    fitting = [each for each in interventions if each.dictionary.d_model == protected.directions.shape[1]]
    if not fitting:
        return []
    rows = np.stack([each.direction for each in fitting]).astype(np.float64)
    cosines = protected.directions.astype(np.float64) @ rows.T
    ways = (AMPLIFY, SUPPRESS) if protected.rule.may_not == BOTH else (protected.rule.may_not,)
    found: dict[str, Finding] = {}
    for way in ways:
        forces, percent = np.array([_force(each, way) for each in fitting]), [_percent(each) for each in fitting]
        # A row of one sign or the other: what is subtracted along −p is added along p.
        sign = 1.0 if way == AMPLIFY else -1.0
        for number, (id_, through) in enumerate(protected.features.items()):
            along = sign * cosines[number] * np.sign(forces)
            best = _strongest(protected, along, np.abs(forces), rows * (sign * np.sign(forces))[:, None])
            if best is None:
                continue
            chosen, amount, cosine = best
            shown = _amount(protected.rule, amount, [fitting[n] for n in chosen], [percent[n] for n in chosen])
            if shown is None:
                continue
            name = through or id_
            how = _how([fitting[n] for n in chosen], id_, through, cosine)
            made = Finding(
                protected.rule.name, protected.rule.then, name, way, how, shown, cosine, protected.rule.reason
            )
            # Of one protected feature the way that is nearest to it.
            if name not in found or made.cosine > found[name].cosine:
                found[name] = made
    return sorted(found.values(), key=lambda each: -each.cosine)


def _force(each: Intervention, way: str) -> float:
    """What it adds along its own row, signed: for modes other than add infinite, in the direction that it can go."""
    value = each.strength.value if each.strength is not None else 0.0
    if each.mode == ADD:
        return value
    if each.mode == CLAMP:
        # Held at a value it rises where it was below, and falls where it was above.
        return math.inf if way == AMPLIFY else -math.inf
    if each.mode == ABLATE:
        return -math.inf if way == SUPPRESS else 0.0
    return math.inf if value > 1 else -math.inf if value < 1 else 0.0


def _percent(each: Intervention) -> bool:
    return each.strength is not None and each.strength.percent


def _strongest(
    protected: Protected, along: np.ndarray, forces: np.ndarray, rows: np.ndarray
) -> tuple[list[int], float, float] | None:
    """Which interventions together are along p the most: their places, amount and cosine; None where none are."""
    helping = [int(n) for n in np.argsort(-along, kind="stable") if along[n] > 0 and forces[n] > 0]
    if not helping:
        return None
    width = rows.shape[1]
    best: tuple[list[int], float, float] | None = None
    total, amount = np.zeros(width), 0.0
    for count, n in enumerate(helping, 1):
        if math.isinf(forces[n]):
            # What a mode finds there is not known beforehand: it counts alone, whole.
            if along[n] >= protected.cosine and (best is None or not math.isinf(best[1])):
                best = [n], math.inf, float(along[n])
            continue
        total, amount = total + forces[n] * rows[n], amount + forces[n] * along[n]
        cosine = amount / float(np.linalg.norm(total))
        if cosine >= _least(protected.cosine, count, width) and (best is None or amount > best[1]):
            best = helping[:count], float(amount), float(cosine)
    return best


def _least(cosine: float, count: int, width: int) -> float:
    """The cosine from which a sum of so many vectors counts.

    Of many unrelated vectors those that help are summed, which brings a cosine of about √(count/d) by chance, and
    dictionaries' rows are more alike than random ones; docs/policy.md counts what is left.
    """
    return cosine if count == 1 else min(0.95, max(cosine * 5 / 3, 2.5 * math.sqrt(count / width)))


def _amount(rule: Rule, amount: float, chosen: list[Intervention], percent: list[bool]) -> str | None:
    """What is said of an amount beyond the rule; None where it is within."""
    if math.isinf(amount):
        (each,) = chosen
        return each.mode if each.strength is None else f"{each.mode} {each.strength}"
    units = set(percent)
    if units == {rule.beyond.percent} and amount <= rule.beyond.value:
        return None
    return f"{amount:.3g}{'%' if units == {True} else ' and shares of the norm' if len(units) > 1 else ''}"


def _how(chosen: list[Intervention], id_: str, through: str | None, cosine: float) -> str:
    names = " + ".join([each.feature for each in chosen[:3]] + [f"{len(chosen) - 3} more"] * (len(chosen) > 3))
    if [each.feature for each in chosen] == [id_]:
        return f"{names}, on its lineage," if through else names
    return f"{names} (cosine {cosine:.2f} with {f'{id_} on its lineage' if through else 'it'})"


__all__ = ["COLUMNS", "Finding", "enforce", "findings"]

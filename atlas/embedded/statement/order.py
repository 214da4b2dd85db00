"""In which order the relationships of a MATCH are matched, and which of them may stand in one pattern."""

from __future__ import annotations

from collections.abc import Callable

from atlas.embedded.statement.bindings import Bindings, Step

Group = list[Step | str]  # what is matched at once; text: a node that nothing joins


def grouped(bindings: Bindings, selective: Callable[[str], int], together: bool) -> list[Group]:
    """The steps in the order in which they are matched, those of one group in one pattern.

    selective: how few nodes a variable probably stands for. together: whether steps may share a pattern.
    """
    groups: list[Group] = []
    seen = set(bindings.bound)
    rest = list(bindings.steps)
    joining = False  # whether the last group may take one more step
    while rest:
        near = [step for step in rest if step.left in seen or step.right in seen]
        if not near:
            start = max({end: None for step in rest for end in (step.left, step.right)}, key=selective)
            near = [step for step in rest if start in (step.left, step.right)]
            seen.add(start)
            joining = False
        step = min(near, key=lambda each: (not each.simple, not {each.left, each.right} <= seen))
        closing = {step.left, step.right} <= seen
        if joining and step.simple and not closing and together:
            groups[-1].append(step)
        else:
            joining = step.simple and not ({step.left, step.right} & bindings.bound) and not (groups and closing)
            groups.append([step])
            joining = joining and not _touches_before(groups)
        seen |= {step.left, step.right}
        rest.remove(step)
    alone = {node.variable for path in bindings.paths for node in path.nodes} - seen
    return [*(Group([name]) for name in sorted(alone)), *groups]


def _touches_before(groups: list[Group]) -> bool:
    """Whether the last group continues an earlier one, so that its join order cannot be given."""
    before = {
        end for group in groups[:-1] for step in group if isinstance(step, Step) for end in (step.left, step.right)
    }
    return any(isinstance(step, Step) and {step.left, step.right} & before for step in groups[-1])


def one_way(one: Step, other: Step, steps: list[Step]) -> bool:
    """Whether both lie on one path that leads in one direction all the way between them."""
    if one.path is not other.path:
        return False
    own = [step for step in steps if step.path is one.path]
    between = own[own.index(one) : own.index(other) + 1]
    return len({step.pattern.direction for step in between}) == 1 and between[0].pattern.direction != "-"

"""Continuations on a terminal: beside each other with what made them differ, and while they are made."""

from __future__ import annotations

import sys
import textwrap
from itertools import zip_longest
from typing import Any

from queries.steer.generation import Generation
from queries.steer.plan import SteeringPlan


def side_by_side(prompt: str, plan: SteeringPlan, unsteered: Generation, steered: Generation, *, width: int) -> str:
    """Text of at most `width` columns: both continuations, the plan, the hooks that fired."""
    column = max((width - 3) // 2, 20)
    sides = [_wrapped(prompt + each.text, column) for each in (unsteered, steered)]
    lines = [f"{'unsteered':<{column}} │ steered", "─" * column + "─┼─" + "─" * column]
    lines += [f"{left:<{column}} │ {right}".rstrip() for left, right in zip_longest(*sides, fillvalue="")]
    lines += ["", *_plan_lines(plan, width), ""]
    calls, positions = ([hook[name] for hook in steered.hooks] for name in ("calls", "positions"))
    fired = f"{len(steered.hooks)} hook{'' if len(steered.hooks) == 1 else 's'} fired, {min(calls)} calls"
    lines.append(f"{fired} and {min(positions)} positions each; seed {steered.seed}")
    return "\n".join(lines)


def _plan_lines(plan: SteeringPlan, width: int) -> list[str]:
    """One line an intervention: what is done, how strongly, to which feature."""
    lines = []
    for each in plan.interventions:
        strength = "" if each.strength is None else f" {each.strength}"
        where = "" if each.positions == "all" else f" at {each.positions} positions"
        label = f"  {' '.join(each.label.split())}" if each.label else ""
        line = f"{each.mode}{strength}{where}  {each.feature}{label}"
        lines.append(line if len(line) <= width else line[: width - 1] + "…")
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns that keep the text's own line ends."""
    lines: list[str] = []
    for line in text.splitlines():
        lines += textwrap.wrap(line, width) or [""]
    return lines


def stderr_streamer(tokenizer: Any) -> Any:
    """A transformers streamer that writes new text, without its prompt, to stderr."""
    from transformers import TextStreamer

    class _Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            sys.stderr.write(text + ("\n" if stream_end else ""))
            sys.stderr.flush()

    return _Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

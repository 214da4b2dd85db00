"""Continuations on a terminal: beside each other with what made them differ, and while they are made."""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from queries.steer.generation import Generation
from queries.steer.plan import SteeringPlan

if TYPE_CHECKING:
    from queries.steer.score import ThemeScore


def side_by_side(prompt: str, plan: SteeringPlan, made: Mapping[str, Generation], *, width: int) -> str:
    """Text of at most `width` columns: the continuations by their titles, the plan, the hooks that fired."""
    count = len(made)
    column = max((width - 3 * (count - 1)) // count, 20)
    sides = [_wrapped(prompt + each.text, column) for each in made.values()]
    lines = [_row(list(made), column), "─┼─".join(["─" * column] * count)]
    lines += [_row(parts, column) for parts in zip_longest(*sides, fillvalue="")]
    steered = made["steered"]
    lines += ["", *_plan_lines(plan, width), "", *_hook_lines(steered.hooks, width)]
    calls, positions = ([hook[name] for hook in steered.hooks] for name in ("calls", "positions"))
    fired = f"{len(steered.hooks)} hook{'' if len(steered.hooks) == 1 else 's'} fired, {min(calls)} calls"
    lines.append(f"{fired} and {min(positions)} positions each; seed {steered.seed}")
    lengths = [length for length in steered.added if length is not None]
    if lengths:
        low, high = f"{min(lengths):.3g}", f"{max(lengths):.3g}"
        lines.append(f"added at a position: {low if low == high else f'{low} to {high}'} in length, on average")
    return "\n".join(lines)


def _row(parts: Sequence[str], column: int) -> str:
    """Cells beside each other, padded to the columns that a terminal gives them."""
    return " │ ".join(part + " " * (column - _columns(part)) for part in parts).rstrip()


def _hook_lines(hooks: list[dict[str, Any]], width: int) -> list[str]:
    """One line a suppressed or clamped feature: how often it was active, and how strongly."""
    return [
        _cut(
            f"{each['feature']} was active at {each['active']} of {hook['positions']} positions, "
            f"at most {each['largest']:.3g}",
            width,
        )
        for hook in hooks
        for each in hook.get("features", ())
    ]


def _plan_lines(plan: SteeringPlan, width: int) -> list[str]:
    """One line an intervention: what is done, how strongly, to which feature."""
    lines = []
    for each in plan.interventions:
        strength = "" if each.strength is None else f" {each.strength}"
        where = "" if each.positions == "all" else f" at {each.positions} positions"
        label = f"  {' '.join(each.label.split())}" if each.label else ""
        line = f"{each.mode}{strength}{where}  {each.feature}{label}"
        lines.append(_cut(line, width))
    return lines


def _cut(line: str, width: int) -> str:
    """A line of at most `width` columns."""
    if _columns(line) <= width:
        return line
    while _columns(line) > width - 1:
        line = line[:-1]
    return line + "…"


def _columns(text: str) -> int:
    """Columns that text takes on a terminal: two for a wide character, none for what is written onto another."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns that keep the text's own line ends."""
    lines: list[str] = []
    for line in text.splitlines():
        for part in textwrap.wrap(line, width) or [""]:
            while _columns(part) > width:  # wide characters: a line of half as many
                stop = next(stop for stop in range(len(part), 0, -1) if _columns(part[:stop]) <= width)
                lines.append(part[:stop])
                part = part[stop:]
            lines.append(part)
    return lines


def stderr_streamer(tokenizer: Any) -> Any:
    """A transformers streamer that writes new text, without its prompt, to stderr."""
    from transformers import TextStreamer

    class _Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            sys.stderr.write(text + ("\n" if stream_end else ""))
            sys.stderr.flush()

    return _Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


def with_errors(score: ThemeScore) -> dict[str, Any]:
    """A score's figures as a table for people has them: each with its standard error, in one cell."""
    return {
        "condition": score.condition,
        "texts": score.texts,
        "words": _figure(score.words, score.words_se),
        "share": _figure(score.share, score.share_se),
        "nats": _figure(score.nats, score.nats_se),
        "more": _figure(score.more, score.more_se),
        "nats_more": _figure(score.nats_more, score.nats_more_se),
    }


def _figure(value: float | None, error: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.2f}" + ("" if error is None else f"±{error:.2f}")

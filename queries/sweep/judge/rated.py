"""A sweep from its first text to its last, rated by a judge where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atlas.cli.progress import Progress
from queries.sweep.findings import reported
from queries.sweep.judge.client import Server
from queries.sweep.judge.judging import judge_texts, planted, tried
from queries.sweep.judge.replies import Replies
from queries.sweep.judge.table import write_judged
from queries.sweep.running import Sweep
from queries.sweep.scores import Judged, scores_of
from queries.sweep.trials import Trial


def rated_sweep(
    made: Sweep,
    output: Path,
    server: Server | None,
    subjects: Sequence[str],
    progress: Progress,
    say: Callable[[str], None],
) -> tuple[list[Trial], Judged | None]:
    """All texts of a sweep: first those that choose, then those that report, each rated before the next step.

    say: told how the judge ordered planted texts. Raises JudgeError where it could not; PlanError, ModelError.
    """
    design = made.design
    chosen = made.choose(output, progress)
    if server is None:
        return chosen + made.report(output, reported(scores_of(design, chosen)), progress), None
    replies = Replies(output / "judge", server)
    try:
        orders = tried(replies, design, planted(design, chosen, made.passages()))
        say("; ".join(f"{each.question}: {each.better} above {each.worse} in {each.right:.0%}" for each in orders))
        judged = judge_texts(replies, design, chosen, subjects, progress)
        reports = made.report(output, reported(scores_of(design, chosen, judged)), progress)
        judged |= judge_texts(replies, design, reports, subjects, progress)
        write_judged(output, judged, replies, orders, subjects)
    finally:
        replies.close()
    return chosen + reports, judged

"""What a live worker is too slow for: how quick a worker is that works now, and how much of its share it cannot process in time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from batch.model.progress import Progress
from batch.model.shares import share_left
from controller.model.execution import Worked
from controller.model.wording import counted

PACE_AFTER_S = 120.0
"""Minimum age of a worker before its pace is estimated: before that, a first slow message says too little."""
RECENT_S = 120.0
TOO_SLOW = 1.5
"""A worker is too slow if its share takes this many times the time there is: one that is less late ends sooner than a new one would."""


def share_of_last(tries: Sequence[Progress]) -> int:
    """What is left of a worker's share for its last try."""
    return share_left(max(one.share for one in tries), sum(one.acked for one in tries[:-1]))


def late_of(worked: Worked, index: int, within_s: float) -> int:
    """Of what a worker that is alive may still pull, how many messages it is too slow for."""
    tries = worked.tries[index]
    if not tries or tries[-1].exit_reason or worked.ended_at(index) is not None:
        return 0
    return late_count(tries[-1], share_of_last(tries) - tries[-1].taken, within_s)


def late_count(worker: Progress, left_count: int, within_s: float) -> int:
    """Estimates how many of the `left_count` messages that a worker may still pull it cannot process within `within_s` seconds of its last
    progress; 0 unless it is much too slow."""
    pace = messages_per_s(worker)
    if pace is None or left_count <= 0 or worker.held + left_count <= pace * within_s * TOO_SLOW:
        return 0
    return max(0, left_count - max(0, ceil(pace * within_s) - worker.held))


def messages_per_s(worker: Progress) -> float | None:
    """The most that a worker may be processing: outstanding messages count as done, and the quicker of its whole life and the last minutes
    counts. None until that says something."""
    lived_s = worker.updated_at - worker.started_at
    if lived_s < PACE_AFTER_S or worker.taken <= worker.returned:
        return None
    recent = (worker.acked - worker.acked_at(worker.updated_at - RECENT_S)) / RECENT_S
    return max((worker.taken - worker.returned) / lived_s, recent)


def late_note(late_count: int) -> str:
    """What an execution's entry notes of the `late_count` messages that its workers are too slow for; empty if there are none."""
    if not late_count:
        return ""
    return f"its workers are too slow for {counted(late_count, 'message')} more of their shares, which count as unassigned"

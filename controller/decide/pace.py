"""What a live worker is too slow for: how quick a worker is that works now, and how much of its share it cannot process in time. Pure.

There are two ends to a worker's time. The messages it was launched for are due; and it meets its task timeout, and nacks what it has not
done. What it will not have done by the first of them is somebody else's now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from batch.model.progress import MARK_EVERY_S, Progress
from batch.model.shares import share_left
from controller.model.execution import Worked
from controller.model.wording import counted

PACE_AFTER_S = 120.0
"""Maximum age of a worker from which on its pace is believed: before that, a first slow message may say too little. It is a part of the
time there is (PACE_PART), and no less than LEAST_PACE_AFTER_S, in which each worker has written its progress once."""
PACE_PART = 1 / 5
LEAST_PACE_AFTER_S = 20.0
PACE_ROUNDS = 3
"""A worker that has acknowledged so many messages for each of its threads has shown its pace at any age."""
RECENT_S = 120.0
TOO_SLOW = 1.5
"""A worker is too slow if its share takes this many times the time there is: one that is less late ends sooner than a new one would."""


@dataclass(frozen=True, slots=True)
class Ends:
    """When a worker's time ends. `within_s`: seconds from its launch in which its messages are to be done; None: there is no such time.
    `task_timeout_s`: seconds from the start of a try; None if not known. `concurrency`: tasks that a worker
    runs at a time, unless its execution says otherwise."""

    within_s: float | None = None
    task_timeout_s: float | None = None
    concurrency: int = 1


def share_of_last(tries: Sequence[Progress]) -> int:
    """What is left of a worker's share for its last try."""
    return share_left(max(one.share for one in tries), sum(one.acked for one in tries[:-1]))


def late_of(worked: Worked, index: int, ends: Ends) -> int:
    """Of what a worker that is alive may still pull, how many messages it will not have done in time."""
    tries = worked.tries[index]
    if not tries or tries[-1].exit_reason or worked.ended_at(index) is not None:
        return 0
    last = tries[-1]
    left_count = share_of_last(tries) - last.taken
    concurrency = worked.info.count_setting("CONCURRENCY") or ends.concurrency
    pace = messages_per_s(last, ends.within_s, concurrency)
    if pace is None:
        return 0
    due_in_s = inf if ends.within_s is None else _left_s(ends.within_s, last.updated_at - worked.info.created_at)
    ends_in_s = inf if ends.task_timeout_s is None else last.started_at + ends.task_timeout_s - last.updated_at
    return max(late_count(last, left_count, pace, due_in_s), late_count(last, left_count, pace, max(0.0, ends_in_s), too_slow=1.0))


def _left_s(within_s: float, gone_s: float) -> float:
    """At least half: what is late already is no reason to launch as many workers as there may be."""
    return max(within_s - max(0.0, gone_s), within_s / 2)


def late_count(worker: Progress, left_count: int, pace: float, within_s: float, too_slow: float = TOO_SLOW) -> int:
    """Estimates how many of the `left_count` messages that a worker may still pull it cannot process within `within_s` seconds of its last
    progress, at a pace of so many a second; 0 unless all of them take `too_slow` times as long."""
    if left_count <= 0 or worker.held + left_count <= pace * within_s * too_slow:
        return 0
    return max(0, left_count - max(0, ceil(pace * within_s) - worker.held))


def messages_per_s(worker: Progress, within_s: float | None = None, concurrency: int = 1) -> float | None:
    """The most that a worker may be processing, `concurrency` messages at a time: outstanding messages count as done, and the quicker of
    its whole life and its last minutes counts, or of the second half of a shorter life. None until that says something, of which there
    must be more the more time there is: `within_s` seconds in all."""
    lived_s = worker.updated_at - worker.started_at
    shown = worker.acked >= PACE_ROUNDS * concurrency and lived_s >= LEAST_PACE_AFTER_S
    if not (shown or lived_s >= _pace_after_s(within_s)) or worker.taken <= worker.returned:
        return None
    recent_s = max(min(RECENT_S, lived_s / 2), float(MARK_EVERY_S))
    recent = (worker.acked - worker.acked_at(worker.updated_at - recent_s)) / recent_s
    return max((worker.taken - worker.returned) / lived_s, recent)


def _pace_after_s(within_s: float | None) -> float:
    return PACE_AFTER_S if within_s is None else min(PACE_AFTER_S, max(LEAST_PACE_AFTER_S, within_s * PACE_PART))


def late_note(late_count: int) -> str:
    """What an execution's entry notes of the `late_count` messages that its workers are too slow for; empty if there are none."""
    if not late_count:
        return ""
    return f"its workers are too slow for {counted(late_count, 'message')} more of their shares, which count as unassigned"

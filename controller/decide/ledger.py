"""The ledger: messages a reading counted that were already somebody's at its sample time. Pure; every doubt counts as assigned.

A message leaves the gauge when it is acknowledged. So what a worker is still going to acknowledge, plus what it has acknowledged
since the sample, is its part of the reading. Counting too much delays a launch by a tick; counting too little pays for workers
that find nothing. All executions count, whoever launched them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from batch.model.delivery import MAX_EXTENSION_S
from batch.model.progress import JITTER, Progress, interval_s
from batch.model.shares import share, share_left
from batch.settings import WorkerSettings
from controller.model.execution import ExecutionInfo, Worked
from controller.model.wording import counted, spoken

GUARD_S = 30.0
"""The sample is taken to be this much older than it says: clocks differ, and a gauge is not sampled in an instant."""
ACK_DEADLINE_S = 60.0
SLOW_START_S = 300.0
"""An execution that has not started a worker by then is told of."""
NEVER_STARTED_S = 600.0
"""From then on its messages count as nobody's: what keeps it, a quota or an image, may never let go."""
STUCK_S = 1800.0
"""From then on its workers, should nobody cancel it, do not keep others from being launched."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A launch that the listing does not show: `backlog` messages that may have been given away."""

    decision_id: str
    workers: int
    backlog: int
    reason: str


@dataclass(frozen=True, slots=True)
class Line:
    """One execution's part of the reading: `assigned_count` by its workers, `deferred_count` waiting for their time, `held_count` on
    leases that a killed worker left, or acknowledged by it after its last word. `late_count` more are promised to workers that are too slow
    for them, and count as nobody's. `pending_worker_count` of the live workers have yet to
    start; `stuck_worker_count` have not started for so long that they may never."""

    execution: str
    decision_id: str
    live: bool
    worker_count: int
    live_worker_count: int
    assigned_count: int
    deferred_count: int = 0
    held_count: int = 0
    note: str = ""
    pending_worker_count: int = 0
    stuck_worker_count: int = 0
    late_count: int = 0

    @property
    def total_count(self) -> int:
        return self.assigned_count + self.deferred_count + self.held_count


@dataclass(frozen=True, slots=True)
class Ledger:
    """`since` is the time that acknowledgements are counted from: sample time minus guard. Lines without effect are left out."""

    since: float
    lines: tuple[Line, ...] = ()

    @property
    def total_count(self) -> int:
        return sum(line.total_count for line in self.lines)

    @property
    def live_worker_count(self) -> int:
        return sum(line.live_worker_count for line in self.lines)

    @property
    def pending_worker_count(self) -> int:
        return sum(line.pending_worker_count for line in self.lines)

    @property
    def stuck_worker_count(self) -> int:
        """Of one execution, the oldest such: where others do not start either, one more would not."""
        return next((line.stuck_worker_count for line in reversed(self.lines) if line.stuck_worker_count), 0)


def horizon(since: float, now: float, ack_deadline_s: float = ACK_DEADLINE_S) -> float:
    """An execution that completed before this time can have no part in any reading sampled at `since` or later."""
    return min(since, now - max(ack_deadline_s, float(MAX_EXTENSION_S)))


def ledger_of(
    sampled_at: float,
    executions: Sequence[Worked],
    unlisted: Sequence[Unlisted] = (),
    *,
    now: float,
    guard_s: float = GUARD_S,
    ack_deadline_s: float = ACK_DEADLINE_S,
    subscription: str = "",
    given_up_ids: Collection[str] = (),
    within_s: float | None = None,
) -> Ledger:
    """The ledger for a reading of `subscription` sampled at `sampled_at` (Unix seconds). `given_up_ids` are decision parts given up.
    `within_s` is how soon a backlog is to be drained: what live workers are too slow for is not counted; None: whatever they are."""
    since = sampled_at - guard_s
    idle = [_why_idle(one, subscription, given_up_ids) for one in executions]
    lines = [
        _idle_line(one, why) if why else _line(one, since, now, ack_deadline_s, within_s) for one, why in zip(executions, idle, strict=True)
    ]
    lines += [_unlisted_line(one) for one in unlisted]
    return Ledger(since, tuple(line for line in lines if line.total_count or line.live_worker_count))


def _why_idle(worked: Worked, subscription: str, given_up_ids: Collection[str]) -> str:
    """Why an execution has no part in the reading, though its workers are alive; empty where it has, or may have.

    Its job may have been given another subscription while it ran; one that does not tell is taken to drain the reading's. And where its
    launch was given up before it took effect, its workers end at the fence."""
    drains = worked.info.env.get("SUBSCRIPTION_NAME", subscription)
    if subscription and drains != subscription:
        return f"it drains subscription {drains}"
    if worked.info.decision_id in given_up_ids and not any(one.taken for tries in worked.tries.values() for one in tries):
        return "its launch was given up before it took effect: its workers end before they pull"
    return ""


def _idle_line(worked: Worked, why: str) -> Line:
    info = worked.info
    pending_count = max(0, info.live_worker_count - info.running_count)
    return Line(
        info.name, info.decision_id, info.live, info.task_count, info.live_worker_count, 0, note=why, pending_worker_count=pending_count
    )


def _unlisted_line(one: Unlisted) -> Line:
    return Line(
        one.decision_id, one.decision_id, True, one.workers, one.workers, one.backlog, note=one.reason, pending_worker_count=one.workers
    )


def _line(worked: Worked, since: float, now: float, ack_deadline_s: float, within_s: float | None) -> Line:
    info = worked.info
    waits_s = waits_to_start_s(worked, now)
    indexes: Iterable[int] = () if waits_s >= NEVER_STARTED_S else range(info.task_count) if info.live else worked.tries
    late = 0 if within_s is None else sum(_late(worked, index, within_s) for index in worked.tries)
    return Line(
        execution=info.name,
        decision_id=info.decision_id,
        live=info.live,
        worker_count=info.task_count,
        live_worker_count=info.live_worker_count,
        assigned_count=sum(_assigned(worked, index, since) for index in indexes) - late,
        deferred_count=sum(count for tries in worked.tries.values() for one in tries for due, count in one.deferred if due > now),
        held_count=sum(_held(worked, index, since, now, ack_deadline_s) for index in worked.tries),
        note=_late_note(late) or _start_note(info, waits_s),
        pending_worker_count=max(0, info.live_worker_count - info.running_count),
        stuck_worker_count=info.live_worker_count if waits_s >= STUCK_S else 0,
        late_count=late,
    )


def waits_to_start_s(worked: Worked, now: float) -> float:
    """How long (seconds) an execution has waited for its first worker to begin; 0 once one has."""
    return 0.0 if _started(worked) else now - worked.info.created_at


def _started(worked: Worked) -> bool:
    """Whether any worker has begun, or has ended; one that is not heard of may still be at work."""
    info = worked.info
    counts = (info.running_count, info.succeeded_count, info.failed_count, info.cancelled_count, info.retried_count)
    return not info.live or any(counts) or bool(worked.tries)


def _start_note(info: ExecutionInfo, waits_s: float) -> str:
    """Its workers stay alive as far as a limit on them goes: they may start at any moment."""
    if waits_s < SLOW_START_S:
        return ""
    waits = f"no worker has started in {spoken(waits_s)}: look for a quota or an image problem in its conditions"
    if waits_s < NEVER_STARTED_S:
        return waits
    return f"{waits}; its messages count as nobody's now, cancel it with `gcloud run jobs executions cancel {info.name}`"


def _assigned(worked: Worked, index: int, since: float) -> int:
    tries = worked.tries.get(index, ())
    if worked.ended_at(index) is None:
        return _part(tries, promised(worked.info, index), since)
    return _acked_since(tries, since)


def promised(info: ExecutionInfo, index: int) -> int:
    """The share of a worker that has written nothing yet: its part of BACKLOG, else MAX_MESSAGES, else the worker's own default."""
    backlog = info.count_setting("BACKLOG")
    if backlog is not None:
        return share(backlog, info.task_count, index)
    most = info.count_setting("MAX_MESSAGES")
    return WorkerSettings.max_messages if most is None else most


def _part(tries: Sequence[Progress], promised_count: int, since: float) -> int:
    """What a worker of a live execution has acknowledged since, and may still take. Its tries have one share together, of which a
    retry takes what the earlier tries did not acknowledge (what they handed back is in the queue again)."""
    if not tries:
        return promised_count
    *earlier, last = tries
    if last.exit_reason:
        return _acked_since(tries, since)
    return _acked_since(earlier, since) + max(_share_of_last(tries), last.taken) - last.returned - last.acked_at(since)


def _share_of_last(tries: Sequence[Progress]) -> int:
    """What is left of a worker's share for its last try."""
    return share_left(max(one.share for one in tries), sum(one.acked for one in tries[:-1]))


def _late(worked: Worked, index: int, within_s: float) -> int:
    """Of what a worker that is alive may still pull, how many messages it is too slow for."""
    tries = worked.tries[index]
    if not tries or tries[-1].exit_reason or worked.ended_at(index) is not None:
        return 0
    return late_count(tries[-1], _share_of_last(tries) - tries[-1].taken, within_s)


def _late_note(late_count: int) -> str:
    if not late_count:
        return ""
    return f"its workers are too slow for {counted(late_count, 'message')} more of their shares, which count as nobody's"


def _acked_since(tries: Sequence[Progress], since: float) -> int:
    return sum(one.acked - one.acked_at(since) for one in tries)


def _held(worked: Worked, index: int, since: float, now: float, ack_deadline_s: float) -> int:
    """Messages that killed tries of a worker had in hand. A reading sampled before the end of such a try counts even those that it
    acknowledged after its last word. Any later reading counts what is on its leases, for one ack deadline; while the worker lives,
    its share covers those."""
    tries, ended_at = worked.tries[index], worked.ended_at(index)
    total_count = 0
    for one, end in zip(tries, [*(later.started_at for later in tries[1:]), ended_at], strict=True):
        if one.exit_reason or end is None:
            continue
        if since < end:
            total_count += one.held + _unheard(one, end, worked.info.task_count)
        elif ended_at is not None and now < end + ack_deadline_s:
            total_count += one.held
    return total_count


def _unheard(killed: Progress, ended_at: float, worker_count: int) -> int:
    """What a killed try took and acknowledged between its last word and its end, had it gone on at its pace; all that was left of its
    share where no pace is known."""
    left_count = max(0, killed.share - killed.taken + killed.returned)
    lived_s = killed.updated_at - killed.started_at
    if lived_s <= 0:
        return left_count
    longest_s = interval_s(WorkerSettings.progress_interval_s, worker_count) * (1 + JITTER / 2)
    silent_s = min(max(0.0, ended_at - killed.updated_at), longest_s)
    return min(ceil(killed.acked / lived_s * silent_s), left_count)


KNOWN_AFTER_S = 120.0
"""Before that, a first slow message says too little."""
RECENT_S = 120.0
TOO_SLOW = 1.5
"""Times as long as there is: a worker that is late by less finishes sooner than another would pay off."""


def late_count(worker: Progress, left_count: int, within_s: float) -> int:
    """How many of the `left_count` messages that a worker may still pull it will not have done `within_s` seconds from its last word on."""
    pace = messages_per_s(worker)
    if pace is None or left_count <= 0 or worker.held + left_count <= pace * within_s * TOO_SLOW:
        return 0
    return max(0, left_count - max(0, ceil(pace * within_s) - worker.held))


def messages_per_s(worker: Progress) -> float | None:
    """At most: what it holds counts as done, and of its whole life and the last minutes the quicker one is taken. None while that says
    nothing."""
    lived_s = worker.updated_at - worker.started_at
    if lived_s < KNOWN_AFTER_S or worker.taken <= worker.returned:
        return None
    recent = (worker.acked - worker.acked_at(worker.updated_at - RECENT_S)) / RECENT_S
    return max((worker.taken - worker.returned) / lived_s, recent)

"""The ledger: messages that a reading counted and that were already assigned at its sample time. Pure; every doubt counts as assigned.

A message leaves the gauge when it is acknowledged. So what a worker is still going to acknowledge, plus what it has acknowledged
since the sample, is its part of the reading. What it acknowledged shortly before the sample is doubtful: the gauge may be older than it
says. Counting too much delays a launch; counting too little pays for workers that find nothing. All executions count, also those that a
person launched.

A share cannot be taken back, but it names no messages: what a slow worker has yet to pull waits in the queue for any worker. So the part
that it would process far too late counts as unassigned, and others are launched for it; the slow worker then finds the queue drained and
ends early. A worker whose speed is not known counts as quick: its share stays assigned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from batch.model.delivery import MAX_EXTENSION_S
from batch.model.progress import JITTER, Progress, interval_s
from batch.model.shares import share
from batch.settings import WorkerSettings
from controller.decide.pace import Ends, late_note, late_of, share_of_last
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import SLOW_START_S, START_WITHIN_S
from controller.model.wording import spoken

GUARD_S = 30.0
"""The sample may be this much older than it says: clocks differ, and a gauge is not sampled in an instant."""
STEP_S = 5.0
"""How finely it is told when within GUARD_S before the sample messages were acknowledged."""
ACK_DEADLINE_S = 60.0
STUCK_AFTER_S = 1200.0
"""So long after the messages of an execution that has not started count as unassigned, its workers, if nobody cancels it, no longer keep
others from being launched."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A launch that the listing does not show: `backlog` messages that may have been assigned."""

    decision_id: str
    workers: int
    backlog: int
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution's part of the reading: `assigned_count` messages of its workers, `deferred_count` that wait for their time,
    `outstanding_count` that a killed worker left on leases, or acknowledged after its last progress. `late_count` more are promised to
    workers that are too slow for them, and count as unassigned. `pending_worker_count` of the live workers have yet to start;
    `stuck_worker_count` have not started for so long that they may never. `recent_count` more messages were acknowledged before the sample,
    but within GUARD_S of it."""

    execution: str
    decision_id: str
    live: bool
    worker_count: int
    live_worker_count: int
    assigned_count: int
    deferred_count: int = 0
    outstanding_count: int = 0
    note: str = ""
    pending_worker_count: int = 0
    stuck_worker_count: int = 0
    late_count: int = 0
    recent_count: int = 0

    @property
    def total_count(self) -> int:
        """Messages of the reading that belong to this execution."""
        return self.assigned_count + self.deferred_count + self.outstanding_count

    @property
    def awaits_start(self) -> bool:
        """Whether it has started no worker, and counts as one that will."""
        return bool(self.assigned_count) and 0 < self.worker_count == self.pending_worker_count


@dataclass(frozen=True, slots=True)
class _Start:
    """How late an execution may start its first worker, and from when on that is noted."""

    within_s: float
    slow_s: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """`since` (Unix seconds) is the time that acknowledgements are counted from: that of the sample. Entries without effect are left out.
    `recent` counts messages that were acknowledged within STEP_S before the sample, within twice that, and so on up to GUARD_S;
    `guard_count` of them are taken to be in the reading. `stuck_worker_count` of the live workers are not taken to start: all that cannot,
    for the lane is held for these; of those that may, only the oldest execution's, for where others do not start either, one more would
    not."""

    since: float
    entries: tuple[Entry, ...] = ()
    stuck_worker_count: int = 0
    recent: tuple[int, ...] = ()
    guard_count: int = 0

    @property
    def total_count(self) -> int:
        """Messages that are assigned."""
        return self.sure_count + self.guard_count

    @property
    def sure_count(self) -> int:
        """Messages that are assigned if the gauge is as old as it says."""
        return sum(entry.total_count for entry in self.entries)

    @property
    def live_worker_count(self) -> int:
        """Workers that run or have yet to start."""
        return sum(entry.live_worker_count for entry in self.entries)

    @property
    def pending_worker_count(self) -> int:
        """Workers that have yet to start."""
        return sum(entry.pending_worker_count for entry in self.entries)

    @property
    def awaits_start(self) -> bool:
        """Whether an execution that has started no worker still counts as one that will."""
        return any(one.awaits_start for one in self.entries)


def horizon(since: float, now: float) -> float:
    """Unix seconds: an execution that completed before has no part in any reading sampled at `since` or later."""
    return min(since, now - max(ACK_DEADLINE_S, float(MAX_EXTENSION_S)))


def ledger_of(
    sampled_at: float,
    executions: Sequence[Worked],
    unlisted: Sequence[Unlisted] = (),
    *,
    now: float,
    subscription: str = "",
    given_up_ids: Collection[str] = (),
    within_s: float | None = None,
    task_timeout_s: float | None = None,
    concurrency: int = 1,
    start_within_s: float = START_WITHIN_S,
    slow_start_s: float = SLOW_START_S,
) -> Ledger:
    """The ledger for a reading of `subscription` sampled at `sampled_at` (Unix seconds). `given_up_ids` are decision parts given up.
    `within_s` is how soon a backlog is to be drained: what live workers are too slow for is not counted; None: it is counted too.
    Nor is what they will not come to before `task_timeout_s`; `concurrency`: tasks that they run at a time, unless their execution says.
    An execution that has started no worker after `start_within_s` may never do so, and its messages count as unassigned; after
    `slow_start_s` its entry notes it."""
    since, start, ends = sampled_at, _Start(start_within_s, slow_start_s), Ends(within_s, task_timeout_s, concurrency)
    entries = [
        _entry(one.info, 0, why) if (why := _why_idle(one, subscription, given_up_ids)) else _entry_of(one, since, now, ends, start)
        for one in executions
    ]
    entries += [_unlisted_entry(one) for one in unlisted]
    cannot_start = {one.info.name for one in executions if one.info.cannot_start}
    may_start = [one.stuck_worker_count for one in entries if one.stuck_worker_count and one.execution not in cannot_start]
    stuck_count = sum(one.stuck_worker_count for one in entries if one.execution in cannot_start) + sum(may_start[-1:])
    kept = tuple(entry for entry in entries if entry.total_count or entry.live_worker_count or entry.recent_count)
    return Ledger(since, kept, stuck_count, _recent([one for one in executions if not _why_idle(one, subscription, given_up_ids)], since))


def _recent(executions: Sequence[Worked], since: float) -> tuple[int, ...]:
    """Messages that were acknowledged within STEP_S before `since`, within twice that, and so on; empty if none were."""
    late = [one for worked in executions for one in worked.progress if one.updated_at > since - GUARD_S and one.acked]
    acked = [sum(one.acked_at(since - step * STEP_S) for one in late) for step in range(int(GUARD_S / STEP_S) + 1)] if late else [0]
    counts = tuple(acked[0] - before for before in acked[1:])
    return counts if any(counts) else ()


def _why_idle(worked: Worked, subscription: str, given_up_ids: Collection[str]) -> str:
    """Why an execution has no part in the reading, though its workers are alive; empty if it has, or may have.

    Its job may have been given another subscription while it ran; one that does not say is taken to drain the reading's. And if its
    launch was given up before it took effect, its workers find the claim taken and end."""
    drains = worked.info.env.get("SUBSCRIPTION_NAME", subscription)
    if subscription and drains != subscription:
        return f"it drains subscription {drains}"
    if worked.info.decision_id in given_up_ids and not any(one.taken for one in worked.progress):
        return "its launch was given up before it took effect: its workers end before they pull"
    return ""


def _entry(info: ExecutionInfo, assigned_count: int, note: str, **counts: int) -> Entry:
    return Entry(
        execution=info.name,
        decision_id=info.decision_id,
        live=info.live,
        worker_count=info.task_count,
        live_worker_count=info.live_worker_count,
        assigned_count=assigned_count,
        note=note,
        pending_worker_count=info.pending_worker_count,
        **counts,
    )


def _unlisted_entry(one: Unlisted) -> Entry:
    return Entry(
        one.decision_id, one.decision_id, True, one.workers, one.workers, one.backlog, note=one.reason, pending_worker_count=one.workers
    )


def _entry_of(worked: Worked, since: float, now: float, ends: Ends, start: _Start) -> Entry:
    info = worked.info
    waits_s = waits_to_start_s(worked, now)
    given_up = waits_s >= start.within_s
    stuck = waits_s >= start.within_s + STUCK_AFTER_S or bool(info.cannot_start)
    indexes: Iterable[int] = () if given_up or info.cannot_start else range(info.task_count) if info.live else worked.tries
    late = sum(late_of(worked, index, ends) for index in worked.tries)
    return _entry(
        info,
        sum(_assigned(worked, index, since) for index in indexes) - late,
        late_note(late) or _start_note(info, waits_s, start),
        deferred_count=sum(count for one in worked.progress for due, count in one.deferred if due > now),
        outstanding_count=sum(_outstanding(worked, index, since - GUARD_S, now) for index in worked.tries),
        stuck_worker_count=info.live_worker_count if stuck else 0,
        late_count=late,
        recent_count=sum(one.acked_at(since) - one.acked_at(since - GUARD_S) for one in worked.progress),
    )


def waits_to_start_s(worked: Worked, now: float) -> float:
    """Seconds that an execution has waited for its first worker to begin; 0 once one has begun or ended. A worker without progress may
    still be at work."""
    info = worked.info
    counts = (info.running_count, info.succeeded_count, info.failed_count, info.cancelled_count, info.retried_count)
    started = not info.live or any(counts) or bool(worked.tries)
    return 0.0 if started else now - info.created_at


def _start_note(info: ExecutionInfo, waits_s: float, start: _Start) -> str:
    """The workers of an execution that may start at any moment still count as alive for limits on workers."""
    cancel = f"cancel it with `gcloud run jobs executions cancel {info.name}`"
    if info.live and info.cannot_start:
        return f"it cannot start: {info.cannot_start}; its messages count as unassigned, {cancel}"
    if waits_s < start.slow_s:
        return ""
    waits = f"no worker has started in {spoken(waits_s)}: look for a quota or an image problem in its conditions"
    return waits if waits_s < start.within_s else f"{waits}; its messages count as unassigned now, {cancel}"


def _assigned(worked: Worked, index: int, since: float) -> int:
    """What a worker has acknowledged since, and may still take while it lives. Its tries have one share together: a retry takes what the
    earlier tries did not acknowledge (what they nacked is in the queue again)."""
    tries = worked.tries.get(index, ())
    if worked.ended_at(index) is None and not tries:
        return promised(worked.info, index)
    if worked.ended_at(index) is not None or tries[-1].exit_reason:
        return _acked_since(tries, since)
    *earlier, last = tries
    return _acked_since(earlier, since) + max(share_of_last(tries), last.taken) - last.returned - last.acked_at(since)


def promised(info: ExecutionInfo, index: int) -> int:
    """The share of a worker without progress: its part of BACKLOG, else MAX_MESSAGES, else the worker's own default."""
    backlog = info.count_setting("BACKLOG")
    if backlog is not None:
        return share(backlog, info.task_count, index)
    most = info.count_setting("MAX_MESSAGES")
    return WorkerSettings.max_messages if most is None else most


def _acked_since(tries: Sequence[Progress], since: float) -> int:
    return sum(one.acked - one.acked_at(since) for one in tries)


def _outstanding(worked: Worked, index: int, since: float, now: float) -> int:
    """Messages that were outstanding when tries of a worker were killed. A reading sampled before the end of such a try counts even those
    that it acknowledged after its last progress. Any later reading counts what is on its leases, for one ack deadline; while the worker
    lives, its share covers those."""
    tries, ended_at = worked.tries[index], worked.ended_at(index)
    total_count = 0
    for one, end in zip(tries, [*(later.started_at for later in tries[1:]), ended_at], strict=True):
        if one.exit_reason or end is None:
            continue
        if since < end:
            total_count += one.held + _unreported(one, end, worked.info.task_count)
        elif ended_at is not None and now < end + ACK_DEADLINE_S:
            total_count += one.held
    return total_count


def _unreported(killed: Progress, ended_at: float, worker_count: int) -> int:
    """Estimates what a killed try took and acknowledged between its last progress and its end, at its pace so far; all that was left of
    its share if its pace is not known."""
    left_count = max(0, killed.share - killed.taken + killed.returned)
    lived_s = killed.updated_at - killed.started_at
    if lived_s <= 0:
        return left_count
    longest_s = interval_s(WorkerSettings.progress_interval_s, worker_count) * (1 + JITTER / 2)
    silent_s = min(max(0.0, ended_at - killed.updated_at), longest_s)
    return min(ceil(killed.acked / lived_s * silent_s), left_count)

"""What monitoring needs to know of a lane at a tick: one small object beside the decision in the tick's log event. Pure.

Targets differ by lane, so what is judged by one is divided by it here, and alerts need no threshold of their own for each lane. One cause
is one alert: a lane that is on hold is not late as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from controller.decide.decision import Decision, HoldCause, Kind, cost_usd
from controller.decide.ledger import promised
from controller.model.execution import Worked
from controller.model.lane import Lane
from controller.model.reading import Value
from controller.tick.view import View

MINUTE_S = 60.0


class Condition(StrEnum):
    """Whether a lane can be drained. `held`: its job, its subscription or its state is wrong, or Cloud Run refuses its launches; `broken`:
    its workers end without acknowledging anything; `unknown`: the gauge or the list of executions cannot be read."""

    OK = "ok"
    PAUSED = "paused"
    HELD = "held"
    BROKEN = "broken"
    UNKNOWN = "unknown"


_CAUSES = {
    HoldCause.PAUSED: Condition.PAUSED,
    HoldCause.READING_UNKNOWN: Condition.UNKNOWN,
    HoldCause.LISTING_FAILED: Condition.UNKNOWN,
    HoldCause.BROKEN: Condition.BROKEN,
    HoldCause.THROTTLED: Condition.OK,
}
"""Every other cause holds the lane. Where Cloud Run refuses for too many launches others of the lane go on: it is late, if anything."""


@dataclass(frozen=True, slots=True)
class Health:
    """A lane in numbers; None is what is not known. Counts are messages, `worker_count` workers that are alive.

    `late_ratio`: how long the longest waiting message has waited, as a part of `fanout/drain-within`; more than 1 is late. What waits for
    its own time (a backoff) does not count, nor does a lane that launches nothing. `failed_launch_count`: launches that ended with failed
    workers since the last that did not. `drain_error_percent`: how much longer than predicted a drain took that this tick saw end.

    `day_usd`: what workers cost at list price, of launches of this controller that ended within the last 24 hours (in whole hours) and of
    all workers that are alive. Left out are executions that a person launched, once they have ended; the `dead-letters` job; services,
    Pub/Sub, storage and logs."""

    condition: Condition
    backlog_count: int | None
    assigned_count: int
    unassigned_count: int
    worker_count: int
    oldest_age_s: float | None
    late_ratio: float | None
    done_per_min: float
    failed_launch_count: int
    day_usd: float
    drain_error_percent: float | None


def health_of(view: View, decision: Decision, refused: Sequence[str] = ()) -> Health:
    """Of a lane at the view's time. `refused`: launches of this tick that did not take effect."""
    state, reading = view.state, view.reading
    condition = _condition(view, decision, refused)
    errors = [end.get("drain_error_percent") for end in state.ends_after(view.stored.state)]
    return Health(
        condition=condition,
        backlog_count=reading.undelivered_count if isinstance(reading, Value) else None,
        assigned_count=view.ledger.total_count if view.ledger else 0,
        unassigned_count=decision.unassigned_count,
        worker_count=view.live_worker_count,
        oldest_age_s=reading.oldest_age_s if isinstance(reading, Value) else None,
        late_ratio=round(_waited_s(view) / view.lane.policy.drain_within_s, 3) if condition is Condition.OK else None,
        done_per_min=float(sum(_acked_since(one, view.now - MINUTE_S, view.now) for one in view.worked)),
        failed_launch_count=state.failed_launch_count,
        day_usd=round(state.spent_usd(view.now) + _running_usd(view, view.lane), 4),
        drain_error_percent=max((one for one in errors if one is not None), key=abs, default=None),
    )


def health_json(health: Health) -> dict[str, Any]:
    """As it stands in the log."""
    return asdict(health)


def day_usd(lanes: Iterable[Health]) -> float:
    """Of all lanes together."""
    return round(sum(one.day_usd for one in lanes), 4)


def _condition(view: View, decision: Decision, refused: Sequence[str]) -> Condition:
    if decision.hold_cause is not None and decision.hold_cause is not HoldCause.THROTTLED:
        return _CAUSES.get(decision.hold_cause, Condition.HELD)
    if view.broken is not None:
        return Condition.BROKEN  # one worker tries, or is about to
    return Condition.HELD if refused and decision.kind is Kind.LAUNCH else Condition.OK


def _waited_s(view: View) -> float:
    """How long the message has waited that came first, of those that nobody has and those that live workers have yet to do; never longer
    than the gauge's oldest message."""
    waiting, reading = view.state.waiting, view.reading
    undone = {one.info.decision_id for one in view.worked if one.info.live and _undone_count(one) > 0}
    since = [one.since for one in waiting.launches if one.decision_id in undone]
    since += [] if waiting.since is None else [waiting.since]
    if isinstance(reading, Value):
        oldest_s = (reading.oldest_age_s if reading.undelivered_count else 0.0) if reading.oldest_age_s is not None else None
        since = since if oldest_s is None else [max(one, reading.sampled_at - oldest_s) for one in since]
    return max(0.0, view.now - min(since, default=view.now))


def _undone_count(worked: Worked) -> int:
    """Messages that its workers took, or were promised, and have not acknowledged or nacked, as of their last progress."""
    total_count = 0
    for index in range(worked.info.task_count):
        tries = worked.tries.get(index, ())
        if worked.ended_at(index) is not None or (tries and tries[-1].exit_reason):
            continue
        done_count = sum(one.acked + one.returned for one in tries)
        taken_count = sum(one.taken for one in tries)
        total_count += max(0, max(promised(worked.info, index), taken_count) - done_count)
    return total_count


def _acked_since(worked: Worked, begin: float, end: float) -> int:
    return sum(one.acked_at(end) - one.acked_at(begin) for one in worked.progress)


def _running_usd(view: View, lane: Lane) -> float:
    """Of what lives, and of what has ended of launches whose end is awaited."""
    awaited = {one.decision_id for one in view.state.launches}
    own = [one for one in view.worked if one.info.live or one.info.decision_id.rpartition(".")[0] in awaited]
    return sum(cost_usd(one, lane, view.now) for one in own)

"""The look at one lane: delayed tasks that are due are published again, cancelled ones are ended, then its state, its executions and their
progress are read.

A look launches nothing. What it reads becomes a View, which is all that a decision is made from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from batch.model.errors import FanoutError
from controller.act.cancelled import CancelledTasks
from controller.act.intents import Intent, PartState
from controller.act.launcher import CLOCKS_S, given_up, kept, settle, unlisted
from controller.act.republisher import Republished, Republisher
from controller.act.state import LaneState, Stored, accepted_since, load
from controller.decide import rates
from controller.decide.broken import Broken, broken_of
from controller.decide.decision import Decision, HoldCause, held_decision
from controller.decide.held_elsewhere import held_elsewhere
from controller.decide.ledger import GUARD_S, Ledger, Unlisted, ledger_of
from controller.decide.probe import unfinished
from controller.decide.unassigned.doubt import weighed
from controller.decide.unassigned.since import Look, Waiting, returned_by, told_of, waiting_of
from controller.lanes.sources import Source
from controller.model.execution import ExecutionInfo, Worked
from controller.model.lane import Lane, Strategy
from controller.model.reading import Idle, Reading, Value
from controller.model.schedule import brought_up
from controller.observe.backlog import WINDOW_S
from controller.observe.jobs import JobInfo
from controller.observe.killed import killed_text, killed_tries
from controller.observe.listing import executions_since, list_executions, newest_first, observed, shortage
from controller.observe.survey import Survey, oldest_of_interest, still_matter, survey
from controller.tick.outside import Outside


@dataclass(frozen=True, slots=True)
class View:
    """What a tick knows of a lane before it decides. `stored` is the state as it was read, `state` the same brought up to date. `ledger` is
    None if nothing was listed, or `listing_error` says why it could not be. `accepted_count` tasks came after the reading;
    `unfinished_count` of the tasks that the front door accepted lately are not acknowledged. `held`: a decision that is made already,
    because the lane could not be read; `held_worker_count` workers of it are then alive. `crashed`: which workers of its newest execution
    were ended by a signal or crashed. `problems`: what is wrong with the lane's job, or with what it drains (`source_problems`), so that
    nothing is launched; `advice`: what is not as it should be there, and keeps nothing from being launched. `worked`: the executions that
    matter, newest first."""

    lane: Lane
    now: float
    reading: Reading
    stored: Stored
    state: LaneState
    ledger: Ledger | None = None
    broken: Broken | None = None
    listing_error: str = ""
    accepted_count: int = 0
    unfinished_count: int = 0
    delayed: Republished = field(default_factory=Republished)
    notes: tuple[str, ...] = ()
    held: Decision | None = None
    held_worker_count: int = 0
    crashed: str = ""
    source_problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    worked: tuple[Worked, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        return (*self.lane.problems, *self.source_problems)

    def with_source(self, source: Source) -> View:
        """With what is known of what the lane drains."""
        return replace(self, source_problems=source.problems(self.lane.subscription), advice=(*self.advice, *source.advice))

    @property
    def live_worker_count(self) -> int:
        """Workers that are alive; if they could not be listed, those of the last listing and those launched since."""
        if self.held is not None:
            return self.held_worker_count
        if self.ledger is not None:
            return self.ledger.live_worker_count
        seen = self.state.observed
        known = {name.rsplit("/", 1)[-1] for name in seen.names}
        since = [part for intent in self.state.intents if intent.saved_at >= seen.listed_at for part in intent.parts]
        launched = [part for part in since if part.state in (PartState.PENDING, PartState.LAUNCHED) and part.execution not in known]
        return seen.live_worker_count + sum(part.workers for part in launched)


def look(
    lane: Lane,
    job: JobInfo,
    outside: Outside,
    reading: Reading,
    *,
    dry_run: bool,
    republish: bool = True,
    cancelled: bool = True,
    sent_count: int = 0,
) -> View:
    """Look at a lane. `republish`: delayed tasks may be due, and where `cancelled` some may be cancelled; a dry run only counts those that
    are due. `sent_count` tasks of Fanout's own were published just now. Errors of services become part of the view; they are not raised."""
    now = outside.clock.now()
    delayed = Republished()
    if republish:
        republisher = Republisher(lane.subscription, lambda: outside.topic(lane.topic), outside.store, outside.clock)
        if cancelled:
            swept = outside.memory.swept(lane.name)
            republisher.cancelled = CancelledTasks(
                lane.name, lane.subscription, outside.store, outside.clock, outside.rng, swept, lane.forms
            )
        delayed = republisher.run(dry_run=dry_run)
    new_count = delayed.count + sent_count
    remembered = outside.memory.state(lane.name)
    if remembered is not None and _quiet(lane, remembered.state, job, reading, new_count, now):
        return View(lane, now, reading, remembered, remembered.state, delayed=delayed)
    try:
        stored = load(outside.store, lane.name, remembered)
    except FanoutError as error:
        outside.memory.remember_state(lane.name, None)
        held = held_decision(lane.name, reading, now, HoldCause.STATE_UNREADABLE, str(error))
        return hold_view(lane, reading, outside, held, delayed=delayed)
    outside.memory.remember_state(lane.name, stored)
    sampled_at = reading.sampled_at if isinstance(reading, Value) else now - WINDOW_S
    recent = stored.state.pruned(now)
    scheduled = brought_up(lane.policy.schedules, stored.state.scheduled, now)
    # Those that are due count before they are published: what launches now is launched for them too.
    fresh_count = new_count + sum(bool(one.task) for one in scheduled if one not in stored.state.scheduled)
    state = recent.with_accepted(now, fresh_count) if fresh_count else stored.state
    view = View(
        lane,
        now,
        reading,
        stored,
        stored.state if dry_run else replace(state, scheduled=scheduled),
        accepted_count=accepted_since(recent, sampled_at) + fresh_count,
        delayed=delayed,
    )
    return _with_executions(view, job, outside, sampled_at, give_up=not dry_run)


def hold_view(
    lane: Lane, reading: Reading, outside: Outside, held: Decision, *, delayed: Republished | None = None, notes: tuple[str, ...] = ()
) -> View:
    """The view of a lane that could not be read to the end: it is `held`. If lanes share workers its own are listed; if that fails too, it
    counts as having as many as it may have."""
    nothing = Stored(LaneState(lane.name), 0)
    now, count = held.decided_at, 0
    if outside.quotas.count_workers:
        try:
            recent = executions_since(outside.runner, lane.job, oldest_of_interest(lane, now))
            count = sum(info.live_worker_count for info in recent)
        except Exception:  # noqa: BLE001 - the lane is held for a reason that is reported already, perhaps for this very one
            count = lane.policy.max_workers
    return View(
        lane,
        now,
        reading,
        nothing,
        nothing.state,
        delayed=delayed or Republished(),
        notes=notes,
        held=held,
        held_worker_count=count,
    )


def fault(lane: Lane, reading: Reading, now: float, error: Exception) -> Decision:
    """On hold because of an unforeseen error."""
    reason = f"a fault in Fanout itself, report its traceback: {type(error).__name__}: {error}"
    return held_decision(lane.name, reading, now, HoldCause.FAULT, reason)


def _quiet(lane: Lane, state: LaneState, job: JobInfo, reading: Reading, new_count: int, now: float) -> bool:
    """Whether the remembered state is enough to see that there is nothing to do: no backlog, nothing new, nothing under way."""
    return (
        (isinstance(reading, Idle) or (isinstance(reading, Value) and not reading.undelivered_count))
        and not new_count
        and (state.observed.job_uid, state.observed.counted, state.observed.latest) == (job.uid, job.execution_count, job.latest_execution)
        and not any(one.live for one in state.observed.executions)
        and not any(intent.pending for intent in state.intents)
        and not state.pruned(now).accepted
        and not state.waiting.groups
        and state.blind is None
        and brought_up(lane.policy.schedules, state.scheduled, now) == state.scheduled
        and not any(one.task for one in state.scheduled)
    )


def _with_executions(view: View, job: JobInfo, outside: Outside, sampled_at: float, *, give_up: bool) -> View:
    """The view with the ledger, whether the lane is broken, what was learned, and what became of earlier predictions."""
    lane, now, state, memory = view.lane, view.now, view.state, outside.memory
    since = sampled_at - GUARD_S
    ended = memory.ended(lane.name)
    pending = [intent.saved_at for intent in state.intents if intent.pending]
    try:
        found = list_executions(
            job,
            state.observed,
            outside.runner,
            lambda name: ended[name].info if name in ended else None,
            now=now,
            oldest=oldest_of_interest(lane, now),
            look_back_to=min(pending) - CLOCKS_S if pending else None,
        )
        seen = survey(found.executions, outside.runner, outside.store, ended, since=since, now=now)
        intents, unseen = _follow(lane, state.intents, seen, outside, now, short=found.missing_count > 0, give_up=give_up)
        if unseen:
            found = replace(found, executions=newest_first([*found.executions, *unseen]))
            seen = survey(found.executions, outside.runner, outside.store, ended, since=since, now=now)
    except FanoutError as error:
        return replace(view, listing_error=str(error))
    remains = still_matter(seen.worked, since, now)
    memory.remember_ended(lane.name, remains)
    lost = unlisted(intents, seen, now)
    ledger = _ledger(lane, sampled_at, seen.worked, lost, given_up(intents), now)
    weight = weighed(state.doubt, ledger, view.reading, view.accepted_count, now=now, within_s=lane.policy.drain_within_s)
    elsewhere = held_elsewhere(state.elsewhere, seen.worked, lost, view.reading, lane.subscription)
    listing_error = shortage(job.name, found, len(lost))
    state = replace(
        state,
        intents=intents,
        launched_at=state.last_launch_at,
        observed=observed(job, state.observed, found, (one.info for one in remains), now),
        learned=rates.learned(state.learned, seen.worked, lane.concurrency, is_delayed=lane.is_delayed),
        elsewhere=elsewhere,
    ).compared(seen.worked, lane, now)
    if not listing_error:
        state = replace(state, doubt=weight.doubt, waiting=_waiting(view, state, seen.worked, weight.ledger))
    return replace(
        view,
        state=state,
        ledger=weight.ledger,
        broken=broken_of(seen.worked, lost, now=now, start_within_s=lane.start_within_s),
        listing_error=listing_error,
        unfinished_count=unfinished(state.accepted, seen.worked),
        notes=(*view.notes, *found.notes, *seen.notes),
        crashed=crashed_of(seen.worked),
        worked=seen.worked,
    )


def _ledger(
    lane: Lane, sampled_at: float, executions: Sequence[Worked], lost: Sequence[Unlisted], given_up_ids: Collection[str], now: float
) -> Ledger:
    return ledger_of(
        sampled_at,
        executions,
        lost,
        now=now,
        subscription=lane.subscription,
        given_up_ids=given_up_ids,
        within_s=lane.policy.drain_within_s if lane.policy.strategy is Strategy.DEADLINE else None,
        task_timeout_s=lane.task_timeout_s,
        concurrency=lane.concurrency,
        start_within_s=lane.start_within_s,
        slow_start_s=lane.slow_start_s,
    )


def _waiting(view: View, state: LaneState, executions: Sequence[Worked], ledger: Ledger) -> Waiting:
    """Since when the messages wait that nobody has."""
    lane, before, now = view.lane, state.waiting, view.now
    held_count = 0 if state.elsewhere is None else state.elsewhere.counted_by(view.reading, ledger)
    read_count = view.reading.undelivered_count if isinstance(view.reading, Value) else 0
    own = [one for one in executions if one.info.env.get("SUBSCRIPTION_NAME", lane.subscription) == lane.subscription]
    names = {one.info.decision_id for one in own}
    parts = [part for intent in state.intents for part in intent.parts]
    look = Look(
        now,
        view.reading,
        ledger,
        max(0, read_count + view.accepted_count - ledger.total_count - held_count),
        told_of(state.accepted, own, now),
        {one.decision_id: one.since for one in before.launches if one.decision_id in names}
        | {part.decision_id: part.waited_since for part in parts if part.waited_since is not None},
        returned_by(
            own,
            ledger,
            {part.decision_id: part.backlog for part in parts if part.state in (PartState.REFUSED, PartState.ABANDONED)},
            now,
        ),
        None if state.doubt.since is None else max(state.doubt.since, now - lane.policy.drain_within_s / 2),
    )
    return waiting_of(before, look)


def crashed_of(newest_first: Sequence[Worked]) -> str:
    """One line about workers that ended without an exit reason, of the newest execution in which any has ended; empty if all were fine."""
    for worked in newest_first:
        tries = {(index, retry): one for index, of_worker in worked.tries.items() for retry, one in enumerate(of_worker)}
        killed = killed_tries(tries, live=worked.info.live, ended=worked.ended)
        if killed:
            return killed_text(worked.info.name, killed)
        if not worked.info.live or any(one.exit_reason for one in tries.values()):
            break
    return ""


def _follow(
    lane: Lane, intents: Sequence[Intent], seen: Survey, outside: Outside, now: float, *, short: bool, give_up: bool
) -> tuple[tuple[Intent, ...], list[ExecutionInfo]]:
    """The intents, resolved as far as can be known, and executions that the listing did not show."""
    followed: list[Intent] = []
    unseen: list[ExecutionInfo] = []
    for intent in intents:
        intent, found = settle(lane, intent, seen, outside.store, outside.runner, now, short=short, give_up=give_up)
        followed.append(intent)
        unseen += found
    return kept(tuple(followed), now), unseen

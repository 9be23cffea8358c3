"""How many workers to launch: a pure function of the reading, the ledger, the learned rates and the lane's policy. Unknown is never zero.

What is unassigned may wait (see `waits`). If it does not, the lane's strategy sizes it; then every cap is applied, in order; then drain
time and cost are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from controller.decide.broken import Broken
from controller.decide.caps import NO_LIMITS, Bound, Limits, bounds_of, capped, scout_bound, scout_share
from controller.decide.decision import Decision, HoldCause, Kind, held_decision
from controller.decide.held_elsewhere import HeldElsewhere
from controller.decide.ledger import GUARD_S, Ledger
from controller.decide.probe import Blind, blind_of, probe_due
from controller.decide.sizing import Rates, cost_usd, drain_s, share_of, worker_cost
from controller.decide.strategies import Demand, wanted
from controller.decide.unassigned.since import oldest_since
from controller.decide.waits import TICK_EVERY_S, Unassigned, drain_within_s, waiting_of
from controller.model.lane import Lane
from controller.model.reading import Idle, Reading, Unknown, Value
from controller.model.wording import are, brief, counted, spoken


@dataclass(frozen=True, slots=True)
class _Case:
    """What one decision is made from, once there is a ledger."""

    lane: Lane
    reading: Reading
    ledger: Ledger
    now: float
    rates: Rates | None
    limits: Limits
    accepted_count: int
    waiting_since: float | None
    blind: Blind | None
    tries_only: bool
    elsewhere: HeldElsewhere | None = None
    held_count: int = 0
    look_count: int = 0
    tick_every_s: float = TICK_EVERY_S

    @property
    def known_count(self) -> int:
        """Messages of the reading, and accepted since."""
        return (self.reading.undelivered_count if isinstance(self.reading, Value) else 0) + self.accepted_count

    @property
    def unassigned_count(self) -> int:
        """Messages that are not assigned to any worker: a launch is sized for them."""
        return max(0, self.known_count - self.ledger.total_count)

    @property
    def looks_only(self) -> bool:
        """Whether a launch would only look for what somebody else holds."""
        return 0 < self.look_count == self.unassigned_count

    @property
    def since(self) -> float:
        """When (Unix seconds) the first unassigned message came, at the earliest, as far as is known."""
        if self.waiting_since is not None:
            return min(self.now, self.waiting_since)
        sampled = self.reading.sampled_at if isinstance(self.reading, Value) and self.unassigned_count > self.accepted_count else self.now
        oldest = oldest_since(self.reading, self.ledger)
        return min(self.now, sampled if oldest is None else min(sampled, oldest))


def decision_for(
    lane: Lane,
    reading: Reading,
    ledger: Ledger | None,
    *,
    now: float,
    rates: Rates | None = None,
    accepted_since_sample_count: int = 0,
    listing_error: str = "",
    broken: Broken | None = None,
    limits: Limits = NO_LIMITS,
    waiting_since: float | None = None,
    blind: Blind | None = None,
    unfinished_count: int = 0,
    problems: Sequence[str] = (),
    elsewhere: HeldElsewhere | None = None,
    wait: bool = True,
    tick_every_s: float = TICK_EVERY_S,
) -> Decision:
    """The decision for one lane.

    `ledger` is needed if the reading is a value above 0, if tasks were accepted, and if a probe is due; `listing_error` says why
    executions could not be listed; `broken`, why the newest ones acknowledged nothing; `elsewhere`, that another consumer holds messages.
    With an idle reading `accepted_since_sample_count` and the ledger reach back by the readings' window, and `unfinished_count` tasks were
    accepted before and not acknowledged. `waiting_since` (Unix seconds) is when the first unassigned message came, at the earliest;
    `blind` is that of the lane's last decision. With `problems` nothing is launched; without `wait` what would wait is launched now, and
    so is what is doubtful. The next scheduled tick comes `tick_every_s` seconds after this one. Raises ValueError if ledger and error are
    both missing.
    """
    seen = blind_of(reading, blind, now)
    if lane.policy.paused:
        paused = f'the lane is paused: `fanout resume {lane.name}` lets it go on, or fanout/paused: "false" in jobs.yaml and an apply'
        return replace(held_decision(lane.name, reading, now, HoldCause.PAUSED, paused), blind=seen)
    if problems:
        more = f" (and {len(problems) - 1} more: `fanout doctor {lane.name}` has all)" if problems[1:] else ""
        return replace(held_decision(lane.name, reading, now, HoldCause.MISCONFIGURED, f"{problems[0]}{more}"), blind=seen)
    known_count = (reading.undelivered_count if isinstance(reading, Value) else 0) + accepted_since_sample_count
    probing = isinstance(reading, Unknown) or (isinstance(reading, Idle) and not known_count and unfinished_count > 0)
    if isinstance(reading, Unknown):
        quiet = replace(held_decision(lane.name, reading, now, HoldCause.READING_UNKNOWN, _unknown(lane, reading, seen, now)), blind=seen)
    else:
        quiet = replace(_nothing(lane, reading, now, _quiet(reading)), blind=seen)
    due = probing and probe_due(reading, blind, lane.policy.probe_after_s, now, unfinished_count)
    if not (due if probing else known_count):
        return quiet
    if listing_error:
        why = f"what runs already is unknown: {listing_error}"
        return replace(held_decision(lane.name, reading, now, HoldCause.LISTING_FAILED, why), blind=seen)
    if ledger is None:
        raise ValueError(f"lane {lane.name}: neither a backlog above 0 nor a probe can be decided without a ledger")
    ledger = ledger if wait else replace(ledger, guard_count=0)  # who wants it now does not wait for the next sample either
    case = _Case(lane, reading, ledger, now, rates, limits, accepted_since_sample_count, waiting_since, seen, broken is not None)
    case = _with_elsewhere(replace(case, tick_every_s=tick_every_s), elsewhere)
    held = broken.hold_reason(lane.name, now) if broken is not None else ""
    if probing:
        return replace(quiet, ledger=ledger) if ledger.live_worker_count or held else _probe(case)
    return _for_backlog(case, held, wait=wait)


def _with_elsewhere(case: _Case, elsewhere: HeldElsewhere | None) -> _Case:
    """What somebody else holds stands in the ledger. When it is time to look for them again, the share of one worker is left out."""
    if elsewhere is None or not (count := elsewhere.counted_by(case.reading, case.ledger)):
        return case
    look_count = 0 if elsewhere.waits(case.now, case.lane.start_within_s) else min(count, _first_share(case))
    entries = (*case.ledger.entries, elsewhere.entry(count - look_count)) if look_count < count else case.ledger.entries
    return replace(case, ledger=replace(case.ledger, entries=entries), elsewhere=elsewhere, held_count=count, look_count=look_count)


def _for_backlog(case: _Case, held: str, *, wait: bool) -> Decision:
    lane, reading, now = case.lane, case.reading, case.now
    if case.unassigned_count == 0 and case.elsewhere is not None:
        why = case.elsewhere.reason(case.held_count, now)
        return _filled(case, held_decision(lane.name, reading, now, HoldCause.HELD_ELSEWHERE, why))
    if case.unassigned_count == 0:
        known = case.known_count
        all_are = "the only message is" if known == 1 else f"all {known} messages are"
        return _filled(case, _nothing(lane, reading, now, f"{all_are} assigned already{_guarded(case)}"))
    if held:
        return _filled(case, held_decision(lane.name, reading, now, HoldCause.BROKEN, held))
    waiting = None if case.tries_only or case.look_count or not wait else _waiting(case)
    if waiting is not None:
        return waiting
    return _sized(case)


def _guarded(case: _Case) -> str:
    """What to say where messages count as assigned only because the gauge may be older than it says."""
    if not case.ledger.guard_count:
        return ""
    return f", counting {case.ledger.guard_count} that may have been acknowledged {GUARD_S:.0f} s before the sample; a later one tells"


def _waiting(case: _Case) -> Decision | None:
    """Nothing to do yet, though messages are unassigned; None if it is time to launch."""
    lane, reading, now = case.lane, case.reading, case.now
    seen_at = reading.sampled_at if isinstance(reading, Value) else now
    messages = Unassigned(case.unassigned_count, case.since, min(seen_at, now))
    starts = case.ledger.awaits_start
    waiting = waiting_of(lane, messages, case.rates, now=now, awaits_start=starts, tick_every_s=case.tick_every_s)
    if waiting is None:
        return None
    decision = _filled(case, _nothing(lane, reading, now, f"{_many_wait(case.unassigned_count)} {waiting.reason}"))
    return replace(
        decision,
        rates=case.rates,
        formula=waiting.figures,
        waits_until=waiting.until,
        waiting_since=case.since,
    )


def _many_wait(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count} messages wait"


def _sized(case: _Case) -> Decision:
    lane, policy, ledger, count = case.lane, case.lane.policy, case.ledger, case.unassigned_count
    worker, alive = worker_cost(lane), ledger.live_worker_count - ledger.stuck_worker_count
    whole_s = drain_within_s(lane)
    within_s = time_left_s(whole_s, case.since, case.now, _least_s(case.rates, worker.floor_s))
    due_in_s = whole_s - max(0.0, case.now - case.since)
    want = wanted(
        Demand(
            policy,
            unassigned_count=count,
            live_workers=alive,
            within_s=within_s,
            rates=case.rates,
            worker=worker,
            waited_s=policy.drain_within_s - due_in_s,
        )
    )
    bounds = bounds_of(
        lane,
        count,
        ledger.live_worker_count,
        case.rates,
        worker,
        case.limits,
        least=policy.strategy.sizes_by_work,
        stuck_workers=ledger.stuck_worker_count,
    )
    scout = scout_bound(lane, count, alive, within_s, due_in_s, case.tick_every_s) if case.rates is None else None
    bounds += [scout] if scout is not None else []
    bounds += [Bound("broken", 1, why="one worker tries whether the lane works again")] if case.tries_only else []
    bounds += [Bound("held", 1, why="one worker looks for what somebody else holds")] if case.looks_only else []
    workers, caps = capped(want.workers, bounds)
    sizing = Decision(
        lane=lane.name,
        kind=Kind.LAUNCH,
        reason="",
        decided_at=case.now,
        reading=case.reading,
        strategy=policy.strategy.value,
        formula=want.formula,
        within_s=within_s,
        due_in_s=due_in_s,
        wanted_workers=want.workers,
        caps=caps,
        rates=case.rates,
    )
    sizing = _filled(case, sizing)
    if workers == 0:
        return replace(sizing, kind=Kind.NOTHING_TO_DO, reason=_no_room(case, sizing))
    scouts = any(cap.name == "scout" and cap.after < cap.before for cap in caps)
    backlog = min(count, workers * (scout_share(lane, case.tick_every_s) if scouts else _share_of_one(case)))
    part = "" if case.looks_only else f", {case.look_count} of them"
    aim = f"{part} to look whether somebody else still holds {case.held_count}" if case.look_count else ""
    aim = " to try whether the broken lane works again" if case.tries_only else aim
    aim = aim or (", to learn how long a message takes before the rest is sized" if scouts else "")
    reason = f"{counted(workers, 'worker')} for {backlog} of {counted(count, 'unassigned message')}{aim or _decided_by(sizing)}"
    return _predicted(replace(sizing, reason=reason, workers=workers, backlog=backlog), lane)


def _share_of_one(case: _Case) -> int:
    """The most messages of one worker."""
    return _first_share(case) if case.tries_only or case.looks_only else share_of(case.lane, case.rates)


def _first_share(case: _Case) -> int:
    """The same where it is open whether the worker finds any, or can work."""
    return min(share_of(case.lane, case.rates), case.lane.policy.unlearned_share)


def _decided_by(sizing: Decision) -> str:
    """The cap that had the last word on the number of workers; empty if they are as many as were wanted."""
    last = next((cap for cap in reversed(sizing.caps) if cap.before != cap.after), None)
    if last is None or last.after == sizing.wanted_workers:
        return ""
    were = "was" if sizing.wanted_workers == 1 else "were"
    bound = f"at {'most' if last.lowers else 'least'} {last.limit}"
    return f"; {last.name} decides: {bound}, where {sizing.wanted_workers} {were} wanted"


def _no_room(case: _Case, sizing: Decision) -> str:
    """Why there is work and no worker is launched for it."""
    waiting = _many_wait(case.unassigned_count)
    live_count = case.ledger.live_worker_count
    closed = next((cap for cap in sizing.caps if cap.before > 0 and cap.after == 0), None)
    if closed is None:
        return f"{waiting}; {sizing.strategy} wants no more workers: {sizing.formula}"
    others = [cap.name for cap in sizing.caps if cap.lowers and cap.limit == 0 and cap.name != closed.name]
    also = f"; nor would {', '.join(others)} leave a worker" if others else ""
    if closed.name == "max-workers":
        limit = case.lane.policy.max_workers
        return f"{waiting}, but {counted(live_count, 'worker')} {are(live_count)} alive and the lane's limit is {limit}{also}"
    return f"{waiting}, but {closed.name} leaves no worker: {closed.why}{also}"


def _probe(case: _Case) -> Decision:
    """One worker that looks into the subscription, within every cap."""
    lane = case.lane
    blind = case.blind or Blind(case.now)
    share = _first_share(case)
    workers, caps = capped(1, bounds_of(lane, share, 0, case.rates, worker_cost(lane), case.limits, least=False))
    what = "the backlog is unknown" if isinstance(case.reading, Unknown) else "the gauge has no series while accepted tasks are unfinished"
    decision = Decision(
        lane=lane.name,
        kind=Kind.LAUNCH if workers else Kind.HOLD,
        hold_cause=None if workers else HoldCause.READING_UNKNOWN,
        reason=f"1 worker looks: {what}",
        decided_at=case.now,
        reading=case.reading,
        ledger=case.ledger,
        strategy="probe",
        formula="a probe is one worker",
        wanted_workers=1,
        caps=caps,
        workers=workers,
        backlog=share if workers else 0,
        probe=True,
        blind=blind.probed(case.now) if workers else case.blind,
    )
    closed = next((cap for cap in caps if cap.after == 0), None)
    return decision if closed is None else replace(decision, reason=f"{what}, and {closed.name} leaves no worker to look: {closed.why}")


def _predicted(decision: Decision, lane: Lane) -> Decision:
    decision = replace(decision, starts_within_s=lane.start_within_s if lane.is_delayed else 0.0, price_percent=lane.price_percent)
    if decision.rates is None:
        return decision
    worker = worker_cost(lane)
    return replace(
        decision,
        predicted_drain_s=drain_s(decision.backlog, decision.workers, decision.rates, worker),
        predicted_cost_usd=cost_usd(decision.backlog, decision.workers, decision.rates, worker),
    )


def _quiet(reading: Reading) -> str:
    return "idle: there is no series for the subscription" if isinstance(reading, Idle) else "the backlog is 0"


def _unknown(lane: Lane, reading: Unknown, blind: Blind | None, now: float) -> str:
    reason = f"the backlog is unknown: {reading.reason}"
    if blind is None:
        return reason
    due_at = blind.due_at(lane.policy.probe_after_s)
    since = f"for {brief(now - blind.since)} now" if now > blind.since else "since this tick"
    return f"{reason}; {since}, one worker looks {f'in {spoken(due_at - now)}' if due_at > now else 'once nothing else is alive'}"


def _filled(case: _Case, decision: Decision) -> Decision:
    return replace(
        decision, ledger=case.ledger, unassigned_count=case.unassigned_count, accepted_count=case.accepted_count, blind=case.blind
    )


def _nothing(lane: Lane, reading: Reading, now: float, reason: str) -> Decision:
    return Decision(lane=lane.name, kind=Kind.NOTHING_TO_DO, reason=reason, decided_at=now, reading=reading)


def time_left_s(drain_within_s: float, since: float, now: float, least_s: float) -> float:
    """Seconds to plan with for messages that have waited since `since` (Unix seconds): what `drain_within_s` leaves of itself, if that is
    `least_s` or more, or half of it. Else they are late in any case, and half of it, or `least_s`, is as good: then they are no reason to
    launch as many workers as there may be."""
    left_s = drain_within_s - max(0.0, now - since)
    return left_s if left_s >= min(least_s, drain_within_s / 2) else max(drain_within_s / 2, least_s)


def _least_s(rates: Rates | None, floor_s: float) -> float:
    """The shortest time to plan with: that of one message, and of half the minute that is paid for in any case, so that what is nearly late
    costs twice as much at most."""
    return floor_s / 2 if rates is None else rates.start_up_s + max(floor_s / 2, rates.message_s)

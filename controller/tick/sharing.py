"""What lanes share is given out: the budget of workers, the CPU quota, the calls of a minute. Each lane's decision is made with its part.

A round that launches under a budget reserves its workers before it acts, so that rounds at the same time, of this controller or another,
together stay within the budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache

from batch.model.errors import FanoutError
from controller.act.intents import new_decision_id
from controller.act.launcher import backing_off, refused_count
from controller.act.reserved import LOOK_S, Book, Looked, Reservation, load, save
from controller.decide.budget import Draft, decisions_of
from controller.decide.caps import Limits
from controller.decide.decision import Decision, HoldCause, Kind, on_hold
from controller.decide.policy import decision_for
from controller.decide.sizing import Rates
from controller.model.wording import spoken, told_at
from controller.tick.outside import MINUTE_S, Outside
from controller.tick.view import View, fault

TRIES = 5


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision for each view, in their order. `reserved_at` (Unix seconds) is when workers were reserved for those that launch."""

    decisions: tuple[Decision, ...]
    reserved_at: float | None = None


def share_out(views: Sequence[View], outside: Outside, chosen: Collection[str], *, dry_run: bool, wait: bool = True) -> Decided:
    """Decide for all views; those of lanes in `chosen` are about to be acted on, and without `wait` launch now what could wait. Errors of
    services become decisions; they are not raised."""
    hasty = frozenset() if wait else frozenset(chosen)
    decided = Decided(_decisions(views, outside, (), hasty))
    if not outside.quotas.count_workers or not _launches(views, decided, chosen):
        return decided
    round_id = new_decision_id(outside.clock.now(), outside.rng)
    try:
        for _ in range(TRIES):
            now = outside.clock.now()
            if now - min(view.now for view in views) > LOOK_S:
                return _held(views, decided, chosen, f"it took more than {LOOK_S:.0f} s to look at the lanes; the next tick decides anew")
            book = load(outside.store)
            looked = {view.lane.name: Looked(view.now, view.stored.generation) for view in views}
            decided = Decided(_decisions(views, outside, book.unseen(looked, round_id, now), hasty), now)
            own = _launches(views, decided, chosen)
            if dry_run or not own or _reserve(outside, book, own, round_id, now):
                return decided
    except FanoutError as error:
        return _held(views, decided, chosen, f"what other rounds launch under the shared budget is unknown: {error}")
    return _held(views, decided, chosen, "other rounds keep taking workers of the shared budget at the same time; the next tick decides")


def _launches(views: Sequence[View], decided: Decided, chosen: Collection[str]) -> list[tuple[View, Decision]]:
    pairs = zip(views, decided.decisions, strict=True)
    return [(view, decision) for view, decision in pairs if decision.kind is Kind.LAUNCH and view.lane.name in chosen]


def _reserve(outside: Outside, book: Book, launches: Sequence[tuple[View, Decision]], round_id: str, now: float) -> bool:
    own = [
        Reservation(view.lane.name, decision.workers, view.lane.vcpu, view.stored.generation, now, round_id) for view, decision in launches
    ]
    return save(outside.store, book.with_round(own, round_id, now), book.generation)


def _held(views: Sequence[View], decided: Decided, chosen: Collection[str], reason: str) -> Decided:
    """What would launch is put on hold instead."""
    launching = {view.lane.name for view, _ in _launches(views, decided, chosen)}
    decisions = (on_hold(one, HoldCause.STATE_UNREADABLE, reason) if one.lane in launching else one for one in decided.decisions)
    return Decided(tuple(decisions))


def _decisions(views: Sequence[View], outside: Outside, unseen: Sequence[Reservation], hasty: Collection[str]) -> tuple[Decision, ...]:
    """A decision for each view; lanes in `hasty` do not wait. Reservations that the views do not show count as live workers."""
    reserved = Counter[str]()
    for one in unseen:
        reserved[one.lane] += one.workers
    return decisions_of(
        [_draft(view, outside, wait=view.lane.name not in hasty) for view in views],
        outside.quotas,
        reserved=reserved,
        reserved_vcpu=sum(one.workers * one.vcpu for one in unseen),
        run_call_count=_run_call_count(views, outside),
    )


def _draft(view: View, outside: Outside, *, wait: bool) -> Draft:
    @cache
    def rates() -> Rates | None:
        """A lane that launches is decided twice, and one without a ledger has no use for them."""
        return None if view.ledger is None else view.state.learned.rates(view.now)

    def decide(limits: Limits) -> Decision:
        if view.held is not None:
            return view.held
        try:
            return allowed(
                view,
                decision_for(
                    view.lane,
                    view.reading,
                    view.ledger,
                    now=view.now,
                    rates=rates(),
                    accepted_since_sample_count=view.accepted_count,
                    listing_error=view.listing_error,
                    broken=view.broken,
                    limits=replace(limits, refused_workers=refused_count(view.state.backoff, view.now)),
                    waiting_since=view.state.waiting.since,
                    blind=view.state.blind,
                    unfinished_count=view.unfinished_count,
                    problems=view.problems,
                    elsewhere=view.state.elsewhere,
                    wait=wait,
                    tick_every_s=outside.tick_every_s,
                ),
            )
        except Exception as error:  # noqa: BLE001 - an unforeseen fault holds this lane, and the others go on
            return fault(view.lane, view.reading, outside.clock.now(), error)

    return Draft(view.lane, view.live_worker_count, getattr(view.reading, "oldest_age_s", None), decide)


def allowed(view: View, decision: Decision) -> Decision:
    """The decision, on hold if Cloud Run has just refused a launch because there were too many."""
    if decision.kind is not Kind.LAUNCH:
        return decision
    backoff = view.state.backoff
    if backoff is not None and backing_off(backoff, view.now):
        often = f" {backoff.count} times in a row" if backoff.count > 1 else ""
        wait = f"no launch before {told_at(backoff.until, view.now)} ({spoken(backoff.until - view.now)} more)"
        return on_hold(decision, HoldCause.THROTTLED, f"Cloud Run refused{often} for too many launches; {wait}: {backoff.reason}")
    return decision


def _run_call_count(views: Sequence[View], outside: Outside) -> int:
    """Launches of the last minute: those of every controller in the lanes' states, and those that this process has tried for any lane."""
    since = outside.clock.now() - MINUTE_S
    saved_count = sum(len(intent.parts) for view in views for intent in view.state.intents if intent.saved_at > since)
    return max(saved_count, outside.memory.run_call_count(since))

"""What lanes share is given out: the budget of workers, the CPU quota, the calls of a minute. Each lane's decision is made with its part.

A round that launches under a budget reserves what it takes before it acts, so that rounds at the same time, of this controller or another,
take no more than there is together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from batch.model.errors import FanoutError
from controller.act.intents import new_decision_id
from controller.act.reserved import LOOK_S, Book, Looked, Reservation, load, save
from controller.decide.budget import Want, aged_weights, allocated
from controller.decide.caps import Limits
from controller.decide.decision import Decision, HoldCause, Kind, on_hold
from controller.decide.policy import decide
from controller.model.execution import MAX_WORKERS_PER_EXECUTION
from controller.tick.action import MINUTE_S, allowed
from controller.tick.outside import Outside
from controller.tick.view import View, fault

TRIES = 5


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision for each view, in their order. `reserved_at` (Unix seconds) is when workers were reserved for those that launch."""

    decisions: tuple[Decision, ...]
    reserved_at: float | None = None


def shared_out(views: Sequence[View], outside: Outside, chosen: Collection[str], *, dry_run: bool) -> Decided:
    """Decide for all views; those of lanes in `chosen` are about to be acted on. Services that fail are told in decisions."""
    decided = Decided(_given_out(views, outside, ()))
    if not outside.quotas.count_workers or not _launches(views, decided, chosen):
        return decided
    round_id = new_decision_id(outside.clock.now(), outside.rng)
    try:
        for _ in range(TRIES):
            now = outside.clock.now()
            if now - min(view.now for view in views) > LOOK_S:
                return _held(views, decided, chosen, f"it took more than {LOOK_S:.0f} s to look at the lanes; the next tick decides anew")
            book = load(outside.store)
            decided = _reserving(views, outside, book, round_id, now)
            own = _launches(views, decided, chosen)
            if dry_run or not own or _saved(outside, book, own, round_id, now):
                return decided
    except FanoutError as error:
        return _held(views, decided, chosen, f"what other rounds launch under the shared budget is unknown: {error}")
    return _held(views, decided, chosen, "other rounds keep taking workers of the shared budget at the same time; the next tick decides")


def _reserving(views: Sequence[View], outside: Outside, book: Book, round_id: str, now: float) -> Decided:
    looked = {view.lane.name: Looked(view.now, view.saved.generation) for view in views}
    return Decided(_given_out(views, outside, book.unseen(looked, round_id, now)), now)


def _launches(views: Sequence[View], decided: Decided, chosen: Collection[str]) -> list[tuple[View, Decision]]:
    pairs = zip(views, decided.decisions, strict=True)
    return [(view, decision) for view, decision in pairs if decision.kind is Kind.LAUNCH and view.lane.name in chosen]


def _saved(outside: Outside, book: Book, launches: Sequence[tuple[View, Decision]], round_id: str, now: float) -> bool:
    own = [
        Reservation(view.lane.name, decision.workers, view.lane.vcpu, view.saved.generation, now, round_id) for view, decision in launches
    ]
    return save(outside.store, book.with_round(own, round_id, now), book.generation)


def _held(views: Sequence[View], decided: Decided, chosen: Collection[str], reason: str) -> Decided:
    launching = {view.lane.name for view, _ in _launches(views, decided, chosen)}
    return Decided(
        tuple(
            on_hold(decision, HoldCause.STATE_UNREADABLE, reason) if decision.lane in launching else decision
            for decision in decided.decisions
        )
    )


def _given_out(views: Sequence[View], outside: Outside, unseen: Sequence[Reservation]) -> tuple[Decision, ...]:
    """A decision for each view, in their order. What lanes share is given out to the one that waits longest for its weight first. `unseen`
    counts as if it were alive."""
    quotas = outside.quotas
    reserved = Counter[str]()
    for one in unseen:
        reserved[one.lane] += one.workers
    elsewhere_count = reserved.total() - sum(reserved[view.lane.name] for view in views)
    alone = [_decision(view, Limits(), outside) for view in views]
    wants = [
        Want(
            view.lane.name,
            view.live_worker_count + reserved[view.lane.name],
            draft.workers,
            view.lane.policy.weight,
            view.lane.policy.floor,
            getattr(view.reading, "oldest_age_s", None),
        )
        for view, draft in zip(views, alone, strict=True)
    ]
    grants = None if quotas.worker_budget is None else allocated(wants, quotas.worker_budget - elsewhere_count)
    live_vcpu = sum(view.live_worker_count * view.lane.vcpu for view in views) + sum(one.workers * one.vcpu for one in unseen)
    calls_left = None if quotas.run_calls_per_minute is None else quotas.run_calls_per_minute - _run_call_count(views, outside)
    weights = aged_weights(wants)
    decisions = list(alone)
    for at in sorted(range(len(views)), key=lambda at: (-weights[wants[at].lane], -(wants[at].oldest_age_s or 0.0), at)):
        if alone[at].kind is not Kind.LAUNCH:
            continue
        limits = Limits(
            cpu_quota_vcpu=quotas.cpu_quota_vcpu,
            live_vcpu=live_vcpu,
            run_calls_left=None if calls_left is None else max(0, calls_left),
            budget_workers=None if grants is None else grants[wants[at].lane],
        )
        decisions[at] = decided = _decision(views[at], limits, outside)
        live_vcpu += decided.workers * views[at].lane.vcpu
        if calls_left is not None:
            calls_left -= -(-decided.workers // MAX_WORKERS_PER_EXECUTION)
    return tuple(decisions)


def _decision(view: View, limits: Limits, outside: Outside) -> Decision:
    if view.held is not None:
        return view.held
    try:
        decided = decide(
            view.lane,
            view.reading,
            view.ledger,
            now=view.now,
            rates=view.state.learned.rates(),
            accepted_since_sample_count=view.accepted_count,
            listing_error=view.listing_error,
            broken=view.broken,
            limits=limits,
            waiting_since=view.state.waiting_since,
            blind=view.state.blind,
            unfinished_count=view.unfinished_count,
        )
        return allowed(view, decided)
    except Exception as error:  # noqa: BLE001 - as where lanes are looked at
        return fault(view.lane, view.reading, outside.clock.now(), error)


def _run_call_count(views: Sequence[View], outside: Outside) -> int:
    """Launches of the last minute: what the lanes' states tell of every controller, and what this one has tried for any lane."""
    since = outside.clock.now() - MINUTE_S
    told = sum(len(intent.parts) for view in views for intent in view.state.intents if intent.saved_at > since)
    return max(told, outside.memory.run_call_count(since))

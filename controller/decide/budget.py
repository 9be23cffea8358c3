"""How lanes share workers, CPU quota and calls: floors first, then by weight, and a lane that waits long weighs more. Pure.

No running worker is ever ended for it: a budget says who may start the workers that are free.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.decide.caps import Limits
from controller.decide.decision import Decision, Kind
from controller.model.execution import MAX_WORKERS_PER_EXECUTION
from controller.model.lane import Lane

AGEING_S = 600.0
"""A lane whose oldest message has waited this long weighs twice as much; after twice that, three times."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """What all lanes share; None: no bound. `run_calls_per_minute` is the region's quota of RunJob calls."""

    worker_budget: int | None = None
    cpu_quota_vcpu: float | None = None
    run_calls_per_minute: int | None = 60

    @property
    def count_workers(self) -> bool:
        """Whether what one lane may launch depends on the live workers of others."""
        return self.worker_budget is not None or self.cpu_quota_vcpu is not None


@dataclass(frozen=True, slots=True)
class Want:
    """What one lane has, and would launch if it were alone. `floor` workers are reserved for it; `oldest_age_s` is how long its oldest
    message has waited, None if not known."""

    lane: str
    live_workers: int
    wanted_workers: int
    weight: float = 1.0
    floor: int = 0
    oldest_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A lane's decision that is yet to be made: `decide` is a pure function of what bounds the launch from outside the lane."""

    lane: Lane
    live_worker_count: int
    oldest_age_s: float | None
    decide: Callable[[Limits], Decision]


def decisions_of(
    drafts: Sequence[Draft], quotas: Quotas, *, reserved: Mapping[str, int], reserved_vcpu: float, run_call_count: int
) -> tuple[Decision, ...]:
    """A decision for each draft, in their order; the lane that waits longest for its weight takes its part first. Workers that others have
    `reserved`, by lane, and their vCPU count as live; `run_call_count` is how many RunJob calls were made in the last minute."""
    alone = [draft.decide(Limits()) for draft in drafts]
    wants = [_want(draft, decided, reserved.get(draft.lane.name, 0)) for draft, decided in zip(drafts, alone, strict=True)]
    elsewhere_count = sum(count for lane, count in reserved.items() if lane not in {want.lane for want in wants})
    grants = None if quotas.worker_budget is None else allocated(wants, quotas.worker_budget - elsewhere_count)
    live_vcpu = sum(draft.live_worker_count * draft.lane.vcpu for draft in drafts) + reserved_vcpu
    calls_left = None if quotas.run_calls_per_minute is None else quotas.run_calls_per_minute - run_call_count
    weights = aged_weights(wants)
    decisions = list(alone)
    for at in sorted(range(len(drafts)), key=lambda at: (-weights[wants[at].lane], -(wants[at].oldest_age_s or 0.0), at)):
        if alone[at].kind is not Kind.LAUNCH:
            continue
        limits = Limits(
            cpu_quota_vcpu=quotas.cpu_quota_vcpu,
            live_vcpu=live_vcpu,
            run_calls_left=None if calls_left is None else max(0, calls_left),
            budget_workers=None if grants is None else grants[wants[at].lane],
        )
        decisions[at] = decided = drafts[at].decide(limits)
        live_vcpu += decided.workers * drafts[at].lane.vcpu
        if calls_left is not None:
            calls_left -= -(-decided.workers // MAX_WORKERS_PER_EXECUTION)
    return tuple(decisions)


def _want(draft: Draft, alone: Decision, reserved_count: int) -> Want:
    policy, live_count = draft.lane.policy, draft.live_worker_count + reserved_count
    return Want(draft.lane.name, live_count, alone.workers, policy.weight, policy.floor, draft.oldest_age_s)


def allocated(wants: Sequence[Want], budget: int) -> dict[str, int]:
    """How many workers each lane may launch now, by lane. Together with the live ones they are at most `budget`, unless the live ones alone
    are more. Nothing is left over while a lane wants more, except floors that other lanes do not use.

    A floor comes before everything; what is free then goes, worker by worker, to the lane that has the fewest for its weight.
    """
    free = max(0, budget - sum(want.live_workers for want in wants))
    grants = {want.lane: 0 for want in wants}
    for want in sorted(wants, key=_longest_first):
        grants[want.lane] = min(free, want.wanted_workers, max(0, want.floor - want.live_workers))
        free -= grants[want.lane]
    free -= sum(max(0, want.floor - want.live_workers - grants[want.lane]) for want in wants)
    weights = aged_weights(wants)

    def crowded(want: Want) -> tuple[float, float, str]:
        """Workers for its weight, with one more; the lane that waits longest goes first at equal numbers."""
        return ((want.live_workers + grants[want.lane] + 1) / weights[want.lane], *_longest_first(want))

    by_lane = {want.lane: want for want in wants}
    turns = [crowded(want) for want in wants if grants[want.lane] < want.wanted_workers]
    heapq.heapify(turns)
    while free > 0 and turns:
        want = by_lane[turns[0][-1]]
        grants[want.lane] += 1
        free -= 1
        if grants[want.lane] < want.wanted_workers:
            heapq.heapreplace(turns, crowded(want))
        else:
            heapq.heappop(turns)
    return grants


def aged_weights(wants: Sequence[Want]) -> dict[str, float]:
    """Weights by lane. A weight grows with the age of the lane's oldest message, up to the largest weight of any lane: the lane comes to
    share equally, and never overtakes."""
    most = max((want.weight for want in wants), default=1.0)
    return {want.lane: min(most, want.weight * (1 + max(0.0, want.oldest_age_s or 0.0) / AGEING_S)) for want in wants}


def _longest_first(want: Want) -> tuple[float, str]:
    return -(want.oldest_age_s or 0.0), want.lane

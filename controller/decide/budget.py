"""How lanes share a budget of workers: floors first, then by weight, and who waits long weighs more. Pure.

Nothing that runs is ever ended for it: a budget says who may start what is free.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

AGEING_S = 600.0
"""A lane whose oldest message has waited this long weighs twice as much; after twice that, three times."""


@dataclass(frozen=True, slots=True)
class Want:
    """What one lane has, and would launch if it were alone. `floor` are workers kept for it whatever the others want; `oldest_age_s` is
    how long its oldest message has waited, None where that is not known."""

    lane: str
    live_workers: int
    wanted_workers: int
    weight: float = 1.0
    floor: int = 0
    oldest_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Quotas:
    """What all lanes share; None: no bound. `run_calls_per_minute` is the region's quota of RunJob calls."""

    worker_budget: int | None = None
    cpu_quota_vcpu: float | None = None
    run_calls_per_minute: int | None = 60

    @property
    def count_workers(self) -> bool:
        """Whether what one lane may launch depends on what is alive in others."""
        return self.worker_budget is not None or self.cpu_quota_vcpu is not None


def allocated(wants: Sequence[Want], budget: int) -> dict[str, int]:
    """How many workers each lane may launch now. With those that live they are never more than `budget`, unless those alone are. None of
    it is left over while a lane wants more, but for floors that other lanes do not use.

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
    """A lane's weight grows with the age of its oldest message, up to the largest weight of any lane: it comes to share equally, and
    does not turn the order around."""
    most = max((want.weight for want in wants), default=1.0)
    return {want.lane: min(most, want.weight * (1 + max(0.0, want.oldest_age_s or 0.0) / AGEING_S)) for want in wants}


def _longest_first(want: Want) -> tuple[float, str]:
    return -(want.oldest_age_s or 0.0), want.lane

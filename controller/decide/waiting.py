"""Small backlogs wait: a worker's minute is paid for whether it is filled or not. Pure.

Fewer than `fanout/min-backlog` unassigned messages wait for more, but never longer than `fanout/max-wait`.
"""

from __future__ import annotations

from controller.decide.ledger import Ledger
from controller.lanes.lanes import Policy
from controller.observe.backlog import Value


def oldest_since(reading: object, ledger: Ledger) -> float | None:
    """Since when (Unix seconds) the oldest message waits, where it is nobody's; None where that is not known. A reading tells one age
    for all, so nothing can be said once a part of it is assigned."""
    if not isinstance(reading, Value) or not reading.undelivered_count or reading.oldest_age_s is None or ledger.total_count:
        return None
    return reading.sampled_at - reading.oldest_age_s


def waits_until(policy: Policy, unassigned_count: int, since: float, now: float) -> float | None:
    """Until when (Unix seconds) `unassigned_count` messages wait for more; None when they need not. `since` is when the first of them
    came, as far as is known."""
    until = since + policy.max_wait_s
    return until if unassigned_count < policy.min_backlog and now < until else None


def time_left_s(policy: Policy, since: float, now: float) -> float:
    """Seconds to drain in, of what `fanout/drain-within` gives to messages that wait since then; half of it at least: a message that
    has been held up for long is no reason to launch all there is."""
    return max(policy.drain_within_s / 2, policy.drain_within_s - max(0.0, now - since))

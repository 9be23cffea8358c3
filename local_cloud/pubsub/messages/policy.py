"""How one subscription leases, retries and dead-letters: the numbers of its settings, in seconds.

Values only: nothing here knows a message, a clock or the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

from local_cloud.pubsub.messages.filters import Filter

DAY_S = 86_400.0


@dataclass(frozen=True)
class Policy:
    """`max_attempt_count` 0 means no dead-letter policy; `max_backoff_s` 0 means no retry policy (again at once).

    `filter` None means every message; `retains_acked` keeps acknowledged messages for a seek.
    """

    ack_deadline_s: float = 10.0
    retention_s: float = 7 * DAY_S
    dead_letter_topic: str = ""
    max_attempt_count: int = 0
    min_backoff_s: float = 0.0
    max_backoff_s: float = 0.0
    filter: Filter | None = None
    is_ordered: bool = False
    is_exactly_once: bool = False
    retains_acked: bool = False
    is_detached: bool = False

    def backoff_s(self, failure_count: int) -> float:
        """Wait before the next delivery after `failure_count` (1 or more) failed ones: doubled each time, without jitter."""
        if self.max_backoff_s <= 0:
            return 0.0
        # 2 ** 30 s is beyond any allowed maximum; the cap keeps the power finite.
        return min(self.max_backoff_s, self.min_backoff_s * 2.0 ** min(failure_count - 1, 30))

    def gives_up(self, failure_count: int) -> bool:
        return 0 < self.max_attempt_count <= failure_count

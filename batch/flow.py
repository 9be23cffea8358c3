"""How much to pull, and how much a slot takes at once: pure functions of what was measured.

A message that is pulled early is a message that nobody else can start: pull only what will start soon.
"""

from __future__ import annotations

from batch.subscription import MAX_PULL_MESSAGES

CHUNK_S = 0.05
"""What one slot takes at once should keep it busy for about this long."""
MAX_CHUNK = 100
MAX_READY_BYTES = 64 * 1024 * 1024


def pull_size(*, slots: int, busy: int, ready: int, share_left: int, mean_s: float | None, start_within_s: float) -> int:
    """How many messages to ask for now; 0 when enough wait already.

    `busy` slots have something to do; `mean_s` is the measured seconds a message occupies a slot, None before the first one
    ended: then only the free slots are filled.
    """
    free = max(0, slots - busy)
    soon = 0 if mean_s is None else int(slots * start_within_s / max(mean_s, 1e-6))
    wanted = min(max(free, soon), MAX_PULL_MESSAGES)
    if ready > wanted // 2:
        return 0
    return max(0, min(wanted - ready, share_left, MAX_PULL_MESSAGES))


def chunk_size(*, slots: int, ready: int, mean_s: float | None) -> int:
    """How many of `ready` messages one slot takes: never so many that another slot would stand idle, one while nothing is measured."""
    if mean_s is None:
        return 1
    fair = max(1, ready // slots)
    return max(1, min(fair, MAX_CHUNK, int(CHUNK_S / max(mean_s, 1e-6))))

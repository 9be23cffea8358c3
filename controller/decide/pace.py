"""What a worker at its pace will not come to in time. Pure.

A share cannot be taken back, but it names no messages: what a slow worker has yet to pull waits in the queue for whoever pulls first. So
the part that it would only come to far too late is free to be somebody else's, who is launched for it; the slow worker then finds the
queue drained and ends early. In doubt a worker is taken to be quick: then its share is its own, and nothing more is launched.
"""

from __future__ import annotations

from math import ceil

from batch.model.progress import Progress

KNOWN_AFTER_S = 120.0
"""Before that, a first slow message says too little."""
RECENT_S = 120.0
TOO_SLOW = 1.5
"""Times as long as there is: a worker that is late by less finishes sooner than another would pay off."""


def late_count(worker: Progress, left_count: int, within_s: float) -> int:
    """How many of the `left_count` messages that a worker may still pull it will not have done `within_s` seconds from its last word on."""
    pace = messages_per_s(worker)
    if pace is None or left_count <= 0 or worker.held + left_count <= pace * within_s * TOO_SLOW:
        return 0
    return max(0, left_count - max(0, ceil(pace * within_s) - worker.held))


def messages_per_s(worker: Progress) -> float | None:
    """At most: what it holds counts as done, and of its whole life and the last minutes the quicker one is taken. None while that says
    nothing."""
    lived_s = worker.updated_at - worker.started_at
    if lived_s < KNOWN_AFTER_S or worker.taken <= worker.returned:
        return None
    recent = (worker.acked - worker.acked_at(worker.updated_at - RECENT_S)) / RECENT_S
    return max((worker.taken - worker.returned) / lived_s, recent)

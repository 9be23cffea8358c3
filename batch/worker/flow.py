"""How much to pull, and how much a thread takes at once: pure functions of what was measured.

A message that is pulled early is a message that no other worker can start: pull only what will start soon, and keep no more data
outstanding than the memory is meant for.
"""

from __future__ import annotations

from math import ceil

from batch.model.delivery import MAX_PULL_MESSAGES

CHUNK_S = 0.05
"""What one thread takes at once should keep it busy for about this long."""
IDLE_S = 0.002
"""For so little work no second thread is woken: handing it over takes as long."""
MAX_CHUNK = 100
QUICK_S = 0.0002
"""Handlers that are through in less wait for nothing: they only compete for the interpreter; a thread takes what keeps it busy."""
MAX_QUICK_CHUNK = 1000
MAX_OPEN_PULLS = 4
"""The real service may bring ten messages of ten thousand, and every pull takes a round trip: several at a time keep all threads busy."""
MAX_OUTSTANDING_COUNT = 10_000
"""Outstanding messages, with those that only wait for their acknowledgement: memory is bounded, however fast handlers are."""
FIRST_PULL = 1
"""Before the first message came their size is unknown."""
LEAST_PART = 8
"""A pull is worth its round trip when it asks for this part of what is wanted."""


def wanted_count(*, concurrency: int, busy: int, mean_s: float | None, prefetch_s: float) -> int:
    """How many messages should be waiting or on their way: what will start soon, at least one for each free task slot.

    `busy` task slots have something to do; `mean_s` is the measured seconds a message occupies one, None before the first message
    ended: then only the free ones are filled.
    """
    free = max(0, concurrency - busy)
    soon = 0 if mean_s is None else int(concurrency * prefetch_s / max(mean_s, 1e-6))
    return min(max(free, soon), MAX_OPEN_PULLS * MAX_PULL_MESSAGES)


def pull_size(*, wanted: int, ready: int, asked: int, allowed: int, brings: float | None, open_pulls: int, max_open: int) -> int:
    """How many messages one more pull asks for now; 0 when there is none to open.

    `ready` messages wait, `asked` are what the `open_pulls` pulls may bring. All pulls together never ask for more than `allowed`.
    `brings` is the mean of what the last pulls brought (None before the first one ended): where that is less than what is wanted
    the rest is asked for in as many pulls as may be open.
    """
    need = min(wanted - ready - asked, allowed - asked)
    if open_pulls >= max_open or need <= 0 or wanted - ready - asked < wanted // LEAST_PART:
        return 0
    if brings is None:
        return min(need, FIRST_PULL) if open_pulls == 0 else 0
    pulls = min(max_open - open_pulls, max(1, ceil(need / max(1.0, brings))))
    return min(ceil(need / pulls), MAX_PULL_MESSAGES)


def affordable_count(*, max_bytes: int, outstanding_bytes: int, mean_bytes: float, asked: int) -> int:
    """How many messages open pulls may have asked for in all, so that the outstanding data stays within `max_bytes` if they are of the mean
    size; one when nothing else is outstanding or asked for, however large it is."""
    fitting = int(max(0, max_bytes - outstanding_bytes) / max(1.0, mean_bytes))
    return max(fitting, 1) if outstanding_bytes == 0 and asked == 0 else fitting


def chunk_size(*, threads: int, ready: int, mean_s: float | None) -> int:
    """How many of `ready` messages one thread takes: never so many that another would stand idle for long, one while nothing is
    measured."""
    if mean_s is None:
        return 1
    mean_s = max(mean_s, 1e-6)
    if mean_s <= QUICK_S:
        return max(1, min(ready, MAX_QUICK_CHUNK, int(CHUNK_S / mean_s)))
    fair = max(1, ready // threads, int(IDLE_S / mean_s))
    return max(1, min(fair, MAX_CHUNK, int(CHUNK_S / mean_s)))

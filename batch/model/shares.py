"""How a backlog is split over workers. The shares of an execution always sum to what was assigned."""

from __future__ import annotations


def share(backlog: int, workers: int, index: int) -> int:
    """What worker `index` of `workers` may take of `backlog` messages: an equal part, the first ones take the remainder.

    Raises ValueError when `index` is not below `workers`, or a number is negative.
    """
    if backlog < 0 or workers < 1 or not 0 <= index < workers:
        raise ValueError(f"no share for index {index} of {workers} workers with a backlog of {backlog}")
    return backlog // workers + (1 if index < backlog % workers else 0)


def share_left(own_share: int, acked_before: int) -> int:
    """What a retry of a worker may still take, after what its earlier tries are known to have acknowledged."""
    return max(0, own_share - acked_before)
